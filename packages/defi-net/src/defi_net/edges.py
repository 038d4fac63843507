"""Edge labels: which pixels the edge branch is to find, made from the mask (section 3.6)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def edge_label(masks: Tensor, *, kernel: int = 5) -> Tensor:
    """Return the inner rim of each region: the mask without its erosion by a square.

    With the paper's kernel of 5 the rim is 2 pixels wide. The border of the image does not erode:
    a full mask has no edge, and a region that the frame cuts has none along the frame.

    Args:
        masks: bool, or float in [0, 1] (binarised at >= 0.5), shape (..., H, W).
        kernel: side of the square, odd, >= 3. Paper: 5.

    Returns:
        float32 in {0, 1}, the shape of `masks`.

    Raises:
        ValueError: masks of integers (0/255 or 0/1?), or a bad kernel.

    Example:
        >>> edge_label(torch.ones(7, 7)).sum()
        tensor(0.)
    """
    inside = _binary(masks, kernel)
    return inside * _dilate(_dilate(1 - inside, (kernel, 1)), (1, kernel))


def edge_band(masks: Tensor, *, kernel: int = 7) -> Tensor:
    """Return the band on both sides of each region's edge: dilation without erosion by a cross.

    The label other localization networks use (IMDL-BenCo's edge masks); an alternative to
    `edge_label`.

    Args:
        masks: see `edge_label`.
        kernel: length of the cross's bars, odd, >= 3.

    Returns:
        float32 in {0, 1}, the shape of `masks`.

    Raises:
        ValueError: see `edge_label`.
    """
    inside = _binary(masks, kernel)
    wide, narrow = _dilate_cross(inside, kernel), 1 - _dilate_cross(1 - inside, kernel)
    return wide - narrow


def _binary(masks: Tensor, kernel: int) -> Tensor:
    if masks.ndim < 2 or not (masks.is_floating_point() or masks.dtype == torch.bool):
        raise ValueError(
            f"masks must be bool or float in [0, 1], shape (..., H, W), got {masks.dtype} "
            f"{tuple(masks.shape)}; divide 8-bit masks by 255"
        )
    if kernel < 3 or kernel % 2 == 0:
        raise ValueError(f"kernel must be odd and >= 3, got {kernel}")
    return (masks >= 0.5).float() if masks.is_floating_point() else masks.float()


def _dilate_cross(inside: Tensor, kernel: int) -> Tensor:
    return torch.maximum(_dilate(inside, (kernel, 1)), _dilate(inside, (1, kernel)))


def _dilate(inside: Tensor, window: tuple[int, int]) -> Tensor:
    flat = inside.reshape(-1, 1, *inside.shape[-2:])
    padding = (window[0] // 2, window[1] // 2)
    return F.max_pool2d(flat, window, stride=1, padding=padding).view_as(inside)
