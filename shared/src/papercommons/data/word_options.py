"""Options of commands on handwritten words; `papercommons.cli` makes flags of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from papercommons.checks import check_at_least, check_fraction
from papercommons.errors import DataError


@dataclass(frozen=True)
class WordOptions:
    """The images.

    Attributes:
        split_by: unseen (no writer in common), seen, shuffled or paper of CEDAR AND; published for
            a folder with train and test; writers divides by writer; auto chooses.
        variant: clean, or all with CEDAR's wrong words and uncleaned crops.
        resize: cut words to their ink and fit them into squares of this side.
        verify: compare every image with the checksum of the pack.
        skip_bad: leave out images that cannot be used (they are named) instead of stopping.
    """

    split_by: Literal["auto", "unseen", "seen", "shuffled", "paper", "published", "writers"] = (
        "auto"
    )
    variant: Literal["clean", "all"] = "clean"
    resize: int | None = None
    verify: bool = False
    skip_bad: bool = False

    def __post_init__(self) -> None:
        check_at_least(16, resize=self.resize)

    def opening(self) -> dict[str, Any]:
        """Return what `papercommons.data.words.open_words` takes beside the folder."""
        names = ("variant", "resize", "verify", "skip_bad")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class LabelOptions:
    """The labels.

    Attributes:
        writer_fraction: share of the training writers whose labels are used, the first ones by
            name.
        val_fraction: share of those held out for threshold, calibration and the choice of
            best.ckpt.
        pairs: CSV or parquet file of training pairs; generated if not given.
        max_per_writer: most same-writer pairs of one writer.
        allow_writer_overlap: accept writers in both training and test split.
    """

    writer_fraction: float = 1.0
    val_fraction: float = 0.1
    pairs: str | None = None
    max_per_writer: int | None = None
    allow_writer_overlap: bool = False

    def __post_init__(self) -> None:
        check_fraction("(0, 1]", writer_fraction=self.writer_fraction)
        check_fraction("(0, 1)", val_fraction=self.val_fraction)
        check_at_least(1, max_per_writer=self.max_per_writer)
        check_pairs(self.pairs)


def check_pairs(pairs: str | None) -> None:
    """Raise DataError if a list of pairs is given and is not there."""
    if pairs is not None and not Path(pairs).is_file():
        raise DataError(f"{pairs}: no such file; --pairs takes a list of pairs")


def name_split(split: str, split_by: str) -> str:
    """Return the images of a command in words.

    Args:
        split: train, val, test or all.
        split_by: the way in which the words are divided.

    Example:
        >>> name_split("test", "unseen")
        'test split (unseen)'
    """
    return "all writers" if split == "all" else f"{split} split ({split_by})"
