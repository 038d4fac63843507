from __future__ import annotations

import pytest
import torch
from semforge.occlusion import gradient_map, occlusion_map

WEIGHTS = torch.randn(3, 12, 12, generator=torch.Generator().manual_seed(0))
IMAGE = torch.rand(3, 12, 12, generator=torch.Generator().manual_seed(1))


def linear(images):
    return (images * WEIGHTS).flatten(1).sum(1)


def test_occlusion_is_the_mean_fall_over_the_squares():
    found = occlusion_map(linear, IMAGE, patch=5, stride=3, batch_size=4)
    fall = (WEIGHTS * (IMAGE - IMAGE.mean((1, 2), keepdim=True))).sum(0)
    total, count = torch.zeros(12, 12), torch.zeros(12, 12)
    for top in (0, 3, 6, 7):
        for left in (0, 3, 6, 7):
            square = (slice(top, top + 5), slice(left, left + 5))
            total[square] += fall[square].sum()
            count[square] += 1
    torch.testing.assert_close(found, total / count)


def test_whole_and_single_pixels():
    fall = (WEIGHTS * (IMAGE - IMAGE.mean((1, 2), keepdim=True))).sum(0)
    whole = occlusion_map(linear, IMAGE, patch=12, stride=4)
    torch.testing.assert_close(whole, fall.sum().expand(12, 12), atol=1e-4, rtol=1e-4)
    each = occlusion_map(linear, IMAGE, patch=1, stride=1, batch_size=50)
    torch.testing.assert_close(each, fall, atol=1e-4, rtol=1e-4)


def test_gradient_is_the_strongest_channel():
    with torch.no_grad():  # as predict runs
        found = gradient_map(lambda images: linear(images) ** 2, IMAGE, smooth=1)
    expected = (2 * linear(IMAGE[None]) * WEIGHTS).abs().amax(0)
    torch.testing.assert_close(found, expected)
    smooth = gradient_map(linear, IMAGE, smooth=3)
    strongest = WEIGHTS.abs().amax(0)
    assert smooth[5, 5] == pytest.approx(float(strongest[4:7, 4:7].mean()), rel=1e-5)
    assert smooth[0, 0] == pytest.approx(float(strongest[:2, :2].mean()), rel=1e-5)
    assert smooth.min() >= 0


@pytest.mark.parametrize(("patch", "stride"), [(0, 1), (13, 1), (4, 5), (4, 0)])
def test_bad_squares(patch, stride):
    with pytest.raises(ValueError, match="patch must be in"):
        occlusion_map(linear, IMAGE, patch=patch, stride=stride)


def test_bad_smoothing():
    with pytest.raises(ValueError, match="smooth must be odd"):
        gradient_map(linear, IMAGE, smooth=2)
