from __future__ import annotations

import numpy as np
import pytest
import torch
from semforge.augmentation import colour_noise, corrupt, gaussian_blur, grey_blocks, jpeg, pixelate
from torch.nn import functional as F


@pytest.fixture(scope="module")
def image():
    waves = np.sin(np.mgrid[0:48, 0:64] / 5).sum(0)
    return (128 + 40 * waves[..., None] + [0, 10, -20]).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("kernel", [7, 9])
def test_blur_is_a_gaussian_of_a_sixth_of_its_kernel(image, kernel):
    picture = torch.from_numpy(image).permute(2, 0, 1)[:, None].double()
    places = torch.arange(kernel) - kernel // 2
    taps = torch.exp(-(places[:, None] ** 2 + places**2) / (2 * (kernel / 6) ** 2)).double()
    padded = F.pad(picture, [kernel // 2] * 4, mode="reflect")
    expected = F.conv2d(padded, (taps / taps.sum())[None, None])[:, 0].permute(1, 2, 0)
    assert np.abs(gaussian_blur(image, kernel) - expected.numpy()).max() <= 0.51


def test_noise_has_its_variance_in_ycbcr():
    flat = np.full((200, 200, 3), 128, np.uint8)
    noise = colour_noise(flat, 0.002, np.random.default_rng(0)).astype(float) - 128
    weights = np.array(
        [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]]
    )
    spread = (noise @ weights.T / 255).var((0, 1))
    np.testing.assert_allclose(spread, 0.002, rtol=0.05)


@pytest.mark.parametrize(("side", "count"), [(256, 16), (512, 32), (300, 16), (64, 1)])
def test_blocks_are_grey_squares_of_8(side, count):
    white = np.full((side, side, 3), 255, np.uint8)
    changed = grey_blocks(white, 16, np.random.default_rng(1))
    grey = (changed == 128).all(2)
    assert set(np.unique(changed)) == {128, 255}
    assert 64 * count * 0.7 < grey.sum() <= 64 * count
    assert (white == 255).all()


def test_pixels_and_jpeg(image):
    assert pixelate(image, 1).tolist() == image.tolist()
    rough = [np.abs(np.diff(pixelate(image, k).astype(int), axis=1)).mean() for k in (1, 2, 3)]
    assert rough[0] > rough[1] > rough[2]
    away = [np.abs(jpeg(image, quality).astype(int) - image).mean() for quality in (95, 70, 10)]
    assert away[0] < away[1] < away[2]


@pytest.mark.parametrize("shape", [(32, 32, 3), (40, 300, 3), (299, 299, 3)])
def test_any_kind_keeps_the_form_and_follows_from_the_seed(shape):
    image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    before = image.copy()
    seen = [corrupt(image, np.random.default_rng(seed)) for seed in range(12)]
    again = [corrupt(image, np.random.default_rng(seed)) for seed in range(12)]
    assert all(a.shape == shape and a.dtype == np.uint8 for a in seen)
    assert all(np.array_equal(a, b) for a, b in zip(seen, again, strict=True))
    assert all(not np.array_equal(a, image) for a in seen)
    assert np.array_equal(image, before)


def test_kinds_and_levels_are_all_as_likely(monkeypatch, image):
    import semforge.augmentation as module

    seen = []
    for name in ("grey_blocks", "colour_noise", "gaussian_blur", "pixelate", "jpeg"):
        monkeypatch.setattr(
            module, name, lambda _, level, *rest, name=name: seen.append((name, level))
        )
    rng = np.random.default_rng(0)
    for _ in range(3000):
        module.corrupt(image, rng)
    counts = {each: seen.count(each) for each in set(seen)}
    assert len(counts) == 11
    assert all(
        abs(count - (200 if name == "jpeg" else 300)) < 70 for (name, _), count in counts.items()
    )
