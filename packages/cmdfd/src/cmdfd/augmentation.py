"""One change to all frames of a clip: none, a flip, a crop or a rotation (specification 3.6)."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

Change = Literal["none", "flip", "crop", "rotate"]

CHANGES: tuple[Change, ...] = ("none", "flip", "crop", "rotate")
LEAST_CROP = 0.7  # of the side
MOST_TURN = 15.0  # degrees


def augment(frames: Tensor, rng: np.random.Generator) -> Tensor:
    """Return a clip with one change by chance, each kind as likely.

    Args:
        frames: grey, uint8, shape (T, H, W).
        rng: makes the choices.

    Returns:
        uint8, shape (T, H, W).
    """
    change = CHANGES[rng.integers(len(CHANGES))]
    if change == "none":
        return frames
    if change == "flip":
        return frames.flip(-1)
    if change == "rotate":
        return rotate(frames, rng.uniform(-MOST_TURN, MOST_TURN))
    share = rng.uniform(LEAST_CROP, 1)
    x, y = rng.uniform(0, 1 - share, 2)
    return crop(frames, x, y, share)


def crop(frames: Tensor, x: float, y: float, share: float) -> Tensor:
    """Return a part of the pictures at their full size, bilinear.

    Args:
        frames: uint8, shape (T, H, W).
        x: left edge as share of the width.
        y: upper edge as share of the height.
        share: of both sides, in (0, 1 - max(x, y)].

    Returns:
        uint8, shape (T, H, W).
    """
    middle = 2 * x + share - 1, 2 * y + share - 1
    return _seen(frames, [[share, 0, middle[0]], [0, share, middle[1]]], "border")


def rotate(frames: Tensor, degrees: float) -> Tensor:
    """Return the pictures turned about their middle, bilinear; what comes in is black.

    Args:
        frames: uint8, shape (T, H, W).
        degrees: counterclockwise.

    Returns:
        uint8, shape (T, H, W).
    """
    turn, ratio = math.radians(degrees), frames.shape[2] / frames.shape[1]
    cos, sin = math.cos(turn), math.sin(turn)
    return _seen(frames, [[cos, -sin / ratio, 0], [sin * ratio, cos, 0]], "zeros")


def _seen(frames: Tensor, matrix: list[list[float]], beyond: str) -> Tensor:
    """Return all frames under one affine map, in one go: time is the channel."""
    size = [1, 1, *frames.shape[1:]]
    grid = F.affine_grid(torch.tensor([matrix], dtype=torch.float), size, align_corners=False)
    grid = grid.to(frames.device)
    seen = F.grid_sample(frames[None].float(), grid, padding_mode=beyond, align_corners=False)
    return seen[0].round().clamp(0, 255).to(torch.uint8)
