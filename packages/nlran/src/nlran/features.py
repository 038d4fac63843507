"""What heat maps are made of: the feature maps that networks here show, and where they lie."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Place(NamedTuple):
    """Where the values of a feature map lie: the i-th on an axis sees input ``first + stride i``.

    Attributes:
        stride: input voxels from one value to the next, along D, H, W.
        first: input voxel in the middle of what the first value sees; 0 for layers with symmetric
            padding.
    """

    stride: tuple[float, float, float]
    first: tuple[float, float, float] = (0.0, 0.0, 0.0)


class Features(NamedTuple):
    """Feature maps of one pass; None where a network has no such part.

    Attributes:
        last: before global average pooling, float, shape (B, C, d, h, w).
        stage1: output of the first stage, float, shape (B, C1, d1, h1, w1).
        mask: soft mask of the first attention module in (0, 1), shape of `trunk`.
        trunk: its trunk branch, float, shape (B, C1, d1, h1, w1).
        non_local: input of the first non-local block, float, shape (B, C2, d2, h2, w2).
        last_place: where `last` lies.
        stage1_place: where `stage1`, `mask` and `trunk` lie.
        non_local_place: where the keys of the non-local block lie.
    """

    last: Tensor
    stage1: Tensor | None = None
    mask: Tensor | None = None
    trunk: Tensor | None = None
    non_local: Tensor | None = None
    last_place: Place = Place((1.0, 1.0, 1.0))
    stage1_place: Place = Place((1.0, 1.0, 1.0))
    non_local_place: Place = Place((1.0, 1.0, 1.0))
