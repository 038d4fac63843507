from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from papercommons.metrics.roc import weighted_auc
from papercommons.metrics.verification import equal_error_rate
from semforge.evaluation import detection_intervals, detection_measures

items = st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2, max_size=30).filter(
    lambda rows: len({fake for _, fake in rows}) == 2
)


def split(rows):
    scores, fake = zip(*rows, strict=True)
    return torch.tensor(scores, dtype=torch.double), torch.tensor(fake)


def brute(scores, fake, threshold):
    """By definition, threshold by threshold."""
    s, y = scores.numpy(), fake.numpy()
    cuts = sorted(set(s.tolist()), reverse=True)
    hits = [(s[y] >= cut).mean() for cut in cuts]
    alarms = [(s[~y] >= cut).mean() for cut in cuts]
    precision = [y[s >= cut].mean() for cut in cuts]
    ap = sum(
        (h - before) * p for h, before, p in zip(hits, [0, *hits[:-1]], precision, strict=True)
    )
    called = s >= threshold
    return {
        "ap": ap,
        "tpr_at_1_fpr": max([0, *(h for h, a in zip(hits, alarms, strict=True) if a <= 0.01)]),
        "accuracy": (called == y).mean(),
        "balanced_accuracy": (called[y].mean() + (~called)[~y].mean()) / 2,
    }


@given(items, st.integers(-3, 3))
def test_measures_are_what_their_names_say(rows, threshold):
    scores, fake = split(rows)
    found = detection_measures(scores, fake, threshold=threshold)
    for name, value in brute(scores, fake, threshold).items():
        assert float(found[name]) == pytest.approx(value), name
    assert float(found["auc"]) == pytest.approx(float(weighted_auc(scores, fake)))
    rate, _ = equal_error_rate(scores.numpy(), fake.numpy())
    assert float(found["eer"]) == pytest.approx(rate, abs=1e-9)


@given(items, st.data())
def test_a_weight_is_a_repetition(rows, data):
    scores, fake = split(rows)
    times = data.draw(st.lists(st.integers(0, 3), min_size=len(rows), max_size=len(rows)))
    weights = torch.tensor([times, [1] * len(rows)], dtype=torch.double)
    often = torch.tensor(times)
    found = detection_measures(scores, fake, weights)
    repeated_scores = scores.repeat_interleave(often)
    if len(repeated_scores):
        repeated = detection_measures(repeated_scores, fake.repeat_interleave(often))
        for name, values in found.items():
            assert float(values[0]) == pytest.approx(float(repeated[name]), nan_ok=True), name
    plain = detection_measures(scores, fake)
    for name, values in found.items():
        assert values[1] == plain[name][0]


def test_one_class_leaves_undefined_what_needs_both():
    found = detection_measures(torch.arange(4.0), torch.ones(4, dtype=torch.bool), threshold=1)
    assert {name for name, value in found.items() if value.isnan()} == {
        "auc",
        "ap",
        "eer",
        "tpr_at_1_fpr",
        "balanced_accuracy",
    }
    assert float(found["accuracy"]) == 0.75


@pytest.mark.parametrize(
    ("scores", "fake", "weights"),
    [
        (torch.zeros(0), torch.zeros(0, dtype=torch.bool), None),
        (torch.tensor([1.0, math.nan]), torch.tensor([True, False]), None),
        (torch.zeros(2), torch.tensor([True]), None),
        (torch.zeros(2), torch.tensor([True, False]), torch.ones(1, 3)),
    ],
)
def test_bad_arguments(scores, fake, weights):
    with pytest.raises(ValueError, match="scores"):
        detection_measures(scores, fake, weights)


def test_intervals_resample_sources():
    chance = torch.Generator().manual_seed(0)
    fake = torch.arange(40) % 2 == 1
    scores = fake + torch.randn(40, generator=chance)
    alone = detection_intervals(scores, fake, range(40), draws=400)
    # the same forty faces, each five times: a source's copies tell nothing new
    often = detection_intervals(scores.repeat(5), fake.repeat(5), [*range(40)] * 5, draws=400)
    naive = detection_intervals(scores.repeat(5), fake.repeat(5), range(200), draws=400)
    for name, estimate in alone.items():
        assert estimate.low <= estimate.value <= estimate.high
        assert often[name] == pytest.approx(estimate, abs=1e-9), name
    assert naive["auc"].high - naive["auc"].low < 0.7 * (alone["auc"].high - alone["auc"].low)
    one = detection_intervals(scores[fake], fake[fake], range(20), draws=10)
    assert math.isnan(one["auc"].low)
