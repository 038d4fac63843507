from __future__ import annotations

import numpy as np
import pytest
from semforge.graph import LabelGraph
from semforge.self_blending import alter, self_blend, self_blend_label, shift, soft_mask


@pytest.fixture(scope="module")
def face():
    y, x = np.mgrid[0:64, 0:64]
    values = 120 + 60 * np.sin(x / 6) * np.cos(y / 9)
    return (values[..., None] + [0, 15, -15]).clip(0, 255).astype(np.uint8)


def test_the_border_stays_and_the_middle_changes(face):
    changed = [
        np.abs(self_blend(face, np.random.default_rng(seed)).astype(int) - face).mean(2)
        for seed in range(40)
    ]
    still = [c for c in changed if c[0, 0] == c[0, -1] == c[-1, 0] == c[-1, -1] == 0]
    assert 8 < len(still) < 32  # where the altered copy lies above
    assert all(c[24:44, 24:44].mean() > 0.5 for c in still)
    assert all(c[24:44, 24:44].mean() > 2 * c[[0, -1]].mean() for c in still)


def test_it_follows_from_the_seed(face):
    one, two, other = (self_blend(face, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(one, two)
    assert not np.array_equal(one, other)
    assert one.dtype == np.uint8
    assert one.shape == face.shape


def test_masks_are_soft_and_about_the_middle():
    for seed in range(20):
        mask = soft_mask((50, 70), np.random.default_rng(seed))
        assert mask.shape == (50, 70)
        assert mask.min() == 0
        assert mask.max() == 1
        assert 0.1 < mask.mean() < 0.6
        assert ((mask > 0) & (mask < 1)).any()
        assert mask[25:30, 32:38].min() > 0.5


def test_copies_differ_a_little(face):
    for seed in range(10):
        rng = np.random.default_rng(seed)
        altered, moved = alter(face, rng), shift(face, rng)
        assert 1 < np.abs(altered.astype(int) - face).mean() < 60
        assert 0 < np.abs(moved.astype(int) - face).mean() < 30


def test_its_label_is_fake_and_nothing_else_is_known():
    assert self_blend_label(LabelGraph.ffsc()).tolist() == [1] + [2] * 11
    assert self_blend_label(LabelGraph.ffsc(strict_root=True)).tolist() == [1] + [2] * 11
    never = LabelGraph(
        nodes=("fake", "age"), any_child={"fake": ("age",)}, exclusion=(("fake", "age"),)
    )
    with pytest.raises(ValueError, match="forbids"):
        self_blend_label(never)
