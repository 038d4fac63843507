"""From a noise-difference map to a mask: scale, 8 bit, blur, threshold, resize."""

from __future__ import annotations

import torch
from papercommons.errors import DataError
from torch import Tensor
from torch.nn import functional as F


def scale_map(values: Tensor, *, clamp: float = 0.0) -> Tensor:
    """Return a map stretched to [0, 1]; a constant one becomes 0.

    Args:
        values: finite float, (h, w).
        clamp: greatest value, as a multiple of the mean; 0: none.

    Returns:
        float32, (h, w).

    Raises:
        DataError: a value is not finite.
    """
    values = values.float()
    if not bool(values.isfinite().all()):
        raise DataError("a map must be finite; load the model in float32 or bfloat16")
    if clamp > 0:
        values = values.clamp_max(clamp * values.mean())
    low = values.amin()
    span = values.amax() - low
    return torch.where(span > 0, (values - low) / span, torch.zeros_like(values)).clamp(0, 1)


def to_bytes(scaled: Tensor) -> Tensor:
    """Return a map in [0, 1] as 255ths, cut off, uint8, of the same shape.

    Args:
        scaled: float in [0, 1], any shape.
    """
    return (scaled * 255).to(torch.uint8)


def blur_map(values: Tensor, sigma: float) -> Tensor:
    """Return a map under a Gaussian of 5 x 5; borders are mirrored without their last row.

    Args:
        values: any real dtype, (h, w) with h, w >= 3.
        sigma: >= 0; 0: no blur.

    Returns:
        float32, (h, w).
    """
    if sigma == 0:
        return values.float()
    taps = torch.exp(-0.5 * (torch.arange(-2.0, 3.0, device=values.device) / sigma).square())
    taps = taps / taps.sum()
    padded = F.pad(values.float()[None, None], (2, 2, 2, 2), mode="reflect")
    return F.conv2d(F.conv2d(padded, taps.view(1, 1, 5, 1)), taps.view(1, 1, 1, 5))[0, 0]


def threshold_map(values: Tensor, threshold: float, *, blur: float = 1.0) -> Tensor:
    """Return where a map in 255ths lies above a threshold, bool, (h, w).

    Args:
        values: of `to_bytes`, uint8, (h, w).
        threshold: in (0, 1); a greater one gives a subset.
        blur: sigma of the Gaussian before, see `blur_map`.

    Raises:
        ValueError: the threshold is out of range.
    """
    if not 0 < threshold < 1:
        raise ValueError(f"threshold must be in (0, 1), got {threshold}")
    return blur_map(values, blur) > 255 * threshold


def resize_mask(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """Return a mask at another size, by its nearest places, bool, (H, W).

    Args:
        mask: bool, (h, w).
        size: H, W.
    """
    resized = F.interpolate(mask.float()[None, None], size=size, mode="nearest-exact")
    return resized[0, 0] > 0.5
