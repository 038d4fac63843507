"""Masks as COCO writes them: polygons, and runs as numbers or as text. Needs NumPy alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from papercommons.data.images import MAX_PIXELS
from papercommons.errors import DataError

MAX_POINTS = 1_000_000
MAX_TEXT = 10_000_000  # characters of compressed runs
_MAX_CROSSINGS = 10_000_000


def coco_mask(segmentation: Any, size: tuple[int, int]) -> np.ndarray:
    """Return the mask that a ``segmentation`` of COCO describes, bool, (H, W).

    Args:
        segmentation: list of polygons ``[x, y, x, y, ...]``, whose union is meant; or
            ``{"size": [H, W], "counts": ...}`` with run lengths as numbers or as compressed text.
        size: H, W of the image.

    Raises:
        DataError: another form, another size, or too large.
    """
    if isinstance(segmentation, dict):
        given = segmentation_size(segmentation)
        if given != tuple(size):
            raise DataError(f"runs of {_sides(given)} pixels; the image has {_sides(size)}")
        counts = segmentation.get("counts")
        runs = decode_counts(counts) if isinstance(counts, str | bytes) else _numbers(counts)
        return runs_to_mask(runs, size)
    return polygons_to_mask(segmentation, size)


def segmentation_size(segmentation: dict[str, Any]) -> tuple[int, int]:
    """Return H, W of run lengths.

    Raises:
        DataError: they do not say, or say too much.
    """
    size = segmentation.get("size")
    if not isinstance(size, list | tuple) or [type(side) for side in size] != [int, int]:
        raise DataError(f"run lengths need a size [height, width], got {str(size)[:40]}")
    height, width = size
    if min(height, width) < 1 or height * width > MAX_PIXELS:
        raise DataError(f"run lengths of {height} x {width} pixels; at most {MAX_PIXELS:,}")
    return height, width


def runs_to_mask(counts: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return the mask of run lengths, down the columns, the first outside; bool, (H, W).

    Args:
        counts: whole numbers, (R,).
        size: H, W.

    Raises:
        DataError: a negative one, or their sum is not H W.

    Example:
        >>> runs_to_mask(np.array([1, 2, 1]), (2, 2)).tolist()
        [[False, True], [True, False]]
    """
    height, width = size
    if counts.size and (counts.min() < 0 or counts.max() > height * width):
        raise DataError(f"a run length is not within 0 and the {height} x {width} pixels")
    if counts.sum() != height * width:
        raise DataError(
            f"run lengths cover {counts.sum():,} pixels; the image has {height} x {width}"
        )
    flat = np.repeat(np.arange(counts.size) % 2 == 1, counts)
    return flat.reshape(width, height).T.copy()


def decode_counts(text: str | bytes) -> np.ndarray:
    """Return the run lengths of COCO's compressed text, int64, (R,).

    Each character holds five bits, the lowest first, and whether another follows; from the fourth
    number on, what is written is the difference to the number two before.

    Args:
        text: characters from "0" to "o".

    Raises:
        DataError: other characters, or it ends within a number.

    Example:
        >>> decode_counts("12302").tolist()
        [1, 2, 3, 2, 5]
    """
    codes = text.encode("ascii", "replace") if isinstance(text, str) else text
    if len(codes) > MAX_TEXT:
        raise DataError(f"runs of {len(codes):,} characters; at most {MAX_TEXT:,} are read")
    bits = np.frombuffer(codes, np.uint8).astype(np.int64) - 48
    if not bits.size:
        return bits
    if bits.min() < 0 or bits.max() > 63:
        raise DataError("not compressed run lengths: characters other than '0' to 'o'")
    ends = np.flatnonzero(bits < 32)
    if not ends.size or ends[-1] != bits.size - 1:
        raise DataError("compressed run lengths end within a number")
    starts = np.concatenate([[0], ends[:-1] + 1]).astype(np.int64)
    lengths = ends - starts + 1
    if lengths.max() > 8:
        raise DataError("compressed run lengths hold a number beyond 40 bits")
    place = np.arange(bits.size) - np.repeat(starts, lengths)
    values = np.add.reduceat((bits & 31) << (5 * place), starts)
    negative = (bits[ends] & 16) > 0
    values = values - (negative.astype(np.int64) << (5 * lengths))
    for first in (1, 2):  # differences to two before: two interleaved sums
        values[first::2] = np.cumsum(values[first::2])
    return values


def polygons_to_mask(polygons: Any, size: tuple[int, int]) -> np.ndarray:
    """Return the pixels whose centres lie in one of some polygons, bool, (H, W).

    Inside is by the even-odd rule. COCO's own tool may differ by pixels on the edge.

    Args:
        polygons: each ``[x, y, x, y, ...]`` in pixels, three points or more; (0, 0) is the corner
            of the first pixel.
        size: H, W.

    Raises:
        DataError: another form, or too many points.
    """
    if not isinstance(polygons, list) or not all(isinstance(line, list) for line in polygons):
        raise DataError("expected a list of polygons [[x, y, x, y, ...], ...], or runs")
    if sum(len(line) for line in polygons) > 2 * MAX_POINTS:
        raise DataError(f"polygons of more than {MAX_POINTS:,} points")
    mask = np.zeros(size, bool)
    for line in polygons:
        points = _numbers(line, float).reshape(-1, 2) if len(line) % 2 == 0 else np.empty((0, 2))
        if len(points) < 3 or not np.isfinite(points).all():
            raise DataError(f"a polygon needs three points or more, got {len(line)} numbers")
        mask |= _fill(points, size)
    return mask


def _fill(points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return the inside of one polygon: every edge flips all that lies right of it in its rows."""
    height, width = size
    (x0, y0), (x1, y1) = points.T, np.roll(points, -1, axis=0).T
    first = np.ceil(np.minimum(y0, y1) - 0.5).clip(0, height).astype(np.int64)
    last = np.ceil(np.maximum(y0, y1) - 0.5).clip(0, height).astype(np.int64)
    counts = last - first
    if counts.sum() > _MAX_CROSSINGS:
        raise DataError("a polygon crosses too many rows")
    edge = np.repeat(np.arange(len(points)), counts)
    row = np.arange(len(edge)) - np.repeat(counts.cumsum() - counts, counts) + first[edge]
    along = (row + 0.5 - y0[edge]) / (y1 - y0)[edge]
    x = x0[edge] + along * (x1 - x0)[edge]
    column = np.ceil(x - 0.5).clip(0, width).astype(np.int64)
    flips = np.bincount(row * (width + 1) + column, minlength=height * (width + 1))
    return flips.reshape(height, width + 1)[:, :width].cumsum(1) % 2 == 1


def _numbers(values: Any, kind: type = int) -> np.ndarray:
    allowed = (int,) if kind is int else (int, float)
    if not isinstance(values, list) or not all(
        type(value) in allowed and abs(value) < 1 << 40 for value in values
    ):
        raise DataError(f"expected a list of numbers, got {str(values)[:40]}")
    return np.array(values, np.int64 if kind is int else np.float64)


def _sides(size: Sequence[int]) -> str:
    return f"{size[0]} x {size[1]}"
