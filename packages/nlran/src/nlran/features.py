"""What heat maps are made of: the feature maps that every network here can show."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Features(NamedTuple):
    """Feature maps of one pass; None where a network has no such part.

    Attributes:
        last: before global average pooling, float, shape (B, C, d, h, w).
        stage1: output of the first stage, float, shape (B, C1, d1, h1, w1).
        mask: soft mask of the first attention module in (0, 1), shape of `trunk`.
        trunk: its trunk branch, float, shape (B, C1, d1, h1, w1).
        non_local: input of the first non-local block, float, shape (B, C2, d2, h2, w2).
    """

    last: Tensor
    stage1: Tensor | None = None
    mask: Tensor | None = None
    trunk: Tensor | None = None
    non_local: Tensor | None = None
