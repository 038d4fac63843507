from __future__ import annotations

import math

import numpy as np
import pytest
from cmdfd.segments import (
    AR_OVERLAPS,
    find_segments,
    localisation_measures,
    overlaps,
    smoothed,
)
from hypothesis import given
from hypothesis import strategies as st


def plain_iou(one, two):
    shared = max(0.0, min(one[1], two[1]) - max(one[0], two[0]))
    return shared / (max(one[1], two[1]) - min(one[0], two[0]))


def plain_ap(proposals, parts, overlap):
    """One proposal after the other, as the definition reads; scores of all clips differ."""
    hits = []
    for of_clip, true in zip(proposals, parts, strict=True):
        ranked = sorted(of_clip, key=lambda row: -row[2])
        taken = set()
        for part in true:
            for k, row in enumerate(ranked):
                if k not in taken and plain_iou(row, part) > overlap:
                    taken.add(k)
                    break
        hits += [(row[2], k in taken) for k, row in enumerate(ranked)]
    hits.sort(key=lambda pair: -pair[0])
    points, found = [], 0
    for rank, (_, hit) in enumerate(hits, 1):
        found += hit
        points.append((found / sum(map(len, parts)), found / rank))
    area, before = 0.0, 0.0
    for k, (recall, _) in enumerate(points):
        area += (recall - before) * max(p for _, p in points[k:])
        before = recall
    return area


def plain_ar(proposals, parts, count):
    found = 0
    for overlap in AR_OVERLAPS:
        for of_clip, true in zip(proposals, parts, strict=True):
            top = sorted(of_clip, key=lambda row: -row[2])[:count]
            found += sum(any(plain_iou(row, part) > overlap for row in top) for part in true)
    return found / (len(AR_OVERLAPS) * sum(map(len, parts)))


def random_clips(seed):
    rng = np.random.default_rng(seed)
    proposals, parts = [], []
    for _ in range(int(rng.integers(1, 7))):
        begins = rng.integers(0, 12, (int(rng.integers(0, 6)), 1)) / 2
        spans = np.hstack([begins, begins + rng.integers(1, 8, begins.shape) / 2])
        proposals.append(np.hstack([spans, rng.random(begins.shape)]))
        begins = rng.integers(0, 12, (int(rng.integers(0, 4)), 1)) / 2
        parts.append(np.hstack([begins, begins + rng.integers(1, 6, begins.shape) / 2]))
    return proposals, parts


@given(seed=st.integers(0, 10**6))
def test_it_is_what_the_definitions_say_clip_by_clip(seed):
    proposals, parts = random_clips(seed)
    found = localisation_measures(proposals, parts, ap_overlaps=(0.3, 0.5, 0.75), ar_counts=(1, 3))
    if not sum(map(len, parts)):
        assert all(map(math.isnan, found.values()))
        return
    for overlap in (0.3, 0.5, 0.75):
        assert found[f"ap@{overlap:g}"] == pytest.approx(plain_ap(proposals, parts, overlap))
    for count in (1, 3):
        assert found[f"ar@{count}"] == pytest.approx(plain_ar(proposals, parts, count))


@given(seed=st.integers(0, 10**6))
def test_the_order_of_clips_does_not_matter_though_scores_are_equal(seed):
    proposals, parts = random_clips(seed)
    proposals = [np.column_stack([rows[:, :2], rows[:, 2].round(1)]) for rows in proposals]
    turned = localisation_measures(proposals[::-1], parts[::-1])
    for name, value in localisation_measures(proposals, parts).items():
        assert turned[name] == pytest.approx(value, nan_ok=True)


def test_numbers_worked_out_by_hand():
    parts = [[(1.0, 2.0), (3.0, 4.0)], []]
    proposals = [[(3.0, 4.0, 0.9), (1.0, 2.5, 0.5)], [(0.0, 1.0, 0.7)]]
    found = localisation_measures(proposals, parts)
    # hit, miss, hit at 0.5; at 0.75 the third is none, IoU = 2 / 3
    assert found["ap@0.5"] == pytest.approx((1 + 2 / 3) / 2)
    assert found["ap@0.75"] == pytest.approx(0.5)
    assert found["ar@5"] == pytest.approx((10 + 4) / 20)  # 2 / 3 exceeds 0.5 to 0.65


def test_an_overlap_must_exceed_the_threshold_and_a_proposal_is_taken_once():
    assert overlaps([[0.0, 2.0]], [[1.0, 2.0]])[0, 0] == 0.5
    found = localisation_measures([[(0.0, 2.0, 1.0)]], [[(1.0, 2.0)]], ar_counts=(1,))
    assert found["ap@0.5"] == found["ar@1"] == 0
    twice = [[(0.0, 1.0, 1.0), (0.0, 1.0, 0.5)]]
    assert localisation_measures(twice, [[(0.0, 1.0)]])["ap@0.95"] == 1  # the second costs nothing
    both = localisation_measures([[(0.0, 1.0, 1.0)]], [[(0.0, 1.0), (0.0, 1.0)]])
    assert (both["ap@0.5"], both["ar@5"]) == (0.5, 1)


def test_empty_cases():
    assert set(localisation_measures([[], []], [[(0.0, 1.0)], []]).values()) == {0.0}
    nothing = localisation_measures([[(0.0, 1.0, 1.0)]], [[]])
    assert all(map(math.isnan, nothing.values()))
    assert all(map(math.isnan, localisation_measures([], []).values()))
    missed = localisation_measures([[(0.0, 1.0, 1.0)], []], [[(0.0, 1.0)], [(0.0, 1.0)]])
    assert missed["ar@5"] == 0.5  # a clip without proposals counts


def test_parts_of_a_curve():
    curve = np.full(100, -1.0)
    curve[20:40] = 2.0
    curve[30:32] = -0.5  # a gap of two frames
    curve[60] = 5.0  # shorter than a part may be
    found = find_segments(curve, smooth=1, least=5, gap=3)
    np.testing.assert_allclose(found, [[0.8, 1.6, (18 * 2 - 1) / 20]])
    apart = find_segments(curve, smooth=1, least=5, gap=1)
    np.testing.assert_allclose(apart, [[0.8, 1.2, 2], [1.28, 1.6, 2]])
    assert find_segments(curve, threshold=10).shape == (0, 3)
    np.testing.assert_allclose(find_segments(np.ones(50), threshold=0.5), [[0, 2, 1]])
    assert find_segments(np.zeros(9)).shape == (0, 3)  # not above
    assert find_segments([]).shape == (0, 3)


@given(values=st.lists(st.floats(-5, 5), min_size=1, max_size=30), width=st.sampled_from([1, 3, 7]))
def test_smoothing_is_the_mean_of_what_is_there(values, width):
    half = width // 2
    expected = [np.mean(values[max(0, k - half) : k + half + 1]) for k in range(len(values))]
    np.testing.assert_allclose(smoothed(values, width), expected, atol=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: smoothed([1.0], 2), "odd"),
        (lambda: find_segments([1.0], least=0), "least >= 1"),
        (lambda: localisation_measures([[]], []), "each clip"),
        (lambda: localisation_measures([[(1.0, 1.0, 0.0)]], [[]]), "proposals must end after"),
        (lambda: localisation_measures([[(0.0, 1.0)]], [[]]), r"finite, \(K, 3\)"),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()
