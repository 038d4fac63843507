from __future__ import annotations

import io
import math

import numpy as np
import pytest
from defi_net.evaluation import Point
from defi_net.pictures import (
    EDGE,
    HEAT,
    TRUTH,
    differences_png,
    grid_png,
    means_png,
    metric_name,
    outline,
    overlay,
    panels_png,
    robustness_png,
    scores_png,
    shrink,
    strip,
)
from papercommons.metrics.tables import Summary
from PIL import Image

PHOTO = np.full((600, 40, 3), 100, np.uint8)


def size(png):
    with Image.open(io.BytesIO(png)) as image:
        image.load()
        return image.size


def test_an_overlay_is_a_mixture_with_outlines():
    probability = np.zeros((600, 40), np.float32)
    probability[300:] = 1
    found = overlay(PHOTO, probability, strength=0.5)
    assert (found[:300] == 100).all()
    np.testing.assert_allclose(found[300:] - (np.array(HEAT) + 100) / 2, 0, atol=0.51)
    mask, edge = probability > 0.5, np.zeros((600, 40))
    edge[0] = 1
    found = overlay(PHOTO, probability, mask=mask, edge=edge)
    assert (found[0] == EDGE).all()
    assert (found[299] == TRUTH).all()
    assert (found[290] == 100).all()
    with pytest.raises(ValueError, match="a map of it"):
        overlay(PHOTO, probability[:5])


def test_an_outline_is_outside():
    mask = np.zeros((50, 50), bool)
    mask[20:30, 20:30] = True
    found = outline(mask)
    assert found.sum() == 12 * 12 - 10 * 10
    assert not (found & mask).any()


def test_pictures_shrink():
    assert shrink(PHOTO, 300).shape == (300, 20, 3)
    assert shrink(PHOTO[..., 0] > 50, 300).dtype == bool
    ramp = np.linspace(0, 1, 1000)[None].repeat(10, 0)
    assert shrink(ramp, 100).mean() == pytest.approx(0.5, abs=0.01)
    assert shrink(PHOTO, 600) is PHOTO


def test_names_of_measures():
    assert metric_name("auc") == "AUC of pixels"
    assert metric_name("trufor_f1_best") == "F1, best threshold (trufor)"
    assert metric_name("official_unknown") == "unknown (official)"


def test_panels_and_grids():
    probability = np.random.default_rng(0).random((600, 40))
    known = size(panels_png(PHOTO, probability, mask=probability > 0.9, edge=probability))
    alone = size(panels_png(PHOTO, probability))
    assert known[0] == alone[0] == 3 * 360
    assert known[1] > 1.5 * alone[1]
    assert size(grid_png([PHOTO] * 5, list("abcde")))[0] == 4 * 288
    for pictures in ([], [PHOTO, PHOTO]):
        with pytest.raises(ValueError, match="one caption each"):
            grid_png(pictures, ["a"])


def test_means():
    rows = [
        Summary(group, metric, 0.5, 0.4, 0.6, 5, 0)
        for group in ("all", "telea")
        for metric in ("imdl_f1", "imdl_false_positive_rate")
    ]
    one = Summary("ns", "imdl_f1", 0.5, math.nan, math.nan, 1, 0)
    assert size(means_png([*rows, one], ["imdl_f1", "imdl_false_positive_rate", "auc"]))
    with pytest.raises(ValueError, match="no mean of auc"):
        means_png([*rows, Summary("all", "auc", math.nan, math.nan, math.nan, 0, 3)], ["auc"])


def test_robustness_and_scores():
    points = {
        "none": [Point(math.nan, 0.8, 0.7, 0.9)],
        "jpeg": [Point(q, q / 100, q / 110, q / 90) for q in (50, 70, 90)],
        "blur": [Point(1.0, math.nan, math.nan, math.nan)],
    }
    assert size(robustness_png(points, "imdl_f1"))
    with pytest.raises(ValueError, match="no distortion to draw"):
        robustness_png({"none": points["none"]}, "imdl_f1")
    assert size(scores_png([0.1, 0.9], [0, 1], 0.5))


def test_a_strip_holds_four_pictures():
    photo = np.full((100, 960, 3), 40, np.uint8)
    probability = np.zeros((100, 960), np.float32)
    probability[:, 480:] = 1
    found = strip(photo, probability, 1 - probability)
    assert found.shape == (50, 4 * 480 + 3 * 8, 3)
    quarters = [found[:, place : place + 480] for place in range(0, 1464 + 1, 488)]
    assert (quarters[0] == 40).all()
    for quarter, left, right in ((quarters[1], 0, 255), (quarters[2], 255, 0)):
        assert (quarter[:, :230] == left).all()
        assert (quarter[:, 250:] == right).all()
    assert (quarters[3][:, :230] == 40).all()
    assert (quarters[3][:, 250:, 0] > 150).all()
    assert (found[:, 480:488] == 255).all()


def test_differences_of_nothing_are_not_drawn():
    with pytest.raises(ValueError, match="nothing to draw: no difference of imdl_f1"):
        differences_png([], ["imdl_f1"])
