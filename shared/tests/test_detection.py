from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from papercommons.metrics.detection import false_alarm_threshold, image_metrics, image_score
from papercommons.metrics.roc import binary_auc


def test_the_score_of_a_map():
    prob = np.linspace(0, 1, 400).reshape(20, 20)
    assert image_score(prob) == 1
    assert image_score(prob, "top1") == pytest.approx(prob.ravel()[-4:].mean())
    assert image_score(torch.from_numpy(prob), "top1") == image_score(prob, "top1")
    levels = np.arange(200, dtype=np.uint8).reshape(10, 20)
    assert image_score(levels) == pytest.approx(199 / 255)
    assert image_score(levels, "top1") == pytest.approx(198.5 / 255)
    assert image_score(levels[:1, :3], "top1") == pytest.approx(2 / 255)


def test_measures_of_images():
    scores = [0.9, 0.8, 0.4, 0.7, 0.3, 0.2, 0.1, 0.5]
    altered = [1, 1, 1, 0, 0, 0, 0, 0]
    found = {name: value for name, (value, _, _) in image_metrics(scores, altered).items()}
    assert found == pytest.approx(
        {
            "auc": binary_auc(scores, altered),
            "balanced_accuracy": (2 / 3 + 4 / 5) / 2,
            "f1": 2 / 3,
            "accuracy": 6 / 8,
            "false_alarm_rate": 1 / 5,
            "detection_rate": 2 / 3,
        }
    )


def test_intervals_cover_and_follow_the_sources():
    random = np.random.default_rng(0)
    altered = np.repeat([0, 1], 60)
    scores = random.random(120) * 0.8 + 0.2 * altered
    found = image_metrics(scores, altered, draws=500)
    for value, low, high in found.values():
        assert low < value < high
    twice = image_metrics(
        np.tile(scores, 2), np.tile(altered, 2), sources=[*range(120)] * 2, draws=500
    )
    for name, values in twice.items():
        assert values == pytest.approx(found[name])


def test_draws_in_parts(monkeypatch):
    scores, altered = np.linspace(0, 1, 30), np.arange(30) % 3 == 0
    monkeypatch.setattr("papercommons.metrics.bootstrap._AT_ONCE", 100)
    found = image_metrics(scores, altered, draws=300)
    assert all(low < value < high for value, low, high in found.values())


def test_one_kind_alone():
    found = image_metrics([0.2, 0.9], [0, 0])
    undefined = {name for name, estimate in found.items() if math.isnan(estimate.value)}
    assert undefined == {"auc", "balanced_accuracy", "f1", "detection_rate"}
    assert found["false_alarm_rate"].value == 0.5


@pytest.mark.parametrize("rate", [0.0, 0.01, 0.05, 0.25, 0.7])
@pytest.mark.parametrize("count", [1, 19, 20, 100])
def test_a_threshold_keeps_its_rate(rate, count):
    scores = np.random.default_rng(count).integers(50, size=count) / 50
    threshold = false_alarm_threshold(scores, rate)
    assert (scores > threshold).mean() <= rate + 1e-12
    below = scores[scores < threshold]
    if len(below):
        assert (scores > below.max()).mean() > rate


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: image_score(np.zeros((0, 3))), "a map with pixels"),
        (lambda: image_score(np.zeros((3, 3)), "mean"), "max or top1"),
        (lambda: image_metrics([0.1, 0.2], [1]), r"must be \(N,\), got \(2,\), \(1,\), 2"),
        (lambda: image_metrics([0.1], [2]), "altered must hold 0 and 1 only, got 2"),
        (lambda: image_metrics([math.nan], [1]), "finite"),
        (lambda: image_metrics([], []), "needs items"),
        (lambda: false_alarm_threshold([], 0.1), "finite scores of authentic images, got 0"),
        (lambda: false_alarm_threshold([0.1], 1.0), r"rate must be in \[0, 1\), got 1.0"),
    ],
)
def test_what_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
