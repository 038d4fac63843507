"""Random changes of training volumes that leave the diagnosis as it is."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

ANGLE = math.radians(10.0)
SCALE = 0.1
SHIFT_HU = 20.0
GAIN = 0.02
NOISE = 0.01


def augment(
    volumes: Tensor,
    seeds: Sequence[int],
    *,
    flip: bool = True,
    window: float = 1400.0,
    slices: Sequence[int] | None = None,
) -> Tensor:
    """Return volumes turned in the plane, scaled, mirrored, and changed in brightness, with noise.

    Per volume: a left-right flip with probability 1/2, a rotation of up to 10 degrees about the
    long axis of the body, an in-plane scale of 0.9 to 1.1, a gain of up to 2 %, a shift of up to
    20 HU, and Gaussian noise of a sigma up to 1 % of the window. What comes in from outside is 0.

    Args:
        volumes: values in [0, 1], float32, shape (B, 1, D, H, W).
        seeds: one per volume; its changes depend on it alone.
        flip: whether volumes may be mirrored left-right; not where the side is part of the label.
        window: width of the window in HU.
        slices: slice count of each volume where the rest is padding, which stays 0.

    Returns:
        Values in [0, 1], float32, shape (B, 1, D, H, W).

    Raises:
        ValueError: not as many seeds or slice counts as volumes.
    """
    counts = [volumes.shape[2]] * len(volumes) if slices is None else slices
    if not len(volumes) == len(seeds) == len(counts):
        raise ValueError(f"{len(volumes)} volumes need as many seeds and slice counts")
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    draws = torch.stack([torch.rand(6, generator=g) for g in generators])
    signed = 2 * draws[:, :5] - 1
    mirror = torch.where(signed[:, 0] < 0, -1.0, 1.0) if flip else torch.ones(len(draws))
    grid = _grid(ANGLE * signed[:, 1], 1 + SCALE * signed[:, 2], mirror, volumes)
    moved = F.grid_sample(volumes[:, 0], grid, align_corners=False)[:, None]
    result = torch.zeros_like(volumes)
    for place, (count, generator) in enumerate(zip(counts, generators, strict=True)):
        noise = torch.randn(moved[place, :, :count].shape, generator=generator)
        gain, shift = 1 + GAIN * signed[place, 3], SHIFT_HU / window * signed[place, 4]
        changed = moved[place, :, :count] * gain + shift + NOISE * draws[place, 5] * noise
        result[place, :, :count] = changed.clamp_(0, 1)
    return result


def _grid(angle: Tensor, scale: Tensor, mirror: Tensor, volumes: Tensor) -> Tensor:
    """Return where each pixel comes from, shape (B, H, W, 2): rotation in units of pixels."""
    height, width = volumes.shape[-2:]
    x = (torch.arange(width) * 2 + 1 - width) / 2
    y = ((torch.arange(height) * 2 + 1 - height) / 2)[:, None]
    cos, sin = (f[:, None, None] / scale[:, None, None] for f in (angle.cos(), angle.sin()))
    across = mirror[:, None, None] * (cos * x - sin * y) * (2 / width)
    return torch.stack([across, (sin * x + cos * y) * (2 / height)], dim=-1)
