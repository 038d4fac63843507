"""Options that several commands share, as dataclasses; `papercommons.cli` makes flags of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from papercommons.checks import check_at_least, check_fraction, check_positive
from papercommons.errors import DataError


@dataclass(frozen=True)
class WordOptions:
    """The images.

    Attributes:
        split: unseen (no writer in common), seen, shuffled or paper of CEDAR AND; published for a
            folder with train and test; writers divides by writer; auto chooses.
        variant: clean, or all with CEDAR's wrong words and uncleaned crops.
        resize: cut words to their ink and fit them into squares of this side.
        verify: compare every image with the checksum of the pack.
        skip_bad: leave out images that cannot be used (they are named) instead of stopping.
        allow_writer_overlap: accept a split with writers in both parts.
    """

    split: Literal["auto", "unseen", "seen", "shuffled", "paper", "published", "writers"] = "auto"
    variant: Literal["clean", "all"] = "clean"
    resize: int | None = None
    verify: bool = False
    skip_bad: bool = False
    allow_writer_overlap: bool = False

    def __post_init__(self) -> None:
        check_at_least(16, resize=self.resize)


@dataclass(frozen=True)
class LabelOptions:
    """The labels.

    Attributes:
        writer_fraction: share of the training writers whose labels are used (the first ones by
            name, as in the paper).
        val_fraction: share of those writers held out for threshold, calibration and the choice of
            best.ckpt.
        pairs: CSV or parquet file of training pairs, see ssl-hv-pairs; generated if not given.
        max_per_writer: most same-writer pairs of one writer.
    """

    writer_fraction: float = 1.0
    val_fraction: float = 0.1
    pairs: str | None = None
    max_per_writer: int | None = None

    def __post_init__(self) -> None:
        check_fraction("(0, 1]", writer_fraction=self.writer_fraction)
        check_fraction("(0, 1)", val_fraction=self.val_fraction)
        check_at_least(1, max_per_writer=self.max_per_writer)
        if self.pairs is not None and not Path(self.pairs).is_file():
            raise DataError(f"{self.pairs}: no such file; --pairs takes a table of pairs")


@dataclass(frozen=True)
class RecipeOptions:
    """The recipe.

    Attributes:
        preset: what holds for all that is not given: quick (minutes on two cores) or paper; auto is
            paper where there is a CUDA device, else quick.
        epochs: passes over the training images or pairs.
        batch_size: images or pairs per step and device.
        lr: peak learning rate.
        optimizer: adamw or sgd.
        weight_decay: of the optimiser.
        warmup: share of the steps over which the learning rate rises; the preset's if not given.
        augment: handwriting (ours: no mirror writing), paper, or none; the method's own if not
            given.
    """

    preset: Literal["auto", "quick", "paper"] = "auto"
    epochs: int | None = None
    batch_size: int | None = None
    lr: float | None = None
    optimizer: Literal["adamw", "sgd"] | None = None
    weight_decay: float | None = None
    warmup: float | None = None
    augment: Literal["handwriting", "paper", "none"] | None = None

    def __post_init__(self) -> None:
        check_at_least(1, epochs=self.epochs)
        check_at_least(2, batch_size=self.batch_size)  # batch statistics need two
        check_positive(lr=self.lr)
        check_at_least(0, weight_decay=self.weight_decay)
        check_fraction("[0, 1)", warmup=self.warmup)
