"""The largest connected region of a mask, and its box."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


class Box(NamedTuple):
    """A box of pixels; its last column and row are part of it.

    Attributes:
        left: first column.
        top: first row.
        right: last column.
        bottom: last row.
    """

    left: int
    top: int
    right: int
    bottom: int


def connected_regions(mask: Tensor, *, corners: bool = True) -> Tensor:
    """Return a number for each pixel of a mask, the same for pixels that are connected.

    Numbers spread to neighbours, and each is replaced by what its own first pixel has heard of, so
    that long regions are done in few rounds.

    Args:
        mask: bool, (h, w).
        corners: pixels that touch at a corner are connected too.

    Returns:
        int64, (h, w), 0 outside the mask, else >= 1.

    Raises:
        ValueError: the mask is not bool (h, w).
    """
    _check(mask)
    labels = torch.arange(1, mask.numel() + 1, device=mask.device).view(mask.shape) * mask
    while True:
        spread = _greatest(labels, corners) * mask
        heard = torch.cat([spread.new_zeros(1), spread.flatten()])
        heard = heard.scatter_reduce(0, labels.flatten(), spread.flatten(), "amax")
        heard[0] = 0
        reached = heard[heard[spread]]
        if torch.equal(reached, labels):
            return labels
        labels = reached


def _greatest(labels: Tensor, corners: bool) -> Tensor:
    """Return the greatest label among each pixel and its neighbours."""
    exact = labels.double()[None, None]  # max pooling takes no integers
    if corners:
        return F.max_pool2d(exact, 3, stride=1, padding=1)[0, 0].long()
    across = F.max_pool2d(exact, (1, 3), stride=1, padding=(0, 1))
    down = F.max_pool2d(exact, (3, 1), stride=1, padding=(1, 0))
    return torch.maximum(across, down)[0, 0].long()


def largest_region(mask: Tensor, *, grow: int = 0, fill: bool = False) -> Tensor:
    """Return the connected region of most pixels, bool, (h, w).

    The reference's form: the mask resized to 256 x 256, ``grow=2, fill=True``.

    Args:
        mask: bool, (h, w); an empty one stays empty.
        grow: pixels that the mask grows by in all directions before, >= 0.
        fill: make the region's holes part of it.

    Raises:
        ValueError: the mask is not bool (h, w), or grow < 0.
    """
    _check(mask)
    if grow < 0:
        raise ValueError(f"grow must be >= 0, got {grow}")
    if grow:
        mask = F.max_pool2d(mask.float()[None, None], 2 * grow + 1, 1, grow)[0, 0] > 0
    labels = connected_regions(mask)
    counts = labels.flatten().bincount(minlength=2)
    counts[0] = 0
    region = mask & (labels == counts.argmax())
    return fill_holes(region) if fill else region


def fill_holes(mask: Tensor) -> Tensor:
    """Return a mask with the places that it surrounds, bool, (h, w)."""
    outside = F.pad(~mask, (1, 1, 1, 1), value=True)
    labels = connected_regions(outside, corners=False)
    return (labels != labels[0, 0])[1:-1, 1:-1]


def bounding_box(mask: Tensor) -> Box | None:
    """Return the smallest box around a mask, bool (h, w); None if it is empty.

    Raises:
        ValueError: the mask is not bool (h, w).
    """
    _check(mask)
    rows, columns = mask.any(1).nonzero().flatten(), mask.any(0).nonzero().flatten()
    if not len(rows):
        return None
    return Box(int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1]))


def _check(mask: Tensor) -> None:
    if mask.ndim != 2 or mask.dtype != torch.bool:
        raise ValueError(f"a mask must be bool (h, w), got {mask.dtype} {tuple(mask.shape)}")
