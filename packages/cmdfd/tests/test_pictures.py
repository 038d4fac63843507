from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from cmdfd.calibration import read_calibration, save_calibration
from cmdfd.measures import clip_measures
from cmdfd.pictures import (
    bars_png,
    clip_png,
    film_strip,
    reliability_png,
    roc_png,
    roc_points,
    scores_png,
)
from cmdfd.scoring import KeptScores, listed, unlisted
from cmdfd.scoring_measures import measures_with_intervals, weighted_measures
from cmdfd.windows import FrameScores
from hypothesis import given
from hypothesis import strategies as st
from papercommons.errors import DataError
from papercommons.metrics.score_calibration import ScoreCalibration
from PIL import Image

scores_lists = st.lists(st.integers(-3, 3).map(float), min_size=2, max_size=12)


@given(scores=scores_lists, data=st.data())
def test_a_weight_counts_as_so_many_clips(scores, data):
    size = len(scores)
    labels = data.draw(st.lists(st.integers(0, 1), min_size=size, max_size=size))
    times = data.draw(st.lists(st.integers(0, 3), min_size=size, max_size=size))
    if not sum(times):
        return
    weights = torch.tensor([[1.0] * size, times], dtype=torch.double)
    found = weighted_measures(
        torch.tensor(scores, dtype=torch.double), torch.tensor(labels) == 1, weights, threshold=0.5
    )
    for row, repeat in enumerate(([1] * size, times)):
        expected = clip_measures(
            np.repeat(scores, repeat), np.repeat(labels, repeat), threshold=0.5
        )
        for name, value in expected.items():
            assert float(found[name][row]) == pytest.approx(value, nan_ok=True), name


def test_intervals_hold_the_value_and_follow_the_sources():
    rng = np.random.default_rng(0)
    labels = np.arange(80) % 2
    scores = labels + rng.standard_normal(80)
    alone = measures_with_intervals(scores, labels, range(80), draws=400)
    pairs = measures_with_intervals(
        np.repeat(scores, 2), np.repeat(labels, 2), np.repeat(np.arange(80), 2).tolist(), draws=400
    )
    for name, found in alone.items():
        assert found.low <= found.value <= found.high
        assert pairs[name].high - pairs[name].low == pytest.approx(found.high - found.low)
    one = measures_with_intervals(scores[labels == 1], [1] * 40, range(40), draws=20)
    assert np.isnan(one["auc"].low)
    assert one["fake_recall"].value == clip_measures(scores[labels == 1], [1] * 40)["fake_recall"]


def test_a_calibration_is_kept_for_its_network(tmp_path):
    found = ScoreCalibration(0.5, -2.0, 500, 1500)
    save_calibration(tmp_path / "calibration.json", found, weights="abc", clips="a list")
    assert read_calibration(tmp_path, weights="abc") == found
    with pytest.raises(DataError, match="another network"):
        read_calibration(tmp_path, weights="abd")


def curves(count, seed=0):
    rng = np.random.default_rng(seed)
    return FrameScores(
        rng.normal(size=count).astype(np.float32) * 4, rng.random(count).astype(np.float32)
    )


def test_kept_scores_are_exact_and_bear_a_torn_line(tmp_path):
    path = tmp_path / "deep" / "kept.jsonl"
    found = unlisted(listed(curves(30)))
    KeptScores(path).add("a", "hash", found)
    with path.open("a") as file:
        file.write('{"name": "b", "hash": "x", "margin": [1.0')
    KeptScores(path).add("c", "hash", found)
    again = KeptScores(path)
    np.testing.assert_array_equal(again.get("a", "hash").margin, found.margin)
    np.testing.assert_array_equal(again.get("c", "hash").correlation, found.correlation)
    assert again.get("a", "other") is None
    assert again.get("b", "x") is None
    KeptScores(None).add("a", "hash", found)


def width(png):
    with Image.open(io.BytesIO(png)) as picture:
        return picture.width


@pytest.mark.parametrize("count", [5, 26, 400])
def test_a_clip_over_time_is_drawn_whatever_its_length(count):
    frames = np.random.default_rng(0).integers(0, 255, (count, 8, 8)).astype(np.uint8)
    parts = np.array([[0.0, 0.1, 2.0]])
    assert width(clip_png(curves(count), frames, parts, threshold=0.5, begin=0.4)) == 1080
    nothing = np.zeros((0, 3))
    assert clip_png(curves(count), None, nothing, threshold=0, true_parts=[(0.0, 0.1)])


def test_a_film_strip_takes_the_middle_of_each_share():
    frames = np.arange(24, dtype=np.uint8)[:, None, None] * np.ones((1, 2, 2), np.uint8)
    assert film_strip(frames, 4)[0, ::2].tolist() == [3, 9, 15, 21]
    assert film_strip(frames[:2], 4).shape == (2, 4)


def test_the_area_under_the_corners_is_the_auc():
    rng = np.random.default_rng(2)
    fake = rng.random(60) < 0.4
    scores = (fake + rng.standard_normal(60)).round(1)
    x, y = roc_points(scores, fake)
    area = np.sum(np.diff(x) * (y[1:] + y[:-1]) / 2)
    assert area == pytest.approx(clip_measures(scores, fake)["auc"])
    assert width(roc_png({"one list": (scores, fake)})) > 600
    assert width(scores_png({"real": scores[~fake], "a": scores[fake]}, {"0": 0.0})) > 600
    assert width(reliability_png({"one": (1 / (1 + np.exp(-scores)), fake)})) > 400
    rows = [{"fakes": "a", "network": 0.9, "lengths": None}, {"fakes": "b", "network": 0.4}]
    assert width(bars_png(rows, ["network", "lengths"])) > 600
    assert isinstance(ScoreCalibration(1.0, 0.0).threshold, float)
