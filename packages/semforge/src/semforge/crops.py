"""Faces cut out of pictures in the way a network was trained with; needs no torch.

Three ways: ``none`` takes the whole picture, which is a crop already, pressed into a square as the
paper's code does; ``detect`` finds the faces; ``boxes`` takes them from a CSV file. Found and given
boxes are widened by 1.3 to squares.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from papercommons.data.images import read_image
from papercommons.errors import DataError, one_line
from papercommons.faces.boxes import Face, read_boxes, square_box
from papercommons.faces.crops import crop_box
from papercommons.faces.detection import Detector, open_detector

Crop = Literal["none", "detect", "boxes"]
CROPS = get_args(Crop)
SCALE = 1.3
SHORTEST = 32  # pixels of a side

_GREY = ("1", "L", "LA", "I", "F", "I;16")


@dataclass(frozen=True, eq=False)
class FoundFace:
    """A face as the network sees it.

    Attributes:
        crop: RGB, uint8, shape (S, S, 3).
        box: the detector's or the user's, see `papercommons.faces.boxes`; None for ``none``.
        score: the detector's; 1 without one.
    """

    crop: np.ndarray
    box: np.ndarray | None = None
    score: float = 1.0


@dataclass(frozen=True)
class Cropper:
    """Cuts faces out of pictures.

    Args:
        crop: see the module.
        size: S, side of the crops in pixels, >= 32.
        detector: for ``detect``, see `papercommons.faces.detection.open_detector`.
        boxes: for ``boxes``, see `papercommons.faces.boxes.read_boxes`; paths in it are those of
            the list, or bare names of files.

    Raises:
        ValueError: another way, a size below 32, or boxes without ``boxes`` and the other way
            round.
        DataError: the boxes cannot be read, or what the detector needs is not installed.
    """

    crop: Crop = "none"
    size: int = 224
    detector: str = "lbp"
    boxes: str | None = None
    _boxes: dict[str, dict[int, list[Face]]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.crop not in CROPS:
            raise ValueError(f"crop must be {', '.join(CROPS)}, got {self.crop!r}")
        if self.size < SHORTEST:
            raise ValueError(f"size must be >= {SHORTEST}, got {self.size}")
        if (self.boxes is not None) != (self.crop == "boxes"):
            raise ValueError("a file of boxes is given if and only if crop is boxes")
        if self.crop == "detect":
            _detector(self.detector)
        object.__setattr__(self, "_boxes", read_boxes(self.boxes) if self.boxes else {})

    @property
    def settings(self) -> dict[str, Any]:
        """What a network's configuration keeps of it, plain types."""
        return {
            "crop": self.crop,
            "size": self.size,
            "detector": self.detector if self.crop == "detect" else None,
            "scale": None if self.crop == "none" else SCALE,
        }

    def faces(self, image: np.ndarray, name: str, frame: int = 0) -> list[FoundFace]:
        """Return the faces, the largest first; none if there is none.

        Args:
            image: RGB, uint8, shape (H, W, 3).
            name: of the picture or video, by which boxes are listed.
            frame: number of a video's frame.

        Raises:
            DataError: a given box lies beside the picture.
        """
        if self.crop == "none":
            return [FoundFace(squash(image, self.size))]
        found = (
            _detector(self.detector)(image) if self.crop == "detect" else self._listed(name, frame)
        )
        try:
            return [
                FoundFace(
                    crop_box(image, square_box(face.box, SCALE), self.size), face.box, face.score
                )
                for face in sorted(found, key=lambda face: -face.area)
            ]
        except ValueError as error:
            raise DataError(f"{one_line(name)}: {error}; correct the boxes") from None

    def largest(self, image: np.ndarray, name: str, frame: int = 0) -> FoundFace:
        """Return the largest face.

        Args:
            image: RGB, uint8, shape (H, W, 3).
            name: of the file, for messages and for `boxes`.
            frame: number of the frame in a video.

        Raises:
            DataError: there is none.
        """
        found = self.faces(image, name, frame)
        if not found:
            what = "no box is listed for it" if self.crop == "boxes" else "no face found"
            raise DataError(f"{one_line(name)}: {what}; leave it out, or crop it yourself")
        return found[0]

    def listed_frames(self, name: str) -> list[int]:
        """Return the numbers of a video's frames that have boxes, increasing; for ``boxes``."""
        return sorted(self._of_file(name))

    def _listed(self, name: str, frame: int) -> list[Face]:
        return self._of_file(name).get(frame, [])

    def _of_file(self, name: str) -> dict[int, list[Face]]:
        return self._boxes.get(name) or self._boxes.get(Path(name).name) or {}


@lru_cache(maxsize=4)
def _detector(name: str) -> Detector:
    return open_detector(name)


def squash(image: np.ndarray, size: int) -> np.ndarray:
    """Return the picture pressed into a square, bilinear and smoothed where it shrinks.

    Args:
        image: uint8, shape (H, W, 3).
        size: side in pixels.

    Returns:
        uint8, shape (size, size, 3).
    """
    from PIL import Image

    if image.shape[:2] == (size, size):
        return image
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR))


def read_face_image(path: str | Path) -> tuple[np.ndarray, str]:
    """Return a picture, and ``grey`` or ``alpha`` if it was no RGB.

    Args:
        path: image file, see `papercommons.data.images.read_image`.

    Returns:
        RGB, uint8, shape (H, W, 3), and the note or an empty text.

    Raises:
        DataError: it cannot be read, or a side is below 32 pixels.
    """
    note = check_header(path)
    return np.asarray(read_image(path)), note


def check_header(path: str | Path) -> str:
    """Return the note of `read_face_image` from the first bytes of a file.

    Raises:
        DataError: no image, or a side is below 32 pixels.
    """
    (width, height), note = read_image(path, convert=_header)
    if min(width, height) < SHORTEST:
        raise DataError(
            f"{path}: is {width}x{height}; both sides must be >= {SHORTEST} pixels; remove it or "
            "pass --skip-bad"
        )
    return str(note)


def _header(image: Any) -> tuple[tuple[int, int], str]:
    if "A" in image.getbands() or "transparency" in image.info:
        return image.size, "alpha"
    return image.size, "grey" if image.mode in _GREY else ""
