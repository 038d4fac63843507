"""What a benchmark of edits holds: records, and what is wrong with them. Needs no torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from papercommons.data.defects import Defect
from papercommons.data.images import read_image
from papercommons.errors import DataError

from multi_edits.benchmark_masks import PIE_SIZE, decode_mask
from multi_edits.benchmark_parquet import ParquetImage
from multi_edits.edits import Edit, edits_to_json
from multi_edits.words import strip_brackets

if TYPE_CHECKING:
    import numpy as np

CATEGORIES = (
    "0_random_140",
    "1_change_object_80",
    "2_add_object_80",
    "3_delete_object_80",
    "4_change_attribute_content_40",
    "5_change_attribute_pose_40",
    "6_change_attribute_color_40",
    "7_change_attribute_material_40",
    "8_change_background_80",
    "9_change_style_80",
)
EDIT_TYPES = {
    0: "random",
    1: "object",
    2: "add",
    3: "delete",
    4: "content",
    5: "pose",
    6: "color",
    7: "material",
    8: "background",
    9: "style",
}
_WHOLE_IMAGE = (8, 9)


@dataclass(frozen=True)
class Record:
    """One image with the edits asked for.

    Attributes:
        id: as the benchmark gives it; the same may stand in two categories.
        category: folder or configuration, see `CATEGORIES`; "" where none is given.
        image: file, or place in a parquet file; None where the list names none.
        source_prompt: of the image, with its brackets.
        target_prompt: of the wanted image, with its brackets.
        edits: at the places where their phrases begin in `source`.
        types: for each edit a key of `EDIT_TYPES`; 0 where it is not known.
        aspect_mapping: object -> its attributes.
        blended_words: pairs of words, as the benchmark writes them.
        mask_runs: start, length, ... of the pixels to be edited; None without a mask.
        mask_size: H, W of the mask.
        border: whether the mask's outermost pixels count as edited.
    """

    id: str
    category: str
    image: Path | ParquetImage | None
    source_prompt: str
    target_prompt: str
    edits: tuple[Edit, ...] = ()
    types: tuple[int, ...] = ()
    aspect_mapping: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    blended_words: tuple[str, ...] = ()
    mask_runs: tuple[int, ...] | None = None
    mask_size: tuple[int, int] = PIE_SIZE
    border: bool = True

    @property
    def key(self) -> str:
        """Category, where there is one, and id; unique in a benchmark."""
        return f"{self.category}/{self.id}" if self.category else self.id

    @property
    def source(self) -> str:
        """The prompt of the image without brackets."""
        return strip_brackets(self.source_prompt)

    @property
    def target(self) -> str:
        """The prompt of the wanted image without brackets."""
        return strip_brackets(self.target_prompt)

    @property
    def mask(self) -> np.ndarray | None:
        """Where the image is to be edited, bool (H, W); None without a mask."""
        if self.mask_runs is None:
            return None
        return decode_mask(self.mask_runs, self.mask_size, border=self.border)

    @property
    def has_background(self) -> bool:
        """Whether something is to be kept: no edit of background or style, and a mask with a rest.

        The paper's table 2 uses images "with a well defined background" and does not list them;
        this is our rule.
        """
        mask = self.mask
        return mask is not None and not mask.all() and not set(self.types) & set(_WHOLE_IMAGE)

    def open_image(self) -> Any:
        """Return the image as PIL image in RGB.

        Raises:
            DataError: none is named, or it cannot be read.
        """
        if self.image is None:
            raise DataError(f"{self.key}: the list names no image (image_path)")
        return read_image(self.image) if isinstance(self.image, Path) else self.image.open()

    def digest(self) -> str:
        """Return a short hash of the image's bytes and of all that is asked of it.

        Raises:
            DataError: the image cannot be read.
        """
        if self.image is None:
            raise DataError(f"{self.key}: the list names no image (image_path)")
        try:
            pixels = self.image.read_bytes()
        except OSError as error:
            raise DataError(f"{self.image}: not readable ({error.strerror})") from error
        prompts = [self.key, self.source_prompt, self.target_prompt]
        mask = [self.mask_runs, self.mask_size, self.border]
        words = json.dumps([prompts, edits_to_json(self.edits), self.types, mask])
        return hashlib.sha256(words.encode() + b"\0" + pixels).hexdigest()[:16]


@dataclass(frozen=True)
class Benchmark:
    """Records in the order of their keys, and their defects.

    Attributes:
        path: what was opened.
        records: all, with and without defects.
        defects: one per thing that is wrong.
    """

    path: Path
    records: tuple[Record, ...]
    defects: tuple[Defect, ...]

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[Record]:
        return iter(self.records)

    @property
    def usable(self) -> tuple[Record, ...]:
        """The records that can be edited."""
        broken = {defect.record for defect in self.defects if defect.fatal}
        return tuple(record for record in self.records if record.key not in broken)
