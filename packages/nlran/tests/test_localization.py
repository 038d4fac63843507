"""Localisation scores against hand-computed values and what they are by definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from nlran.localization import (
    SCORES,
    centre_of_lung_map,
    energy_inside,
    localization,
    pointing_game,
    random_map,
    slice_auc,
    top_k_iou,
    voxel_average_precision,
)

HEAT = np.array([[0.1, 0.9, 0.3], [0.2, 0.5, 0.0]])
LESION = np.array([[0, 0, 1], [0, 1, 0]], dtype=bool)
# few levels, so that ties are common
MAPS = arrays(np.float64, (3, 3, 3), elements=st.integers(0, 4).map(float))
MASKS = arrays(bool, (3, 3, 3))


def test_by_hand():
    assert localization(HEAT, LESION) == {
        "pointing": 0.0,
        "top_k_iou": 1 / 3,
        "energy_inside": pytest.approx(0.4),
        "average_precision": pytest.approx((1 / 2 + 2 / 3) / 2),
    }


def test_the_mask_itself_is_the_best_map():
    assert localization(LESION, LESION) == dict.fromkeys(SCORES, 1.0)


def test_a_flat_map_scores_what_chance_would():
    share = LESION.mean()
    flat = localization(np.ones(LESION.shape), LESION)
    k, n = LESION.sum(), LESION.size
    chance = k * k / n
    assert flat["pointing"] == flat["energy_inside"] == pytest.approx(share)
    assert flat["average_precision"] == pytest.approx(share)
    assert flat["top_k_iou"] == pytest.approx(chance / (2 * k - chance))


@given(heat=MAPS, lesion=MASKS, seed=st.integers(0, 99))
def test_scores_do_not_depend_on_the_order_of_voxels(heat, lesion, seed):
    order = np.random.default_rng(seed).permutation(heat.size)
    moved = localization(heat.ravel()[order], lesion.ravel()[order])
    np.testing.assert_allclose(
        list(moved.values()), list(localization(heat, lesion).values()), rtol=1e-12
    )


@given(heat=MAPS, lesion=MASKS)
def test_ranks_decide_all_but_the_energy(heat, lesion):
    for score in (pointing_game, top_k_iou, voxel_average_precision):
        np.testing.assert_equal(score(heat**3 + 1, lesion), score(heat, lesion))


@given(heat=MAPS, lesion=MASKS)
def test_top_k_iou_is_the_mean_over_the_ways_to_break_ties(heat, lesion):
    k = lesion.sum()
    if k == 0:
        assert np.isnan(top_k_iou(heat, lesion))
        return
    rng = np.random.default_rng(0)
    common = []
    for _ in range(400):
        chosen = np.lexsort((rng.random(heat.size), -heat.ravel()))[:k]
        common.append(lesion.ravel()[chosen].sum())
    iou = top_k_iou(heat, lesion)
    assert 2 * k * iou / (1 + iou) == pytest.approx(np.mean(common), abs=0.5)


def test_without_a_lesion_nothing_is_known():
    scores = localization(HEAT, np.zeros_like(LESION))
    assert np.isnan(list(scores.values())).all()


def test_a_map_of_zeros_has_no_energy():
    assert np.isnan(energy_inside(np.zeros(LESION.shape), LESION))


def test_a_heat_map_is_checked():
    with pytest.raises(ValueError, match=r"one shape, got \(2, 3\) and \(3, 2\)"):
        pointing_game(HEAT, LESION.T)
    with pytest.raises(ValueError, match="not finite"):
        top_k_iou(np.where(LESION, np.nan, HEAT), LESION)
    with pytest.raises(ValueError, match=r">= 0, its minimum is -0\.4"):
        energy_inside(HEAT - 0.4, LESION)


def test_slice_auc():
    heat = np.zeros((4, 2, 2))
    heat[:, 0, 0] = [3, 1, 2, 0]
    assert slice_auc(heat, [True, False, False, False]) == 1.0
    assert slice_auc(heat, [False, True, False, True]) == 0.0
    assert slice_auc(heat, [True, False, False, True]) == 0.5
    assert np.isnan(slice_auc(heat, [True] * 4))
    with pytest.raises(ValueError, match=r"got \(4, 2, 2\) and \(3,\)"):
        slice_auc(heat, [True] * 3)


def test_random_map_is_uniform_and_its_seeds():
    heat = random_map((20, 20, 20), 3)
    np.testing.assert_array_equal(heat, random_map((20, 20, 20), 3))
    assert heat.dtype == np.float32
    assert heat.mean() == pytest.approx(0.5, abs=0.02)
    assert np.abs(heat - random_map((20, 20, 20), 4)).mean() > 0.2


def test_the_centre_of_the_lung_is_deepest():
    lung = np.zeros((9, 9, 9), dtype=bool)
    lung[2:7, 1:8, 1:8] = True
    heat = centre_of_lung_map(lung)
    assert heat.max() == heat[4, 4, 4] == 1
    assert (heat[~lung] == 0).all()
    assert heat[2, 4, 4] == pytest.approx(1 / 3)
    tall = centre_of_lung_map(lung, (10.0, 1.0, 1.0))
    assert tall[2, 4, 4] == 1  # depth is now decided in the plane: 4 voxels everywhere
    assert (centre_of_lung_map(np.zeros_like(lung)) == 0).all()
    assert centre_of_lung_map(np.ones_like(lung)).max() == 1
