from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from papercommons.metrics.calibration import (
    Calibration,
    brier,
    cllr,
    ece,
    fit_calibration,
    min_cllr,
    pool_adjacent_violators,
    tippett,
    weighted_ece,
)


def normal_scores(count, different, seed=0):
    """Scores around 1 (same) and -1 (different) with variance 1: their LLR is twice the score."""
    random = np.random.default_rng(seed)
    same = np.repeat([1, 0], [count, different])
    return random.normal(2 * same - 1), same


@pytest.mark.parametrize("different", [20_000, 2_000])
def test_calibration_finds_the_likelihood_ratio_whatever_the_share_of_classes(different):
    scores, same = normal_scores(20_000, different)
    found = fit_calibration(scores, same)
    assert found.slope == pytest.approx(2, abs=0.08)
    assert found.intercept == pytest.approx(0, abs=0.08)
    shifted = fit_calibration(10 + 3 * scores, same)
    np.testing.assert_allclose(shifted.llr(10 + 3 * scores), found.llr(scores), atol=1e-6)


def test_calibration_is_the_minimum():
    scores, same = normal_scores(40, 25)
    found = fit_calibration(scores, same)

    def loss(slope, intercept):
        llr = Calibration(slope, intercept).llr(scores)
        soft = np.where(same == 1, 41 / 42, 1 / 27)
        losses = soft * np.logaddexp(0, -llr) + (1 - soft) * np.logaddexp(0, llr)
        return losses[same == 1].mean() + losses[same == 0].mean()

    least = loss(found.slope, found.intercept)
    for change in (1e-3, -1e-3):
        assert loss(found.slope + change, found.intercept) > least
        assert loss(found.slope, found.intercept + change) > least


def test_calibration_of_scores_without_error_is_bounded():
    found = fit_calibration([0.0, 1.0, 9.0, 10.0], [0, 0, 1, 1])
    assert 0 < found.llr(10.0) < 3


@pytest.mark.parametrize("scores", [[2.0, 1.5, 0.5, 0.0], [1.0, 1.0, 1.0, 1.0]])
def test_scores_that_say_nothing_give_no_evidence(scores):
    assert fit_calibration(scores, [0, 0, 1, 1]) == Calibration(0.0, 0.0)


def test_calibration_needs_both_classes():
    for scores, same in (([0.0, 1.0], [1, 1]), ([0.0, 1.0], [0, 0]), ([0.0, math.inf], [0, 1])):
        with pytest.raises(ValueError, match="needs finite scores of pairs of one writer and of"):
            fit_calibration(scores, same)


def test_cllr_of_known_ratios():
    assert cllr([0.0, 0.0, 0.0], [1, 0, 0]) == pytest.approx(1)
    assert cllr([math.inf, -math.inf], [1, 0]) == 0
    assert cllr([-math.inf, 0.0], [1, 0]) == math.inf
    lr = np.array([4.0, 0.5, 0.25])
    by_hand = (math.log2(1 + 1 / 4) + (math.log2(1.5) + math.log2(1.25)) / 2) / 2
    assert cllr(np.log(lr), [1, 0, 0]) == pytest.approx(by_hand)
    assert math.isnan(cllr([0.0], [1]))


def pav_by_hand(same, different):
    """The textbook algorithm: a stack of blocks."""
    blocks = []
    for s, d in zip(same, different, strict=True):
        blocks.append([s, d])
        while len(blocks) > 1 and blocks[-2][0] * blocks[-1][1] >= blocks[-1][0] * blocks[-2][1]:
            top = blocks.pop()
            blocks[-1] = [blocks[-1][0] + top[0], blocks[-1][1] + top[1]]
    return np.array(blocks).T


@given(
    weights=st.lists(
        st.tuples(st.integers(0, 4), st.integers(0, 4)).filter(any), min_size=1, max_size=40
    )
)
def test_pooling_is_that_of_the_textbook(weights):
    same, different = np.array(weights, float).T
    for got, expected in zip(
        pool_adjacent_violators(same, different), pav_by_hand(same, different), strict=True
    ):
        np.testing.assert_allclose(got, expected)


@given(seed=st.integers(0, 200))
def test_min_cllr_is_below_every_monotone_calibration(seed):
    scores, same = normal_scores(15, 20, seed)
    scores = scores.round(1)
    least = min_cllr(scores, same)
    assert 0 <= least <= 1
    for map_ in (lambda s: s, lambda s: 2 * s, np.cbrt, fit_calibration(scores, same).llr):
        assert least <= cllr(map_(scores), same) + 1e-12
    assert min_cllr(np.exp(3 * scores), same) == pytest.approx(least)


def test_min_cllr_of_perfect_and_useless_scores():
    assert min_cllr([0.0, 1.0, 2.0], [0, 0, 1]) == 0
    assert min_cllr([5.0, 5.0], [0, 1]) == 1
    assert min_cllr([1.0, 0.0], [0, 1]) == 1
    assert math.isnan(min_cllr([1.0, 0.0], [0, 0]))


def test_brier_and_ece_by_hand():
    p, same = [0.9, 0.8, 0.3, 1.0], [1, 0, 0, 1]
    assert brier(p, same) == pytest.approx((0.01 + 0.64 + 0.09 + 0) / 4)
    # bins of 0.5: {0.3} is 0.3 off; {0.9, 0.8, 1.0} mean 0.9 against 2/3
    assert ece(p, same, bins=2) == pytest.approx((0.3 + 3 * abs(0.9 - 2 / 3)) / 4)
    assert ece([0.25] * 4, [1, 0, 0, 0]) == pytest.approx(0)


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=2, max_size=30))
def test_ece_with_weights_is_that_of_repeated_pairs(rows):
    p, same = (np.array(column) for column in zip(*rows, strict=True))
    times = np.random.default_rng(len(rows)).integers(3, size=(4, len(rows)))
    times[0] = 0
    nothing, *found = weighted_ece(p, same, times)
    assert math.isnan(nothing)
    for row, value in zip(times[1:], found, strict=True):
        repeated = ece(p.repeat(row), same.repeat(row)) if row.any() else math.nan
        assert value == pytest.approx(repeated, nan_ok=True)
    if 0 < same.sum() < len(same):  # balanced: as if the rarer class were repeated
        row = np.where(same, (~same).sum(), same.sum())
        assert ece(p, same, balanced=True) == pytest.approx(ece(p.repeat(row), same.repeat(row)))
    else:
        assert math.isnan(ece(p, same, balanced=True))
    with pytest.raises(ValueError, match=r"weights must be \(R, "):
        weighted_ece(p, same, times[1])


def test_tippett_counts_what_is_at_or_above():
    curves = tippett([0.0, 1.0, 1.0, -2.0], [1, 1, 0, 0])
    assert curves.llr.tolist() == [-2, 0, 1]
    assert curves.same.tolist() == [1, 1, 0.5]
    assert curves.different.tolist() == [1, 0.5, 0.5]
    assert np.isnan(tippett([0.0, 1.0], [1, 1]).different).all()


@pytest.mark.parametrize(
    ("scores", "same", "message"),
    [
        ([], [], r"must be \(P,\), P >= 1"),
        ([0.0, 1.0], [1], r"got \(2,\), \(1,\)"),
        ([0.0, math.nan], [1, 0], "must not be NaN, got one at 1"),
        ([0.0, 1.0], [1, 2], "same must be 0 or 1, got 2"),
    ],
)
@pytest.mark.parametrize("measure", [cllr, min_cllr, tippett, fit_calibration, brier, ece])
def test_bad_input_is_refused(measure, scores, same, message):
    with pytest.raises(ValueError, match=message):
        measure(scores, same)


def test_logits_are_no_probabilities():
    with pytest.raises(ValueError, match="probabilities must be in"):
        brier([1.5, 0.0], [1, 0])
