"""Normalisation layers by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import nn

Norm = Literal["batch", "group"]


def norm_layer(norm: Norm) -> Callable[[int], nn.Module]:
    """Return what makes a normalisation layer for a number of channels.

    Args:
        norm: ``batch``, or ``group`` (at most 8 groups, of 4 channels or more) for batches of one
            or two scans.

    Raises:
        ValueError: another name.
    """
    if norm == "batch":
        return nn.BatchNorm3d
    if norm != "group":
        raise ValueError(f"norm must be batch or group, got {norm}")
    return lambda channels: nn.GroupNorm(
        next(n for n in (8, 4, 2, 1) if n == 1 or (channels % n == 0 and channels >= 4 * n)),
        channels,
    )
