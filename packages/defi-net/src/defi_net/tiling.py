"""Maps of photographs of any size: in overlapping tiles, or through a square of fixed size.

Tiles keep the traces that resizing removes. Bands of tiles are read, computed, blended and written
one after the other, so that what is held besides the photograph and the map grows with the
photograph's width alone.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from papercommons.cli import track
from torch import Tensor
from torch.nn import functional as F

Maps = Callable[[Tensor], Tensor]
"""From images in [0, 1], float32 (B, 3, h, w), to C maps in [0, 1] or of logits, (B, C, h, w)."""


class Photo(Protocol):
    """What is read piece by piece: an array, a memory map, or anything that slices like one."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Height, width and 3."""
        ...

    def __getitem__(self, place: slice, /) -> Any:
        """Return rows, uint8, shape (h, W, 3)."""
        ...


@torch.inference_mode()
def predict_tiled(
    maps: Maps,
    photo: Photo,
    *,
    tile: int = 352,
    overlap: int = 64,
    margin: int | None = None,
    multiple: int = 8,
    batch_size: int = 4,
    out: np.ndarray | None = None,
    dtype: Any = np.float32,
    device: torch.device | str = "cpu",
    label: str | None = None,
) -> np.ndarray:
    """Return the maps of a photograph, tile by tile.

    Away from the photograph's border the outer `margin` pixels of a tile are thrown away; between
    the margins of two tiles there is a smooth transition. What a network of a field of view of
    ``2 margin + 1`` pixels or less finds in tiles is what it finds in the whole.

    Args:
        maps: the network; see `Maps`, in [0, 1].
        photo: uint8, shape (H, W, 3).
        tile: side of a tile, pixels, divisible by `multiple`. A photograph with a shorter side gets
            tiles of that side, continued by reflection to a multiple.
        overlap: least overlap of neighbours, >= 0 and at most ``tile - multiple``.
        margin: see above, at most half of `overlap`; None is a quarter of it.
        multiple: what the sides of tiles, and their places, are divisible by: the stride of the
            network's coarsest map.
        batch_size: tiles computed at once.
        out: array or memory map to write into, shape (C, H, W), float or uint8; None makes one.
        dtype: of the array that is made: float, or uint8 for 255ths.
        device: where `maps` computes.
        label: words beside a progress bar; None shows none.

    Returns:
        shape (C, H, W).

    Raises:
        ValueError: shapes or numbers are not as above.
    """
    height, width, _ = _shape(photo)
    _check(tile, overlap, margin, multiple, batch_size)
    margin = overlap // 4 if margin is None else margin
    rows, columns = (_axis(size, tile, overlap, margin, multiple) for size in (height, width))
    across = torch.from_numpy(columns.weights)
    held: Tensor | None = None  # the rows that the next band adds to, (C, tile, W)
    numbers: Sequence[int] = range(len(rows.starts))
    for number in track(numbers, label) if label else numbers:
        top = rows.starts[number]
        pixels = _padded(photo[top : min(top + rows.tile, height)], rows.tile, columns.padded)
        band = _band(maps, pixels, columns, across, batch_size, device)
        band *= torch.from_numpy(rows.weights[number])[:, None]
        if held is not None:
            band[:, : held.shape[1]] += held
        if out is None:
            out = np.empty((len(band), height, width), dtype)
        elif out.shape != (len(band), height, width):
            raise ValueError(f"out must be {(len(band), height, width)}, got {out.shape}")
        last = number + 1 == len(rows.starts)
        done = height - top if last else rows.starts[number + 1] - top
        out[:, top : top + done] = _cells(band[:, :done, :width], out.dtype)
        held = band[:, done:]
    assert out is not None
    return out


@torch.inference_mode()
def predict_resized(
    logits: Maps, photo: np.ndarray, *, size: int = 352, device: torch.device | str = "cpu"
) -> np.ndarray:
    """Return the maps of a photograph through a square, as DeFI-Net's published evaluation does.

    The photograph bilinear with antialiasing to the square, the logits bilinear back, sigmoid.

    Args:
        logits: the network; see `Maps`.
        photo: uint8, shape (H, W, 3).
        size: side of the square, pixels. Paper: 352.
        device: where `logits` computes.

    Returns:
        float32 in [0, 1], shape (C, H, W).

    Raises:
        ValueError: the photograph is of another shape, or size < 16.
    """
    from PIL import Image

    height, width, _ = _shape(photo)
    if size < 16:
        raise ValueError(f"size must be >= 16, got {size}")
    square = Image.fromarray(np.asarray(photo)).resize((size, size), Image.Resampling.BILINEAR)
    found = logits(_images(np.array(square)[None], device)).float()
    wide = F.interpolate(found, (height, width), mode="bilinear", align_corners=False)
    result: np.ndarray = wide[0].sigmoid_().cpu().numpy()
    return result


class _Axis(NamedTuple):
    """Where tiles lie along one side, and what each counts.

    Attributes:
        starts: first pixel of each.
        tile: their length.
        padded: length of the side, continued to a multiple.
        weights: of the pixels of each, float32, shape (tiles, tile); at every pixel they sum to 1.
    """

    starts: list[int]
    tile: int
    padded: int
    weights: np.ndarray


def _axis(size: int, tile: int, overlap: int, margin: int, multiple: int) -> _Axis:
    padded = -(-size // multiple) * multiple
    tile = min(tile, padded)
    stride = (tile - overlap) // multiple * multiple
    count = 1 if tile == padded else 1 + math.ceil((padded - tile) / stride)
    starts = [
        place * (padded - tile) // max(1, count - 1) // multiple * multiple
        for place in range(count)
    ]
    middles = [(a + tile + b) / 2 for a, b in itertools.pairwise(starts)]
    cuts = np.array([-math.inf, *middles, math.inf])[:, None]
    places = np.array(starts)[:, None] + np.arange(tile) + 0.5
    ramp = max(1e-6, overlap - 2 * margin)
    weights = _smooth_step((places - cuts[:-1]) / ramp) - _smooth_step((places - cuts[1:]) / ramp)
    return _Axis(starts, tile, padded, weights.astype(np.float32))


def _smooth_step(x: np.ndarray) -> np.ndarray:
    """Return 0 below -1/2, 1 above 1/2, and a smooth step between."""
    t = np.clip(x + 0.5, 0, 1)
    return t * t * (3 - 2 * t)


def _band(
    maps: Maps,
    pixels: np.ndarray,
    columns: _Axis,
    across: Tensor,
    batch_size: int,
    device: torch.device | str,
) -> Tensor:
    """Return the maps of one band of tiles, float32 on the CPU, shape (C, tile, padded width)."""
    band: Tensor | None = None
    for first in range(0, len(columns.starts), batch_size):
        starts = columns.starts[first : first + batch_size]
        tiles = np.stack([pixels[:, start : start + columns.tile] for start in starts])
        found = maps(_images(tiles, device)).float().cpu()
        if found.ndim != 4 or len(found) != len(tiles) or found.shape[2:] != tiles.shape[1:3]:
            raise ValueError(
                f"the network must give (B, C, h, w) for images of {tuple(tiles.shape[:3])}, "
                f"gave {tuple(found.shape)}"
            )
        if band is None:
            band = torch.zeros(found.shape[1], *pixels.shape[:2])
        for start, one, weight in zip(starts, found, across[first:], strict=False):
            band[:, :, start : start + columns.tile] += one * weight
    assert band is not None
    return band


def _images(pixels: np.ndarray, device: torch.device | str) -> Tensor:
    """Return uint8 (B, h, w, 3) as float32 in [0, 1], (B, 3, h, w)."""
    images = torch.from_numpy(np.ascontiguousarray(pixels)).to(device)
    return images.permute(0, 3, 1, 2).contiguous().float() / 255


def _padded(pixels: Any, height: int, width: int) -> np.ndarray:
    """Return rows as an array, continued to the right and below by reflection."""
    pixels = np.asarray(pixels)
    more = (height - pixels.shape[0], width - pixels.shape[1])
    if any(more):
        pixels = np.pad(pixels, ((0, more[0]), (0, more[1]), (0, 0)), mode="reflect")
    return pixels


def _cells(values: Tensor, dtype: np.dtype) -> np.ndarray:
    """Return probabilities as an array writes them: float, or 255ths."""
    cells: np.ndarray = values.numpy()
    return np.rint(255 * cells.clip(0, 1)).astype(np.uint8) if dtype == np.uint8 else cells


def _shape(photo: Photo) -> tuple[int, ...]:
    shape = tuple(photo.shape)
    if len(shape) != 3 or shape[2] != 3 or min(shape) < 1:
        raise ValueError(f"photo must be (H, W, 3), got {shape}")
    return shape


def _check(tile: int, overlap: int, margin: int | None, multiple: int, batch_size: int) -> None:
    if multiple < 1 or batch_size < 1:
        raise ValueError(f"multiple and batch_size must be >= 1, got {multiple}, {batch_size}")
    if tile < max(16, multiple) or tile % multiple:
        lower = max(-(-16 // multiple) * multiple, tile // multiple * multiple)
        raise ValueError(f"tile must be >= 16 and divisible by {multiple}, got {tile}; try {lower}")
    if not 0 <= overlap <= tile - multiple:
        raise ValueError(f"overlap must be 0 to {tile - multiple} for tile {tile}, got {overlap}")
    if margin is not None and not 0 <= 2 * margin <= overlap:
        raise ValueError(f"margin must be 0 to {overlap // 2}, half of overlap, got {margin}")
