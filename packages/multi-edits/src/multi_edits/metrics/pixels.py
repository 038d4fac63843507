"""PSNR, MSE and SSIM of image pairs as PIE-Bench's evaluation computes them.

A mask multiplies both images, and the whole frame is compared, its zeros included; so the values
of a small region are higher than those of its pixels alone.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

_K1, _K2 = 0.01, 0.03
_SIGMA, _MARGIN = 1.5, 5
LEAST_SIDE = _MARGIN + 1
"""Of images for `ssim`."""


def mse(a: Tensor, b: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return the mean squared difference of each pair.

    Args:
        a: float, shape (B, 3, H, W), in [0, 1].
        b: likewise.
        mask: bool or float in [0, 1], shape (B, 1, H, W) or one that broadcasts: what counts.

    Returns:
        float32, shape (B,).

    Raises:
        ValueError: the shapes do not match.
    """
    _check(a, b, mask)
    difference = a.float() - b.float()
    if mask is not None:
        difference = difference * mask
    return difference.square().mean(dim=(1, 2, 3))


def psnr(a: Tensor, b: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return the peak signal-to-noise ratio of each pair in dB, for a peak of 1.

    Args:
        a: see `mse`.
        b: see `mse`.
        mask: see `mse`.

    Returns:
        float32, shape (B,); infinite for equal images.
    """
    return -10 * torch.log10(mse(a, b, mask))


def ssim(a: Tensor, b: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return the structural similarity of each pair, with a Gaussian window of 11 (sigma 1.5).

    The mean is over all pixels, images being mirrored at their edges, as torchmetrics 1.9 has it
    for a data range of 1.

    Args:
        a: float, shape (B, 3, H, W), in [0, 1], sides of at least 6.
        b: likewise.
        mask: see `mse`.

    Returns:
        float32, shape (B,), at most 1.

    Raises:
        ValueError: the shapes do not match, or a side is below 6.
    """
    _check(a, b, mask)
    if min(a.shape[2:]) < LEAST_SIDE:
        raise ValueError(f"SSIM needs sides of at least {LEAST_SIDE}, got {tuple(a.shape[2:])}")
    shape = a.shape
    a, b = ((image if mask is None else image * mask).float() for image in (a, b))
    a, b = (F.pad(image, (_MARGIN,) * 4, mode="reflect") for image in (a, b))
    moments = torch.stack([a, b, a * a, b * b, a * b])
    mean_a, mean_b, aa, bb, ab = _blur(moments.flatten(0, 2)).view(5, *shape)
    var_a, var_b, cov = aa - mean_a**2, bb - mean_b**2, ab - mean_a * mean_b
    c1, c2 = _K1**2, _K2**2
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    structure = (2 * cov + c2) / (var_a.clamp(min=0) + var_b.clamp(min=0) + c2)
    return (luminance * structure).mean(dim=(1, 2, 3))


def _blur(x: Tensor) -> Tensor:
    """Return the weighted mean around each pixel whose window lies inside; x is (N, H, W)."""
    at = torch.arange(-_MARGIN, _MARGIN + 1, device=x.device, dtype=x.dtype)
    weights = torch.exp(-0.5 * (at / _SIGMA) ** 2)
    weights = (weights / weights.sum()).expand(len(x), 1, 1, -1)
    # as channels of one image, each by itself: the form that is quick on a CPU
    rows = F.conv2d(x[None], weights, groups=len(x))
    return F.conv2d(rows, weights.mT, groups=len(x))[0]


def _check(a: Tensor, b: Tensor, mask: Tensor | None) -> None:
    if a.ndim != 4 or a.shape != b.shape:
        raise ValueError(
            f"images must be (B, 3, H, W) and alike, got {tuple(a.shape)} and {tuple(b.shape)}"
        )
    if mask is not None and not _broadcasts(mask.shape, a.shape):
        raise ValueError(f"mask must be (B, 1, H, W), got {tuple(mask.shape)} for {tuple(a.shape)}")


def _broadcasts(mask: torch.Size, image: torch.Size) -> bool:
    pairs = zip(mask, image, strict=False)
    return len(mask) == 4 and all(side in (1, wanted) for side, wanted in pairs)
