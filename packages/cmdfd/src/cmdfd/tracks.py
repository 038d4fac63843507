"""Which face of a clip is looked at, and the box about it in every frame; needs no torch."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from papercommons.errors import DataError
from papercommons.faces.boxes import square_box
from papercommons.faces.detection import Detector, open_detector
from papercommons.faces.tracks import Track, track_faces

DetectorName = Literal["lbp", "mtcnn", "none"]
DETECTORS = get_args(DetectorName)

SCALE = 1.3  # side of the crop by the longer side of the box
EVERY = 8  # frames between two looks
_LASTING = 0.25  # share of the looks that makes a face somebody, not a chance find
_STILL = 0.1  # of a box's side: below, a head counts as still


class ClipFace(NamedTuple):
    """A face through a clip.

    Attributes:
        boxes: squares to cut, float64, shape (T, 4).
        found: faces that were followed through a good part of the clip, >= 1.
        share: of the looks in which this one was found.
        still: whether one box serves the whole clip.
    """

    boxes: np.ndarray
    found: int
    share: float
    still: bool


def follow_face(
    frames: Iterable[np.ndarray],
    detector: str,
    path: str | Path,
    *,
    face: int | Literal["largest"] = "largest",
    every: int = EVERY,
) -> ClipFace | None:
    """Return one face of a clip, None if there is none.

    Args:
        frames: uint8, (H, W, 3), taken one by one.
        detector: ``lbp`` or ``mtcnn``.
        path: of the clip, for messages.
        face: number by size, 1 is the largest.
        every: frames between two looks.

    Raises:
        ValueError: face or every is below 1, or there is no such detector.
        DataError: fewer faces than asked for, or what the detector needs is not installed.
    """
    number = 1 if face == "largest" else face
    if number < 1:
        raise ValueError(f"--face must be largest or a number >= 1, got {face}")
    tracks, count = track_faces(frames, _detector(detector), every=every)
    if not tracks:
        return None
    lasting = [track for track in tracks if track.share >= _LASTING] or tracks[:1]
    if number > len(lasting):
        raise DataError(f"{path}: --face {number}, but {len(lasting)} faces were found")
    track = lasting[number - 1]
    boxes, still = _steady(track, count)
    return ClipFace(square_box(boxes, SCALE), len(lasting), track.share, still)


def whole_frame(shape: tuple[int, ...], count: int) -> np.ndarray:
    """Return boxes about whole frames, float64, shape (count, 4).

    Args:
        shape: of a frame, height and width first.
        count: frames.
    """
    return np.tile(np.array([0.0, 0.0, shape[1], shape[0]]), (count, 1))


def squash(image: np.ndarray, size: int) -> np.ndarray:
    """Return a picture pressed into a square, smoothed where it shrinks.

    Args:
        image: uint8, shape (H, W, 3) or (H, W).
        size: side in pixels.
    """
    from PIL import Image

    if image.shape[:2] == (size, size):
        return image
    small: Any = Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(small)


def _steady(track: Track, count: int) -> tuple[np.ndarray, bool]:
    """Return the median box where the head is nearly still, else one that follows it smoothly."""
    middle = np.median(track.boxes, axis=0)
    moved = np.abs(track.boxes - middle).max()
    still = bool(moved <= _STILL * (middle[2:] - middle[:2]).max())
    return (np.tile(middle, (count, 1)) if still else track.boxes_at(count)), still


@lru_cache(maxsize=4)
def _detector(name: str) -> Detector:
    return open_detector(name)
