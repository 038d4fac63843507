"""From what a list says to records: every check, one defect for each thing that is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from papercommons.data.defects import Defect
from papercommons.data.images import read_image
from papercommons.errors import DataError

from d_tiil.phrases import Phrase
from d_tiil.reading import below, image_size
from d_tiil.records import CocoMask, Label, Mask, MaskFile, Record
from d_tiil.tokens import check_text

Depth = Literal["paths", "headers", "full"]
DEPTHS: tuple[Depth, ...] = get_args(Depth)
SPLITS = {"train": "train", "training": "train", "test": "test", "testing": "test"}
SPLITS |= {"val": "val", "valid": "val", "validation": "val", "dev": "val"}
_LABELS: dict[Any, Label] = {
    "0": "consistent",
    "false": "consistent",
    "consistent": "consistent",
    "1": "inconsistent",
    "true": "inconsistent",
    "inconsistent": "inconsistent",
    "none": "unknown",
    "unknown": "unknown",
}


class Checks:
    """Collects records and defects while a list is read.

    Args:
        depth: paths: images must be there; headers: their sizes are read, and masks that are not
            files are decoded; full: images and masks are decoded.
    """

    def __init__(self, depth: Depth = "headers") -> None:
        if depth not in DEPTHS:
            raise ValueError(f"check must be one of {', '.join(DEPTHS)}, got {depth!r}")
        self.depth = depth
        self.records: list[Record] = []
        self.defects: list[Defect] = []
        self._sizes: dict[Path, tuple[int, int] | DataError] = {}
        self._names: dict[str, int] = {}

    def wrong(self, name: str, what: Any, expected: str, *, fatal: bool = False) -> None:
        """Note a defect."""
        self.defects.append(Defect(name, str(what), expected, fatal))

    def unique(self, name: str, *, expected: bool = True) -> str:
        """Return a name that no record has had.

        Args:
            name: as the list has it.
            expected: that it is unique; a repeated one is a defect.
        """
        count = self._names[name] = self._names.get(name, 0) + 1
        if count == 1:
            return name
        other = f"{name}_{count}"
        if expected:
            self.wrong(name, "the name is there twice", f"unique names; it becomes {other}")
        return self.unique(other, expected=False)

    def image(self, name: str, root: Path, given: Any) -> Path | None:
        """Return the file of an image; None, and a fatal defect, if it cannot be used.

        Args:
            name: of the record.
            root: folder it must lie below.
            given: relative path.
        """
        try:
            path = below(root, given)
            if not path.is_file():
                raise DataError(f"no such file: {path}")
            if self.depth != "paths":
                self.size(path)
        except DataError as error:
            self.wrong(name, error, "a readable image below the set's folder", fatal=True)
            return None
        return path

    def size(self, path: Path) -> tuple[int, int]:
        """Return H, W of an image, read once; with depth full it is decoded for it.

        Raises:
            DataError: it cannot be read.
        """
        if path not in self._sizes:
            try:
                if self.depth == "full":
                    read_image(path)
                self._sizes[path] = image_size(path)
            except DataError as error:
                self._sizes[path] = error
        found = self._sizes[path]
        if isinstance(found, DataError):
            raise found
        return found

    def caption(self, name: str, given: Any) -> str | None:
        """Return a caption; None, and a fatal defect, if there is none that can be read."""
        try:
            if not isinstance(given, str) or not given.strip():
                raise DataError("no caption")
            check_text(given)
        except DataError as error:
            self.wrong(name, error, "a caption that can be read", fatal=True)
            return None
        return given

    def label(self, name: str, given: Any) -> Label | None:
        """Return a label; None, and a fatal defect, for a word that is none."""
        found = _LABELS.get(str(given).strip().lower())
        if found is None:
            wanted = "0 (consistent), 1 (inconsistent) or null"
            self.wrong(name, f"label {str(given)[:20]!r}", wanted, fatal=True)
        return found

    def split(self, name: str, given: Any) -> str:
        """Return a split; empty, and a defect, for a word that is none."""
        said = "" if given is None else str(given).strip().lower()
        if said and said not in SPLITS:
            self.wrong(name, f"split {said[:20]!r}", "train, val or test")
        return SPLITS.get(said, "")

    def mask(
        self, name: str, mask: Mask | None, image: Path, label: Label, *, needed: bool = False
    ) -> Mask | None:
        """Return a mask; None, and a defect, if it cannot be used.

        Args:
            name: of the record.
            mask: as the list has it.
            image: its image, checked before.
            label: of the pair: a consistent one has no pixels, an inconsistent one some.
            needed: an inconsistent pair must have one.
        """
        if mask is None:
            if needed and label == "inconsistent":
                self.wrong(name, "no mask", "a mask of the inconsistent pixels")
            return None
        try:
            filled = self._some(mask, image)
        except DataError as error:
            self.wrong(name, error, "a mask of the image's size")
            return None
        if filled is None:  # not decoded
            return mask if label != "consistent" else None
        if label == "consistent" and filled:
            self.wrong(name, f"consistent, but its mask has {filled:,} pixels", "an empty mask")
        if label == "inconsistent" and not filled:
            self.wrong(name, "inconsistent, but its mask is empty", "a mask with pixels")
        return mask if filled and label != "consistent" else None

    def _some(self, mask: Mask, image: Path) -> int | None:
        """Return how many pixels a mask has; None where the depth does not allow to see."""
        if isinstance(mask, MaskFile) and not mask.path.is_file():
            raise DataError(f"no such file: {mask.path}")
        if self.depth == "paths":
            return None
        size = self.size(image)
        if isinstance(mask, MaskFile) and self.depth == "headers":
            own = image_size(mask.path)
            if own != size:
                raise DataError(
                    f"a mask of {own[0]} x {own[1]} pixels; its image has {size[0]} x {size[1]}"
                )
            return None
        return int(np.count_nonzero(mask.read(size)))

    def mask_given(self, name: str, root: Path, given: Any) -> Mask | None:
        """Return what a list means by a mask: nothing, a file, or COCO's polygons or runs.

        Args:
            name: of the record.
            root: folder that a file must lie below.
            given: null, a relative path, or a ``segmentation`` of COCO.
        """
        if given is None or given in ("", [], {}):
            return None
        if isinstance(given, str):
            try:
                return MaskFile(below(root, given))
            except DataError as error:
                self.wrong(name, error, "a mask below the set's folder")
                return None
        return CocoMask((given,))

    def words(
        self, name: str, label: Label, read: Any, *, needed: bool = False
    ) -> tuple[Phrase, ...] | None:
        """Return the words that contradict; None, and a defect, if they cannot be used.

        Args:
            name: of the record.
            label: of the pair.
            read: gives them, or None if the list has none; may raise DataError.
            needed: an inconsistent pair must have some.
        """
        try:
            found: tuple[Phrase, ...] | None = read()
        except DataError as error:
            self.wrong(name, error, "words of the caption, by [start, end] or as they stand in it")
            return None
        if label == "consistent":
            if found:
                self.wrong(name, "consistent, but it has inconsistent words", "no words")
            return ()
        if found is None and needed and label == "inconsistent":
            self.wrong(name, "no words", "the inconsistent words")
        return found
