"""Features of lips that the official code keeps beside its videos, as ``NAME.npy``."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
from papercommons.errors import DataError, reason

log = logging.getLogger("papercommons")

WIDTH = 512
MAX_BYTES = 1 << 28


def read_lip_features(video: str | Path, frames: int) -> np.ndarray | None:
    """Return the features beside a video, cut to its frames; None if there are none.

    Args:
        video: the clip.
        frames: of the clip; another number of rows is warned about.

    Returns:
        float32, shape (T, 512), T <= frames.

    Raises:
        DataError: it is no array of numbers, too large, of another width, or not finite.
    """
    path = Path(video).with_suffix(".npy")
    if not path.is_file():
        return None
    if path.stat().st_size > MAX_BYTES:
        raise DataError(f"{path}: larger than {MAX_BYTES >> 20} MiB; expected float (T, {WIDTH})")
    try:
        values = np.lib.format.open_memmap(path, mode="r")
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not readable as an array ({reason(error)}); remove it") from None
    if values.ndim != 2 or values.shape[1] != WIDTH or values.dtype.kind != "f":
        raise DataError(
            f"{path}: expected float (T, {WIDTH}), got {values.dtype} {values.shape}; remove it"
        )
    if not np.isfinite(values).all():
        raise DataError(f"{path}: holds numbers that are not finite; make it again")
    if len(values) != frames:
        log.warning(
            "%s: %d rows of lip features for %d frames; cut to what both have",
            path,
            len(values),
            frames,
        )
    return values[:frames].astype(np.float32)
