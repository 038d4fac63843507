"""Masks of COCO: runs, compressed runs, polygons."""

from __future__ import annotations

import numpy as np
import pytest
from d_tiil.coco_masks import (
    coco_mask,
    decode_counts,
    polygons_to_mask,
    runs_to_mask,
)
from hypothesis import given
from hypothesis import strategies as st
from papercommons.errors import DataError

SIZES = st.tuples(st.integers(1, 9), st.integers(1, 9))


def encode_counts(counts):
    """Compress run lengths, number by number, as the format describes."""
    text = ""
    for place, count in enumerate(counts):
        value = count - counts[place - 2] if place > 2 else count
        while True:
            bits, value = value & 31, value >> 5
            more = value != -1 if bits & 16 else value != 0
            text += chr(48 + bits + 32 * more)
            if not more:
                break
    return text


def runs_of(mask):
    flat = np.concatenate([[False], mask.T.ravel(), [False]])
    edges = np.flatnonzero(flat[1:] != flat[:-1])
    counts = np.diff(np.concatenate([[0], edges, [mask.size]])).tolist()
    return counts


@given(SIZES.flatmap(lambda size: st.tuples(st.just(size), st.binary(min_size=81, max_size=81))))
def test_runs_come_back_plain_and_compressed(case):
    size, noise = case
    mask = np.frombuffer(noise, np.uint8)[: size[0] * size[1]].reshape(size) > 127
    counts = runs_of(mask)
    plain = {"size": list(size), "counts": counts}
    assert (coco_mask(plain, size) == mask).all()
    assert (coco_mask(plain | {"counts": encode_counts(counts)}, size) == mask).all()


@given(st.lists(st.integers(0, 1 << 30), max_size=12))
def test_large_numbers_come_back(counts):
    assert decode_counts(encode_counts(counts)).tolist() == counts


@pytest.mark.parametrize(
    ("segmentation", "why"),
    [
        ({"size": [4, 5], "counts": [20]}, "image has 5 x 4"),
        ({"size": [5, 4], "counts": [19]}, "cover 19"),
        ({"size": [5, 4], "counts": [21, -1]}, "not within"),
        ({"size": [5, 4], "counts": [1.5]}, "numbers"),
        ({"size": [5, 4], "counts": "~~"}, "characters"),
        ({"size": [5, 4], "counts": "P"}, "end within"),
        ({"size": [5, 4], "counts": "o" * 9 + "0"}, "40 bits"),
        ({"size": [5, 4]}, "numbers"),
        ({"counts": [20]}, "size"),
        ({"size": [10**6, 10**6], "counts": [1]}, "at most"),
        ([[0, 0, 1, 1]], "three points"),
        ([[0, 0, 1, 1, 2, float("nan")]], "numbers"),
        ([[0, 0, 1, 1, 2]], "three points"),
        ([0, 0, 1, 1, 2, 2], "polygons"),
        (7, "polygons"),
    ],
)
def test_bad_segmentations(segmentation, why):
    with pytest.raises(DataError, match=why):
        coco_mask(segmentation, (5, 4))


def test_runs_go_down_the_columns():
    assert runs_to_mask(np.array([0, 1, 2, 1]), (2, 2)).tolist() == [[True, False], [False, True]]


def crossings(points, x, y):
    """Whether (x, y) is inside, by the even-odd rule, edge by edge."""
    inside = False
    for (x0, y0), (x1, y1) in zip(points, [*points[1:], points[0]], strict=True):
        if (y0 > y) != (y1 > y) and x >= x0 + (y - y0) * (x1 - x0) / (y1 - y0):
            inside = not inside
    return inside


@given(
    st.lists(
        st.tuples(st.floats(-3, 12, width=32), st.floats(-3, 12, width=32)), min_size=3, max_size=7
    ),
    SIZES,
)
def test_polygons_against_brute_force(points, size):
    # corners away from the pixels' centres: there rounding may decide
    points = [(x + 0.1234567, y + 0.1234567) for x, y in points]
    found = polygons_to_mask([[value for point in points for value in point]], size)
    wanted = np.zeros(size, bool)
    for row in range(size[0]):
        for column in range(size[1]):
            wanted[row, column] = crossings(points, column + 0.5, row + 0.5)
    assert (found != wanted).sum() <= 1


def test_polygons_are_joined():
    left, right = [1, 1, 3, 1, 3, 4, 1, 4], [2, 0, 5, 0, 5, 2, 2, 2]
    wanted = np.zeros((5, 6), bool)
    wanted[1:4, 1:3] = wanted[0:2, 2:5] = True
    assert (polygons_to_mask([left, right], (5, 6)) == wanted).all()
    assert not polygons_to_mask([], (5, 6)).any()
