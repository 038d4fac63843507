"""Pictures of samples: rows of them in the house's look, and plain grids."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from papercommons.files import atomic_path
from papercommons.report import figure_png
from torch import Tensor


def samples_png(rows: Mapping[str, Tensor], *, size: float = 0.8) -> bytes:
    """Return rows of samples, each with its label: the same latents under several schedules.

    Args:
        rows: label -> images in [-1, 1], cut to it, shape (B, 1 or 3, H, W); all of one shape.
            The label may be empty.
        size: of a picture, inches.

    Raises:
        ValueError: no rows, or images of another shape or of several.
    """
    shapes = {tuple(images.shape) for images in rows.values()}
    shape = next(iter(shapes), ())
    if len(shapes) != 1 or len(shape) != 4 or shape[1] not in (1, 3) or not all(shape):
        raise ValueError(
            f"rows must be images (B, 1 or 3, H, W) of one shape, got {shapes or '{}'}"
        )
    count, _, height, width = shape

    def draw(figure: Any) -> None:
        places = figure.subplots(len(rows), 1, squeeze=False)[:, 0]
        for axes, (label, images) in zip(places, rows.items(), strict=True):
            axes.imshow(_tile(images), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            axes.set_ylabel(label, rotation=0, ha="right", va="center")
            axes.set(xticks=[], yticks=[])
            axes.grid(visible=False)
            axes.spines[:].set_visible(False)

    across = size * count * max(1.0, width / height)
    longest = max(map(len, rows))
    return figure_png(draw, width=across + 0.09 * longest + 0.2, height=(size + 0.1) * len(rows))


def to_uint8(images: Tensor) -> Tensor:
    """Return images in [-1, 1] as bytes, x * 127.5 + 128 cut to 0..255 (section 4), on the CPU.

    Args:
        images: float, any shape.
    """
    return (images.detach().float() * 127.5 + 128).clip(0, 255).to(torch.uint8).cpu()


def write_grid(images: Tensor, path: str | Path, *, columns: int = 8, least_width: int = 0) -> None:
    """Write images side by side as a PNG, whole or not at all.

    Args:
        images: [-1, 1] (beyond is cut off), float, shape (B, 1 or 3, H, W).
        path: of the file; its folder is made.
        columns: images in a row.
        least_width: small pictures are enlarged by a whole number towards this many pixels.

    Raises:
        ValueError: another shape.
    """
    from torchvision.io import write_png
    from torchvision.utils import make_grid

    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ValueError(f"images must be (B, 1 or 3, H, W), got {tuple(images.shape)}")
    pictures = to_uint8(images)
    times = max(1, least_width // (columns * images.shape[3]))
    pictures = pictures.repeat_interleave(times, 2).repeat_interleave(times, 3)
    grid = make_grid(pictures, nrow=columns, padding=1, pad_value=128)
    with atomic_path(path) as temporary:
        write_png(grid, str(temporary))


def _tile(images: Tensor) -> np.ndarray:
    """Return (B, C, H, W) side by side with white seams, uint8 (H, B (W + 1) - 1[, 3])."""
    pictures = to_uint8(images).permute(0, 2, 3, 1).numpy()
    seam = np.full((pictures.shape[1], 1, pictures.shape[3]), 255, np.uint8)
    parts = [part for picture in pictures for part in (seam, picture)][1:]
    tile = np.concatenate(parts, axis=1)
    return tile[..., 0] if tile.shape[2] == 1 else tile
