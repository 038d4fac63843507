"""Options that several commands share, as dataclasses; `papercommons.cli` makes flags of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from papercommons.checks import check_at_least, check_fraction, check_held_out, check_positive
from papercommons.errors import DataError

from cmdfd.entries import LEAST_FRAMES
from cmdfd.layouts import Layout

PACKAGE = "cmdfd"

Detector = Literal["auto", "lbp", "mtcnn", "none"]


@dataclass(frozen=True)
class DataOptions:
    """The data.

    Attributes:
        layout: list (CSV in the official columns, or lines `path label`), folders (real/ and
            fake/), fakeavceleb, or segments (the .json of LAV-DF and AV-Deepfake1M); auto finds
            out.
        root: folder that the paths of a list are relative to; the list's own if not given.
        skip_bad: leave out clips that cannot be used (they are named) instead of stopping.
    """

    layout: Layout = "auto"
    root: str | None = None
    skip_bad: bool = False

    def __post_init__(self) -> None:
        if self.root is not None and not Path(self.root).is_dir():
            raise DataError(f"{self.root}: no such folder; --root is where a list's paths begin")


@dataclass(frozen=True)
class CropOptions:
    """How faces are cut, of clips that are not prepared.

    Attributes:
        detector: lbp (scikit-image's), mtcnn where facenet_pytorch is installed, or none: the whole
            picture is the face; auto is none for clips of cmdfd-synth, else lbp.
        face: which of several: largest, or its number by size, 2 for the second largest.
        every: a face is looked for in every so many frames.
        official_gray: change the weights of red and blue, as the official code does.
        partial: of files that break off, take what can be read; else they are refused.
    """

    detector: Detector = "auto"
    face: str = "largest"
    every: int = 8
    official_gray: bool = False
    partial: bool = False

    def __post_init__(self) -> None:
        if self.face != "largest" and not (self.face.isdecimal() and int(self.face) >= 1):
            raise ValueError(f"--face must be largest or a number >= 1, got {self.face}")
        check_at_least(1, every=self.every)


@dataclass(frozen=True)
class SynthOptions:
    """What is made.

    Attributes:
        unseen: kinds for the test split alone; lipsync_clean, rhythm, swap, shift and partial if
            not given, none for none.
        real_share: share of real clips in each split.
        people: how many there are; nobody is in two splits.
        seconds: shortest and longest clip, two numbers; 2,4 if not given.
        val_fraction: share of clips and people for validation.
        test_fraction: share for testing.
        quality: best and worst constant rate factor of the videos, two numbers in 0 to 51; 18,28 if
            not given.
    """

    unseen: list[str] | None = None
    real_share: float = 0.5
    people: int = 40
    seconds: list[float] | None = None
    val_fraction: float = 0.15
    test_fraction: float = 0.35
    quality: list[int] | None = None

    def __post_init__(self) -> None:
        check_fraction("(0, 1)", real_share=self.real_share)
        check_held_out(self.val_fraction, self.test_fraction)
        for name in ("seconds", "quality"):
            given = getattr(self, name)
            if given is not None and len(given) != 2:
                raise ValueError(f"--{name} takes two numbers, such as 2,4, got {given}")


@dataclass(frozen=True)
class RecipeOptions:
    """The recipe.

    Attributes:
        preset: what holds for all that is not given: quick (a small network and small pictures,
            minutes on two cores) or paper (the paper's network, for a GPU); auto is paper where
            there is a CUDA device, else quick.
        epochs: passes over the training clips.
        lr: learning rate.
        lr_decay: it is multiplied by this after each epoch.
        frames_per_batch: a batch holds so many frames of clips of about one length.
        max_frames: of a training clip; longer ones give a piece.
        size: side of the faces in pixels, of clips that are not prepared.
        augment: flip, crop or turn training faces.
        stream: what the network gets: both, or as a baseline visual or audio alone.
        val_fraction: share of the people held out if there is no val split.
    """

    preset: Literal["auto", "quick", "paper"] = "auto"
    epochs: int | None = None
    lr: float | None = None
    lr_decay: float | None = None
    frames_per_batch: int | None = None
    max_frames: int | None = None
    size: int | None = None
    augment: bool = True
    stream: Literal["both", "visual", "audio"] = "both"
    val_fraction: float = 0.15

    def __post_init__(self) -> None:
        check_at_least(1, epochs=self.epochs, frames_per_batch=self.frames_per_batch)
        check_at_least(LEAST_FRAMES, max_frames=self.max_frames)
        check_positive(lr=self.lr)
        check_fraction("(0, 1]", lr_decay=self.lr_decay)
        check_fraction("[0, 1)", val_fraction=self.val_fraction)
        check_size(self.size)


@dataclass(frozen=True)
class LossOptions:
    """The losses.

    Attributes:
        target: of the correlation: js (Jensen-Shannon in bits) or jeffreys (the official code's);
            js, or jeffreys with --legacy, if not given.
        distill: clips that L_dist is taken over: all (as the official code) or real.
        w_dist: weight of L_dist.
        w_con: weight of L_con.
    """

    target: Literal["js", "jeffreys"] | None = None
    distill: Literal["all", "real"] = "all"
    w_dist: float = 1.0
    w_con: float = 1.0

    def __post_init__(self) -> None:
        check_at_least(0, w_dist=self.w_dist, w_con=self.w_con)


@dataclass(frozen=True)
class TeachOptions:
    """The teacher.

    Attributes:
        labels: phonemes (clips of cmdfd-synth say what is heard when) or grid (the names of GRID's
            clips say the words; learnt by CTC). Not with --hf-asr.
        epochs: passes over the real clips.
        lr: learning rate.
        lr_decay: it is multiplied by this after each epoch.
        frames_per_batch: a batch holds so many frames.
        max_frames: of a training piece.
        size: side of the faces in pixels, of clips that are not prepared.
        dim: of the embeddings, a multiple of 8, at most 1024.
        width: channels of the 3-D convolution, at most 256.
        augment: flip, crop or turn training faces.
        val_fraction: share of the people held out if there is no val split.
    """

    labels: Literal["phonemes", "grid"] = "phonemes"
    epochs: int = 20
    lr: float = 1e-3
    lr_decay: float = 0.95
    frames_per_batch: int = 500
    max_frames: int = 100
    size: int = 48
    dim: int = 64
    width: int = 8
    augment: bool = True
    val_fraction: float = 0.15

    def __post_init__(self) -> None:
        check_at_least(1, epochs=self.epochs, frames_per_batch=self.frames_per_batch)
        check_at_least(LEAST_FRAMES, max_frames=self.max_frames)
        check_positive(lr=self.lr)
        check_fraction("(0, 1]", lr_decay=self.lr_decay)
        check_fraction("[0, 1)", val_fraction=self.val_fraction)
        if not 8 <= self.dim <= 1024 or self.dim % 8:
            raise ValueError(f"--dim must be a multiple of 8 in [8, 1024], got {self.dim}")
        if not 1 <= self.width <= 256:
            raise ValueError(f"--width must be in [1, 256], got {self.width}")
        check_size(self.size)


def check_size(size: int | None) -> None:
    """Raise ValueError unless faces can have such a side."""
    if size is not None and not 16 <= size <= 512:
        raise ValueError(f"--size must be in [16, 512], got {size}")


def check_places(*places: str | None) -> list[str]:
    """Return the places that are given.

    Raises:
        DataError: one does not exist.
    """
    given = [place for place in places if place is not None]
    for place in given:
        if not Path(place).exists():
            raise DataError(
                f"{place}: no such file or folder; expected a list of clips, a prepared folder or "
                "a set (see --layout)"
            )
    return given
