"""One-line errors for images that do not fit a network."""

from __future__ import annotations

from collections.abc import Sequence

from papercommons.errors import DataError
from torch import Tensor


def check_images(images: Tensor, shape: Sequence[int]) -> None:
    """Raise ValueError unless the images are (N, *shape), with shape = (C, H, W).

    Args:
        images: shape (N, C, H, W).
        shape: C, H, W.
    """
    if images.shape[1:] != tuple(shape):
        raise ValueError(
            f"images must be (N, C, H, W) = (N, {', '.join(map(str, shape))}), "
            f"got {tuple(images.shape)}"
        )


def check_size(expected: int, found: Sequence[int], source: str) -> None:
    """Raise DataError if the images of `source` are not of the side a network was made for.

    Args:
        expected: side in pixels.
        found: height and width.
        source: folder or file.
    """
    if tuple(found) != (expected, expected):
        raise DataError(
            f"{source}: images are {found[0]} x {found[1]}, the network takes {expected} x "
            f"{expected}; pass --resize {expected}"
        )
