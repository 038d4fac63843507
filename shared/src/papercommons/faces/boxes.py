"""Faces and squares around them. Needs NumPy alone.

A box is (left, top, right, bottom) in pixels; (0, 0) is the upper left corner of the image, so the
box around all of it is (0, 0, width, height).
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from papercommons.errors import DataError, one_line

_COLUMNS = ("path", "left", "top", "right", "bottom")


@dataclass(frozen=True, eq=False)
class Face:
    """A face in an image.

    Attributes:
        box: float64, shape (4,), see the head of this module; how much of the head it holds
            depends on the detector.
        score: larger is surer; its scale depends on the detector.
    """

    box: np.ndarray
    score: float

    @property
    def area(self) -> float:
        """Of the box, in pixels."""
        return float((self.box[2] - self.box[0]) * (self.box[3] - self.box[1]))


def square_box(box: np.ndarray, scale: float = 1.3) -> np.ndarray:
    """Return the square about a box's centre whose side is `scale` times the box's longer side.

    Args:
        box: float, shape (..., 4).
        scale: > 0.

    Returns:
        float64, shape (..., 4); it may reach beyond the image.

    Raises:
        ValueError: scale is not positive.

    Example:
        >>> square_box(np.array([0.0, 0.0, 10.0, 20.0]), 1.5)
        array([-10.,  -5.,  20.,  25.])
    """
    if not scale > 0:
        raise ValueError(f"scale must be > 0, got {scale}")
    box = np.asarray(box, np.float64)
    centre = (box[..., :2] + box[..., 2:]) / 2
    half = (box[..., 2:] - box[..., :2]).max(-1, keepdims=True) * scale / 2
    return np.concatenate([centre - half, centre + half], axis=-1)


def overlap(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return each pair's intersection over union, in [0, 1].

    Args:
        one: float, shape (N, 4).
        other: float, shape (M, 4).

    Returns:
        float64, shape (N, M).
    """
    low = np.maximum(one[:, None, :2], other[None, :, :2])
    high = np.minimum(one[:, None, 2:], other[None, :, 2:])
    shared = np.prod(np.clip(high - low, 0, None), axis=-1)
    areas = [np.prod(boxes[:, 2:] - boxes[:, :2], axis=-1) for boxes in (one, other)]
    return shared / (areas[0][:, None] + areas[1][None] - shared)


def read_boxes(path: str | Path) -> dict[str, dict[int, list[Face]]]:
    """Return the faces listed in a CSV file: by path, then by frame number.

    Args:
        path: CSV with a header and the columns path, left, top, right, bottom, and if wanted
            frame (of a video, from 0; otherwise 0) and score (otherwise 1). The path of an image
            or video is kept as written.

    Raises:
        DataError: no such file, columns missing, or a line that is not as described.
    """
    found: dict[str, dict[int, list[Face]]] = {}
    try:
        with Path(path).open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file)
            if missing := [name for name in _COLUMNS if name not in (rows.fieldnames or ())]:
                raise DataError(
                    f"{path}: no column {' and '.join(missing)}; the first line must name "
                    f"{', '.join(_COLUMNS)}"
                )
            for row in rows:
                name, frame, face = _read_row(row, f"{path}, line {rows.line_num}")
                found.setdefault(name, {}).setdefault(frame, []).append(face)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; expected a CSV file of boxes") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a readable CSV file ({one_line(str(error))})") from None
    return found


def _read_row(row: dict[str, str], where: str) -> tuple[str, int, Face]:
    try:
        box = np.array([float(row[name]) for name in _COLUMNS[1:]])
        frame, score = int(row.get("frame") or 0), float(row.get("score") or 1)
    except (TypeError, ValueError):
        raise DataError(
            f"{where}: box, frame and score must be numbers, got {list(row.values())}"
        ) from None
    if not row["path"] or frame < 0:
        raise DataError(f"{where}: needs a path, and a frame >= 0")
    if not (np.isfinite(box).all() and box[0] < box[2] and box[1] < box[3]):
        raise DataError(f"{where}: needs left < right and top < bottom, got {box.tolist()}")
    return row["path"], frame, Face(box, score)
