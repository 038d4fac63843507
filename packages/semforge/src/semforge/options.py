"""Options that several commands share, as dataclasses; `papercommons.cli` makes flags of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from papercommons.checks import check_at_least, check_fraction, check_held_out, check_positive
from papercommons.errors import DataError

PACKAGE = "semforge"

Layout = Literal[
    "auto", "list", "folders", "ffsc", "ffpp", "faceshifter", "cdf", "deeperforensics", "dfdc"
]
CropMode = Literal["none", "detect", "boxes"]
Detector = Literal["lbp", "mtcnn"]


@dataclass(frozen=True)
class DataOptions:
    """The data.

    Attributes:
        layout: list (text or CSV), folders (real/ and fake/), ffsc, ffpp, faceshifter, cdf,
            deeperforensics or dfdc; auto finds out.
        root: folder that the paths of a list are relative to; the list's own if not given.
        n_frames: frames taken of each video, evenly spaced.
        skip_bad: leave out pictures that cannot be used (they are named) instead of stopping.
        allow_leak: accept videos or identities that are in two splits.
    """

    layout: Layout = "auto"
    root: str | None = None
    n_frames: int = 32
    skip_bad: bool = False
    allow_leak: bool = False

    def __post_init__(self) -> None:
        check_at_least(1, n_frames=self.n_frames)
        if self.root is not None and not Path(self.root).is_dir():
            raise DataError(f"{self.root}: no such folder; --root is where a list's paths begin")


@dataclass(frozen=True)
class CropOptions:
    """How faces are cut.

    Attributes:
        crop: none takes pictures as they are (faces cut before), detect finds the largest face,
            boxes takes it from --boxes; a square 1.3 times the box is cut.
        detector: lbp (scikit-image's), or mtcnn where facenet_pytorch is installed.
        boxes: CSV file with path, left, top, right, bottom and, for videos, frame.
        cut_by: which detector cut pictures that come with --crop none, if it was one of ours (in
            the same way): then semforge-predict finds faces by itself.
    """

    crop: CropMode = "none"
    detector: Detector = "lbp"
    boxes: str | None = None
    cut_by: Detector | None = None

    def __post_init__(self) -> None:
        check_crop_words(self.crop, self.boxes)
        if self.cut_by is not None and self.crop != "none":
            raise ValueError(f"--cut-by goes with --crop none, not with --crop {self.crop}")


@dataclass(frozen=True)
class NetworkOptions:
    """The network.

    Attributes:
        graph: ffsc (12 nodes), ffpp (10 nodes) or a YAML file, see semforge-graph.
        strict_root: forbid fake without an attribute (ffsc and ffpp; a file says it itself).
        head: graph (the paper's), flat (independent nodes) or binary (fake alone).
        backbone: tiny, legacy_xception (the paper's), any network of timm, or open_clip:NAME; the
            preset's if not given.
        size: side of the faces in pixels; the backbone's own if not given.
        embedding: linear; or joint, the follow-up's texts of the nodes (open_clip:NAME).
        root_prior: balanced begins with p(fake) = 1/2, none as the paper's code; the preset's if
            not given.
        dropout: before the linear layer; 0.5 for Xception and else 0 if not given.
        pretrained: published (downloads them unless cached), a weights file, or none; the preset's
            if not given.
    """

    graph: str = "ffsc"
    strict_root: bool = False
    head: Literal["graph", "flat", "binary"] = "graph"
    backbone: str | None = None
    size: int | None = None
    embedding: Literal["linear", "joint"] = "linear"
    root_prior: Literal["balanced", "none"] | None = None
    dropout: float | None = None
    pretrained: str | None = None

    def __post_init__(self) -> None:
        if self.size is not None and not 32 <= self.size <= 1024:
            raise ValueError(f"--size must be in [32, 1024], got {self.size}")
        check_fraction("[0, 1)", dropout=self.dropout)
        given = self.pretrained
        if given not in (None, "none", "published") and not Path(given).exists():
            raise DataError(
                f"{given}: no such file; --pretrained takes published, none or a weights file"
            )
        check_graph(self.graph)
        if self.strict_root and self.graph not in ("ffsc", "ffpp"):
            raise ValueError("--strict-root is for ffsc and ffpp; write strict_root into the file")


@dataclass(frozen=True)
class RecipeOptions:
    """The recipe.

    Attributes:
        preset: what holds for all that is not given: quick (a tiny network, minutes on two cores)
            or paper (Xception, for a GPU); auto is paper where there is a CUDA device, else quick.
        epochs: passes over the training faces.
        batch_size: faces per step and device.
        lr: learning rate.
        optimizer: adam (the paper's) or adamw (the follow-up's).
        weight_decay: of the optimiser.
        schedule: step (the paper's: times --lr-decay every --lr-step epochs) or cosine (the
            follow-up's: down to 0 within --lr-step epochs, and up again).
        lr_step: epochs.
        lr_decay: factor, in (0, 1].
        aug_prob: share of training faces that are corrupted (blocks, noise, blur, pixelation,
            JPEG).
        self_blend: share of real training faces that become self-blended pseudo-fakes.
        val_fraction: share of the videos and pictures held out if there is no val split.
    """

    preset: Literal["auto", "quick", "paper"] = "auto"
    epochs: int | None = None
    batch_size: int | None = None
    lr: float | None = None
    optimizer: Literal["adam", "adamw"] = "adam"
    weight_decay: float = 0.0
    schedule: Literal["step", "cosine"] = "step"
    lr_step: int = 5
    lr_decay: float = 0.5
    aug_prob: float = 0.3
    self_blend: float = 0.0
    val_fraction: float = 0.1

    def __post_init__(self) -> None:
        check_at_least(1, epochs=self.epochs, batch_size=self.batch_size, lr_step=self.lr_step)
        check_positive(lr=self.lr)
        check_at_least(0, weight_decay=self.weight_decay)
        check_fraction("(0, 1]", lr_decay=self.lr_decay)
        check_fraction("[0, 1]", aug_prob=self.aug_prob, self_blend=self.self_blend)
        check_fraction("[0, 1)", val_fraction=self.val_fraction)


@dataclass(frozen=True)
class LossOptions:
    """The losses and their weights.

    Attributes:
        loss: bce (the paper's), fidelity (the follow-up's) or nll (all known labels together).
        weighting: of the levels root, global and local: equal, or autol (Auto-lambda, the paper's).
        lambda_lr: learning rate of the weights.
        lambda_init: their first value.
        lambda_every: batches between their steps.
        lambda_min: they are held at or above it; no bound if not given.
        lambda_form: exact gradient, or finite differences as the paper's code.
        meta_split: faces that the weights are judged on: val, or train (the paper's code); val
            where there is one if not given.
    """

    loss: Literal["bce", "fidelity", "nll"] = "bce"
    weighting: Literal["equal", "autol"] = "equal"
    lambda_lr: float = 1e-3
    lambda_init: float = 1.0
    lambda_every: int = 1
    lambda_min: float | None = None
    lambda_form: Literal["exact", "finite"] = "exact"
    meta_split: Literal["val", "train"] | None = None

    def __post_init__(self) -> None:
        check_positive(lambda_lr=self.lambda_lr)
        check_at_least(1, lambda_every=self.lambda_every)
        if self.meta_split is not None and self.weighting != "autol":
            raise ValueError("--meta-split goes with --weighting autol")


@dataclass(frozen=True)
class SynthOptions:
    """What is made.

    Attributes:
        crop: detect cuts the largest face out of each photograph or frame; none takes pictures as
            they are.
        kinds: edits, of expression, age and identity; all that the graph knows if not given.
        families: traces of generators that fakes carry: half, checker, sharpen, levels, median; all
            of these if not given.
        unseen: traces that test fakes carry, too, and others not; nearest and colour if not given.
        real_share: share of the faces that are left as they are.
        unknown: share of the attributes and regions of training fakes whose label is hidden (2).
        val_fraction: share of the people for validation.
        test_fraction: share for testing.
        n_frames: taken of each video.
    """

    crop: Literal["detect", "none"] = "detect"
    kinds: list[str] | None = None
    families: list[str] | None = None
    unseen: list[str] | None = None
    real_share: float = 0.5
    unknown: float = 0.0
    val_fraction: float = 0.2
    test_fraction: float = 0.2
    n_frames: int = 32

    def __post_init__(self) -> None:
        check_fraction("[0, 1]", real_share=self.real_share, unknown=self.unknown)
        check_held_out(self.val_fraction, self.test_fraction)
        check_at_least(1, n_frames=self.n_frames)


def check_crop_words(crop: str | None, boxes: str | None) -> None:
    """Check that a way to cut faces and a file of boxes go together.

    Args:
        crop: none, detect or boxes; None was not given.
        boxes: CSV file.

    Raises:
        ValueError: one is given without the other.
        DataError: no such file.
    """
    if (crop == "boxes") != (boxes is not None):
        raise ValueError(
            f"--boxes goes with --crop boxes, got --crop {crop} "
            f"{'with' if boxes else 'without'} --boxes"
        )
    if boxes is not None and not Path(boxes).is_file():
        raise DataError(f"{boxes}: no such file; --boxes takes a CSV file")


def check_graph(graph: str) -> None:
    """Raise DataError if `graph` is neither a name nor a file."""
    if graph not in ("ffsc", "ffpp") and not Path(graph).is_file():
        raise DataError(f"{graph}: no such file; give a graph as YAML, or ffsc or ffpp")
