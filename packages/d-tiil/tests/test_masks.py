from __future__ import annotations

import numpy as np
import pytest
import torch
from d_tiil.masks import blur_map, resize_mask, scale_map, threshold_map, to_bytes
from d_tiil.regions import bounding_box, connected_regions, fill_holes, largest_region
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from papercommons.errors import DataError

MASKS = arrays(np.bool_, st.tuples(st.integers(1, 9), st.integers(1, 9)))
MAPS = arrays(np.uint8, st.tuples(st.integers(3, 9), st.integers(3, 9)))


def test_a_constant_map_becomes_zero_and_not_nan():
    assert torch.equal(scale_map(torch.full((4, 4), 3.0)), torch.zeros(4, 4))
    assert torch.equal(scale_map(torch.zeros(4, 4), clamp=3.0), torch.zeros(4, 4))
    with pytest.raises(DataError, match="must be finite"):
        scale_map(torch.tensor([[1.0, float("nan")]]))


def test_scaling_and_bytes():
    values = scale_map(torch.tensor([[1.0, 2.0, 3.0]]))
    assert values.tolist() == [[0.0, 0.5, 1.0]]
    assert to_bytes(values).tolist() == [[0, 127, 255]]
    clamped = scale_map(torch.tensor([[0.0, 1.0, 8.0]]), clamp=1.0)
    torch.testing.assert_close(clamped, torch.tensor([[0.0, 1 / 3, 1.0]]))


@given(MAPS, st.floats(0.3, 3.0))
def test_blur_is_a_mirrored_gaussian(values, sigma):
    taps = np.exp(-0.5 * (np.arange(-2, 3) / sigma) ** 2)
    kernel = np.outer(taps, taps) / taps.sum() ** 2
    padded = np.pad(values.astype(float), 2, mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (5, 5))
    expected = torch.from_numpy((windows * kernel).sum((-1, -2))).float()
    torch.testing.assert_close(
        blur_map(torch.from_numpy(values), sigma), expected, rtol=0, atol=1e-3
    )


def test_blur_preserves_constants():
    flat = torch.full((6, 7), 200, dtype=torch.uint8)
    torch.testing.assert_close(blur_map(flat, 1.0), torch.full((6, 7), 200.0))
    assert torch.equal(blur_map(flat, 0.0), flat.float())


@given(MAPS, st.floats(0.01, 0.99), st.floats(0.01, 0.99), st.sampled_from([0.0, 1.0]))
def test_a_greater_threshold_gives_a_subset(values, one, two, blur):
    low, high = sorted((one, two))
    loose, tight = (threshold_map(torch.from_numpy(values), t, blur=blur) for t in (low, high))
    assert not (tight & ~loose).any()


def test_a_threshold_is_between_0_and_1():
    with pytest.raises(ValueError, match="got 1"):
        threshold_map(torch.zeros(4, 4, dtype=torch.uint8), 1.0)


def test_masks_keep_their_place_in_other_sizes():
    mask = torch.eye(3, dtype=torch.bool)
    large = resize_mask(mask, (6, 9))
    assert torch.equal(large, mask.repeat_interleave(2, 0).repeat_interleave(3, 1))
    assert torch.equal(resize_mask(large, (3, 3)), mask)


def regions_by_search(mask, steps):
    """Return the set of regions, each a set of places."""
    left, found = {tuple(place) for place in np.argwhere(mask)}, []
    while left:
        region, edge = set(), [left.pop()]
        while edge:
            y, x = edge.pop()
            region.add((y, x))
            near = {(y + dy, x + dx) for dy, dx in steps} & left
            left -= near
            edge += near
        found.append(frozenset(region))
    return set(found)


CROSS = [(0, 1), (1, 0), (0, -1), (-1, 0)]
ALL = [*CROSS, (1, 1), (1, -1), (-1, 1), (-1, -1)]


@given(MASKS, st.booleans())
def test_regions_are_those_of_a_search(mask, corners):
    labels = connected_regions(torch.from_numpy(mask), corners=corners).numpy()
    assert ((labels > 0) == mask).all()
    ours = {
        frozenset(map(tuple, np.argwhere(labels == label).tolist()))
        for label in set(labels[mask].tolist())
    }
    assert ours == regions_by_search(mask, ALL if corners else CROSS)


@given(MASKS)
def test_the_largest_region(mask):
    found = largest_region(torch.from_numpy(mask)).numpy()
    assert not (found & ~mask).any()
    sizes = [len(region) for region in regions_by_search(mask, ALL)]
    assert found.sum() == max(sizes, default=0)
    assert len(regions_by_search(found, ALL)) <= 1


@given(MASKS)
def test_filled_holes_are_what_the_outside_does_not_reach(mask):
    framed = np.pad(~mask, 1, constant_values=True)
    outside = next(r for r in regions_by_search(framed, CROSS) if (0, 0) in r)
    filled = fill_holes(torch.from_numpy(mask)).numpy()
    expected = [
        [(y + 1, x + 1) not in outside for x in range(mask.shape[1])] for y in range(mask.shape[0])
    ]
    assert (filled == np.array(expected)).all()


def test_a_long_spiral_is_one_region():
    mask = np.zeros((41, 41), bool)
    mask[::2] = True
    mask[1::4, -1] = mask[3::4, 0] = True
    assert torch.equal(largest_region(torch.from_numpy(mask)), torch.from_numpy(mask))


@given(MASKS)
def test_a_box_is_tight(mask):
    box = bounding_box(torch.from_numpy(mask))
    if not mask.any():
        assert box is None
        return
    inside = np.zeros_like(mask)
    inside[box.top : box.bottom + 1, box.left : box.right + 1] = True
    assert not (mask & ~inside).any()
    assert mask[box.top].any()
    assert mask[box.bottom].any()
    assert mask[:, box.left].any()
    assert mask[:, box.right].any()


def test_masks_are_bool():
    with pytest.raises(ValueError, match=r"must be bool \(h, w\)"):
        largest_region(torch.zeros(3, 3))
    with pytest.raises(ValueError, match="grow must be >= 0"):
        largest_region(torch.zeros(3, 3, dtype=torch.bool), grow=-1)
