"""One-line errors for what a caller hands to the joint-embedding losses and objectives."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor


def check_same_shape(a: Tensor, b: Tensor, *, ndim: int = 2) -> None:
    """Raise ValueError unless both tensors have the same shape, of `ndim` dimensions.

    Args:
        a: any shape.
        b: likewise.
        ndim: dimensions that both must have.
    """
    if a.shape != b.shape or a.ndim != ndim:
        raise ValueError(
            f"both tensors must have the same shape of {ndim} dimensions, "
            f"got {tuple(a.shape)} and {tuple(b.shape)}"
        )


def check_batch(z: Tensor) -> None:
    """Raise ValueError unless z has two rows: statistics and negatives come from the batch.

    Args:
        z: one row per image, shape (N, D).
    """
    if len(z) < 2:
        raise ValueError(f"the loss compares images of a batch: it needs 2 or more, got {len(z)}")


def check_temperature(temperature: float) -> None:
    """Raise ValueError unless the temperature is positive."""
    if temperature <= 0:
        raise ValueError(f"temperature must be > 0, got {temperature}")


def check_views(views: Sequence[Tensor], count: int) -> None:
    """Raise ValueError unless there are `count` views (N, C, H, W) of the same N >= 2 images.

    Args:
        views: of the images.
        count: how many a method takes.
    """
    if len(views) != count:
        raise ValueError(f"needs {count} views of every image, got {len(views)}")
    if any(view.ndim != 4 for view in views) or len({len(view) for view in views}) != 1:
        shapes = ", ".join(str(tuple(view.shape)) for view in views)
        raise ValueError(f"views must be (N, C, H, W) with the same N, got {shapes}")
    if len(views[0]) < 2:
        raise ValueError(f"needs a batch of 2 or more images, got {len(views[0])}")
