"""Pairs of image and caption, and what is known to contradict in them. Needs no torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import numpy as np
from papercommons.data.defects import Defect
from papercommons.data.images import read_image
from papercommons.errors import DataError
from PIL import Image

from d_tiil.coco_masks import coco_mask
from d_tiil.phrases import Phrase

Label = Literal["consistent", "inconsistent", "unknown"]
Edited = Literal["", "none", "caption", "image", "both"]
EDITED: tuple[Edited, ...] = get_args(Edited)


class Mask(Protocol):
    """Where pixels are true; decoded when read."""

    def read(self, size: tuple[int, int]) -> np.ndarray:
        """Return it as bool (H, W) for an image of that size, or raise DataError."""


@dataclass(frozen=True)
class MaskFile:
    """A picture that is light, or of another palette entry than the first, inside.

    Attributes:
        path: of the file.
    """

    path: Path

    def read(self, size: tuple[int, int]) -> np.ndarray:
        """Return it as bool (H, W); above half of white is inside, in a file of 0 and 1 the 1.

        Args:
            size: H, W of the image.

        Raises:
            DataError: not readable, or of another size.
        """
        mask: np.ndarray = read_image(self.path, convert=light_pixels)
        if mask.shape != tuple(size):
            raise DataError(
                f"{self.path}: a mask of {_sides(mask.shape)} pixels; its image has {_sides(size)}"
            )
        return mask


def light_pixels(image: Image.Image) -> np.ndarray:
    """Return where a picture is light, see `MaskFile`, bool, (H, W)."""
    if image.mode not in ("1", "L", "P", "I", "I;16"):
        image = image.convert("L")
    values = np.asarray(image)
    if image.mode == "P" or values.max(initial=0) <= 1:
        return values > 0
    light: np.ndarray = values > (127 if values.dtype == np.uint8 else 32767)
    return light


@dataclass(frozen=True)
class CocoMask:
    """A mask as COCO writes it.

    Attributes:
        parts: each as `d_tiil.coco_masks.coco_mask` takes it; their union is meant.
    """

    parts: tuple[Any, ...]

    def read(self, size: tuple[int, int]) -> np.ndarray:
        """Return it as bool (H, W)."""
        return np.logical_or.reduce([coco_mask(part, size) for part in self.parts])


@dataclass(frozen=True)
class BoxMask:
    """The inside of a box.

    Attributes:
        box: left, top, right, bottom in pixels; right and bottom are the first outside.
    """

    box: tuple[int, int, int, int]

    def read(self, size: tuple[int, int]) -> np.ndarray:
        """Return it as bool (H, W), cut off at the image's edges."""
        left, top, right, bottom = (max(0, side) for side in self.box)
        mask = np.zeros(size, bool)
        mask[top:bottom, left:right] = True
        return mask


@dataclass(frozen=True, eq=False)
class ArrayMask:
    """A mask in memory.

    Attributes:
        values: bool, (H, W).
    """

    values: np.ndarray

    def read(self, size: tuple[int, int]) -> np.ndarray:
        """Return it.

        Args:
            size: H, W of the image.

        Raises:
            DataError: of another size.
        """
        if self.values.shape != tuple(size):
            raise DataError(
                f"a mask of {_sides(self.values.shape)} pixels; its image has {_sides(size)}"
            )
        return self.values


@dataclass(frozen=True, eq=False)
class Record:
    """One pair.

    Attributes:
        name: unique in its set.
        image: file, or uint8 (H, W, 3).
        caption: what the image is said to show.
        label: whether they fit.
        mask: of the pixels that contradict the caption; None: not known, or there are none.
        words: of the caption that contradict the image; None: not known.
        kind: of the inconsistency, in the set's words; tables have a row for each.
        edited: what was altered on purpose; a consistent pair of an edited image shows whether a
            method sees traces of the editing instead of the meaning.
        split: train, val or test; empty if the set does not say.
        source: what intervals draw together: pairs made from one picture.
        changed: pixels that differ from the picture of the caption, or in a consistent pair from
            the untouched picture; None: not known.
        true_caption: one that fits the image, where known.
    """

    name: str
    image: Path | np.ndarray
    caption: str
    label: Label = "unknown"
    mask: Mask | None = None
    words: tuple[Phrase, ...] | None = None
    kind: str = ""
    edited: Edited = ""
    split: str = ""
    source: str = ""
    changed: Mask | None = None
    true_caption: str = ""

    @property
    def inconsistent(self) -> bool | None:
        """Whether image and caption contradict each other; None if not known."""
        return None if self.label == "unknown" else self.label == "inconsistent"

    def open_image(self) -> Image.Image:
        """Return the image in RGB.

        Raises:
            DataError: it cannot be read.
        """
        if isinstance(self.image, np.ndarray):
            return Image.fromarray(self.image)
        opened: Image.Image = read_image(self.image)
        return opened

    def true_mask(self, size: tuple[int, int]) -> np.ndarray | None:
        """Return the pixels that contradict, bool (H, W); None if not known.

        Args:
            size: H, W of the image; of a consistent pair no pixel does.

        Raises:
            DataError: the mask cannot be read, or has another size.
        """
        if self.label == "consistent":
            return np.zeros(size, bool)
        return None if self.mask is None else self.mask.read(size)

    def true_words(self) -> tuple[Phrase, ...] | None:
        """Return the words that contradict; none of a consistent pair; None if not known."""
        return () if self.label == "consistent" else self.words

    def digest(self) -> str:
        """Return a short hash of the image's bytes and the caption.

        Raises:
            DataError: the image cannot be read.
        """
        try:
            pixels = (
                self.image.tobytes() + repr(self.image.shape).encode()
                if isinstance(self.image, np.ndarray)
                else self.image.read_bytes()
            )
        except OSError as error:
            raise DataError(f"{self.image}: not readable ({error.strerror})") from None
        words = json.dumps([self.name, self.caption])
        return hashlib.sha256(words.encode() + b"\0" + pixels).hexdigest()[:16]


@dataclass(frozen=True)
class PairSet:
    """Pairs of one data set, and what was wrong with others.

    Attributes:
        path: what was opened.
        layout: as which.
        records: all that can be used, in the set's order.
        defects: one per thing that is wrong.
    """

    path: Path
    layout: str
    records: tuple[Record, ...]
    defects: tuple[Defect, ...] = ()

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[Record]:
        return iter(self.records)

    def of_split(self, split: str) -> tuple[Record, ...]:
        """Return the records of a split.

        Raises:
            DataError: there are none.
        """
        found = tuple(record for record in self.records if record.split == split)
        if not found:
            known = sorted({record.split for record in self.records if record.split})
            has = ", ".join(known) or "no splits"
            raise DataError(f"{self.path}: no records of split {split!r}; it has {has}")
        return found


def _sides(size: tuple[int, ...]) -> str:
    return " x ".join(str(side) for side in size)
