"""Masks of PIE-Bench: runs of pixels to be edited, row by row; needs only NumPy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from papercommons.errors import DataError

if TYPE_CHECKING:
    import numpy as np

PIE_SIZE = (512, 512)
MAX_SIDE = 16_384
MAX_RUNS = 10_000_000


def decode_mask(
    runs: Sequence[int] | str,
    size: tuple[int, int] = PIE_SIZE,
    *,
    border: bool = True,
    strict: bool = False,
) -> np.ndarray:
    """Return the mask that PIE-Bench writes as start, length, start, length, ... (its evaluation).

    Args:
        runs: numbers, or a string of them with spaces; starts count the pixels row by row.
        size: H, W of the mask.
        border: set the outermost pixels too, as the benchmark's own evaluation does.
        strict: refuse a last run beyond the image; else it is cut off at the end.

    Returns:
        bool, shape (H, W), true where the image is to be edited.

    Raises:
        DataError: an odd count, something other than numbers, a run outside the image.

    Example:
        >>> decode_mask([1, 2], (1, 4), border=False).tolist()
        [[False, True, True, False]]
    """
    import numpy as np

    height, width = size
    pixels = height * width
    starts, lengths = _as_pairs(runs)
    if starts.size and (starts.min() < 0 or lengths.min() < 0 or starts.max() >= pixels):
        raise DataError(
            f"mask: a run lies outside the {height} x {width} pixels; expected start, length"
        )
    ends = starts + np.minimum(lengths, pixels)
    if strict and starts.size and int(ends.max()) > pixels:
        raise DataError(
            f"mask: a run ends at {int(ends.max()):,}, past the {height} x {width} pixels"
        )
    steps = np.zeros(pixels + 1, dtype=np.int32)
    np.add.at(steps, starts, 1)
    np.add.at(steps, np.minimum(ends, pixels), -1)
    mask: np.ndarray = (np.cumsum(steps[:-1], out=steps[:-1]) > 0).reshape(height, width)
    if border:
        mask[[0, -1]] = True
        mask[:, [0, -1]] = True
    return mask


def encode_mask(mask: np.ndarray) -> list[int]:
    """Return the runs of a mask, so that ``decode_mask(..., border=False)`` gives it back.

    Args:
        mask: bool or number, shape (H, W); what is not 0 is to be edited.

    Example:
        >>> import numpy as np
        >>> encode_mask(np.array([[0, 1, 1], [1, 0, 1]]))
        [1, 3, 5, 1]
    """
    import numpy as np

    flat = np.concatenate(([False], np.asarray(mask).ravel() != 0, [False]))
    edges = np.flatnonzero(flat[1:] != flat[:-1])
    starts, ends = edges[::2], edges[1::2]
    return np.stack([starts, ends - starts], 1).ravel().tolist()


def read_runs(value: object) -> tuple[int, ...]:
    """Return the numbers of a record's mask: a list of integers, or text with spaces or commas.

    Args:
        value: what the record holds.

    Raises:
        DataError: another form, or an odd count.
    """
    if isinstance(value, str):
        words = value.strip().strip("[]").replace(",", " ").split()
        if not all(word.isascii() and word.isdigit() and len(word) < 10 for word in words):
            raise DataError("mask: expected numbers (start, length, ...)")
        value = [int(word) for word in words]
    if not isinstance(value, (list, tuple)) or not all(
        type(n) is int and 0 <= n < 1 << 31 for n in value
    ):
        raise DataError("mask: expected a list of numbers (start, length, ...)")
    if len(value) % 2:
        raise DataError(f"mask: {len(value)} numbers; expected pairs of start and length")
    if len(value) > MAX_RUNS:
        raise DataError(f"mask: {len(value):,} numbers; at most {MAX_RUNS:,} are read")
    return tuple(value)


def _as_pairs(runs: Sequence[int] | str) -> tuple[np.ndarray, np.ndarray]:
    import numpy as np

    plain = runs if isinstance(runs, str) else [int(n) for n in runs]
    pairs = np.array(read_runs(plain), dtype=np.int64).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]
