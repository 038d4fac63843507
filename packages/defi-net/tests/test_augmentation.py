from __future__ import annotations

import numpy as np
import pytest
from defi_net.augmentation import augment, fit, paper, robust
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image


def scene(height=96, width=120):
    """A picture that is white where the mask is, so that both can be compared after any move."""
    mask = np.zeros((height, width), dtype=bool)
    mask[height // 6 : height // 3, width // 4 : width // 2] = True
    mask[height // 2 :, width // 2 : width // 2 + 9] = True
    return (mask[..., None] * np.full(3, 255)).astype(np.uint8), mask


@given(seed=st.integers(0, 10**6), how=st.sampled_from(["paper", "robust"]))
def test_mask_and_picture_move_together(seed, how):
    photo, mask = augment(*scene(), how, np.random.default_rng(seed))
    assert photo.shape[:2] == mask.shape
    assert photo.dtype == np.uint8
    assert mask.dtype == bool
    seen = photo.mean(axis=2) > 127
    assert np.mean(seen != mask) < 0.06  # edges alone
    assert mask.any() == seen.any()


@given(seed=st.integers(0, 10**6), height=st.integers(16, 60), width=st.integers(16, 60))
def test_the_papers_crop_takes_at_most_forty_pixels(seed, height, width):
    _, mask = paper(*scene(height, width), np.random.default_rng(seed))
    for side, before in zip(mask.shape, (height, width), strict=True):
        assert max(16, before - 40) <= side <= max(before - 1, 16)


def test_the_papers_shares_of_mirrored_and_turned_pictures():
    photo = np.zeros((80, 80, 3), dtype=np.uint8)
    photo[..., 0] = 255  # turning leaves black corners
    photo[:, :40, 1] = 255  # mirroring puts this on the right
    mask = np.zeros((80, 80), dtype=bool)
    rng = np.random.default_rng(0)
    results = [paper(photo, mask, rng)[0] for _ in range(400)]
    straight = [out for out in results if (out[..., 0] == 255).all()]
    mirrored = [out[..., 1][:, -1].all() for out in straight]
    assert 0.5 < len(straight) / 400 < 0.7
    assert 0.4 < np.mean(mirrored) < 0.6


def test_same_seed_same_picture():
    for how in (paper, robust):
        one, other = (how(*scene(), np.random.default_rng(5)) for _ in range(2))
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_array_equal(one[1], other[1])


def test_none_changes_nothing():
    photo, mask = scene()
    out = augment(photo, mask, "none", np.random.default_rng(0))
    assert out[0] is photo
    assert out[1] is mask


def test_fit_resizes_like_the_paper():
    photo = np.random.default_rng(0).integers(0, 256, (90, 70, 3), dtype=np.uint8)
    mask = photo[..., 0] > 200
    small, binary = fit(photo, mask, 32)
    expected = Image.fromarray(photo).resize((32, 32), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(small, np.asarray(expected))
    assert binary.dtype == bool
    _, soft = fit(photo, mask.astype(np.float32), 32)
    grey = Image.fromarray(mask.astype(np.uint8) * 255).resize((32, 32), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(soft, np.asarray(grey, dtype=np.float32) / 255)
    assert ((soft > 0) & (soft < 1)).any()


def test_fit_matches_the_published_preprocessing(request):
    vectors = np.load(request.path.parent / "data" / "preprocess.npz")
    soft = vectors["mask_resized"].squeeze()
    mask = vectors["mask"].astype(np.float32) / vectors["mask"].max()
    _, ours = fit(vectors["image"], mask, len(soft))
    np.testing.assert_allclose(ours, soft, atol=1e-6)


@given(seed=st.integers(0, 10**6), height=st.integers(16, 90), width=st.integers(16, 90))
def test_crops_are_cut_not_changed(seed, height, width):
    photo, mask = scene(height, width)
    for rng in (np.random.default_rng(seed), None):
        cut, marked = fit(photo, mask, 32, "crop", rng)
        assert cut.shape == (32, 32, 3)
        np.testing.assert_array_equal(cut[..., 0] > 0, marked)
    if mask.any():
        assert fit(photo, mask, 32, "crop")[1].any() or min(height, width) > 64


def test_half_of_the_crops_hold_something_forged():
    mask = np.zeros((600, 600), dtype=bool)
    mask[500:510, 20:30] = True
    photo = np.zeros((600, 600, 3), dtype=np.uint8)
    rng = np.random.default_rng(0)
    hits = [fit(photo, mask, 64, "crop", rng)[1].any() for _ in range(300)]
    assert 0.45 < np.mean(hits) < 0.62


@pytest.mark.parametrize("size", [16, 64])
def test_crops_of_small_pictures_are_reflected(size):
    photo = np.arange(17 * 16, dtype=np.uint8).reshape(17, 16)[..., None].repeat(3, 2)
    cut, _ = fit(photo, photo[..., 0] > 300, size, "crop")
    assert cut.shape == (size, size, 3)
    if size == 64:
        np.testing.assert_array_equal(cut[:17, :16], photo)
        np.testing.assert_array_equal(cut[:17, 16:32], photo[:, ::-1])
