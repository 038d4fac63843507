"""Options that several commands share, as dataclasses; `papercommons.cli` makes flags of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from papercommons.checks import check_at_least, check_fraction, check_held_out, check_positive
from papercommons.errors import DataError

from nlran.networks import VARIED, check_name

PACKAGE = "nlran"


@dataclass(frozen=True)
class DataOptions:
    """The scans.

    Attributes:
        manifest: CSV file with columns path, label and, if wanted, patient_id, split; paths are
            relative to --data.
        classes: names of the classes to use, in the order of the logits.
        skip_bad: leave out scans that cannot be read (they are named) instead of stopping.
        allow_gaps: fill in slices missing from a DICOM series instead of refusing it.
        mixed_units: let scans in HU and 8-bit scans into one set (the difference can give the class
            away).
        limit: use at most so many scans of each class.
    """

    manifest: str | None = None
    classes: list[str] | None = None
    skip_bad: bool = False
    allow_gaps: bool = False
    mixed_units: bool = False
    limit: int | None = None

    def __post_init__(self) -> None:
        if self.manifest is not None and not Path(self.manifest).is_file():
            raise DataError(f"{self.manifest}: no such file; --manifest takes a CSV file")
        check_at_least(1, limit=self.limit)


@dataclass(frozen=True)
class ReadingOptions:
    """Reading scans.

    Attributes:
        skip_bad: leave out scans that cannot be used (they are named) instead of stopping.
        allow_gaps: fill in slices missing from a DICOM series instead of refusing it.
        mixed_units: take 8-bit scans though the network was trained on HU, and the reverse.
        lung_mask: for a network trained with a folder of masks: such a folder, or one mask file.
    """

    skip_bad: bool = False
    allow_gaps: bool = False
    mixed_units: bool = False
    lung_mask: str | None = None

    def __post_init__(self) -> None:
        if self.lung_mask is not None and not Path(self.lung_mask).exists():
            raise DataError(f"{self.lung_mask}: no such file or folder; --lung-mask takes one")


@dataclass(frozen=True)
class MapOptions:
    """Heat maps.

    Attributes:
        heatmap: which one is written; mask-trunk if not given, gradcam for networks without a mask.
        explain_class: class that cam and gradcam explain; the likeliest if not given.
        overlay: none writes no PNG files (the pages have the pictures all the same).
        controls: show all other maps of the network beside the chosen one.
    """

    heatmap: (
        Literal["mask-trunk", "mask", "trunk", "cam", "gradcam", "gradcam-stage1", "nonlocal"]
        | None
    ) = None
    explain_class: str | None = None
    overlay: Literal["png", "none"] = "png"
    controls: bool = True


@dataclass(frozen=True)
class PreparationOptions:
    """What the network sees.

    Attributes:
        size: depth, height, width of its input, each >= 16; the preset's if not given. Depth 0
            keeps every slice (covnet only, and its default).
        max_slices: with depth 0: resample longer scans to so many slices.
        resample: size stretches a scan to it; spacing resamples to --spacing, then crops or pads.
        spacing: millimetres in depth, height, width.
        window: HU that become 0 and 1.
        lung_mask: none; auto blacks out all but the lungs; or a folder of masks named as the scans.
    """

    size: list[int] | None = None
    max_slices: int | None = None
    resample: Literal["size", "spacing"] = "size"
    spacing: list[float] = field(default_factory=lambda: [5.0, 2.5, 2.5])
    window: list[float] = field(default_factory=lambda: [-1000.0, 400.0])
    lung_mask: str = "none"

    def __post_init__(self) -> None:
        for name, value, count in (
            ("size", self.size, 3),
            ("spacing", self.spacing, 3),
            ("window", self.window, 2),
        ):
            if value is not None and len(value) != count:
                raise ValueError(f"--{name} must be {count} numbers, got {value}")
        if not self.window[0] < self.window[1]:
            raise ValueError(f"--window must rise, got {self.window}")
        if min(self.spacing) <= 0:
            raise ValueError(f"--spacing must be > 0, got {self.spacing}")
        if self.size is not None and (
            min(self.size[1:]) < 16 or (self.size[0] < 16 and self.size[0] != 0)
        ):
            raise ValueError(
                f"--size must be >= 16 on each axis (or depth 0: every slice), got {self.size}"
            )
        if self.lung_mask not in ("none", "auto") and not Path(self.lung_mask).is_dir():
            raise DataError(
                f"{self.lung_mask}: no such folder; --lung-mask takes none, auto or one"
            )


@dataclass(frozen=True)
class SplitOptions:
    """How scans are divided.

    Attributes:
        split_by: patient keeps a patient's scans together (published splits are kept where there
            are any); scan does not, and flatters the numbers; manifest takes the column; none
            trains on everything and tests nothing.
        val_fraction: share of the patients held out to choose best.ckpt.
        test_fraction: share of the patients held out to be tested on.
    """

    split_by: Literal["patient", "scan", "manifest", "none"] = "patient"
    val_fraction: float = 0.1
    test_fraction: float = 0.1

    def __post_init__(self) -> None:
        check_held_out(self.val_fraction, self.test_fraction)


@dataclass(frozen=True)
class NetworkOptions:
    """The network.

    Attributes:
        network: nlran; without its non-local block (ran3d), attention (nlresnet3d) or both
            (plain3d); cbam3d; resnet3d, resnet3d34, resnet3d50; densenet121 (needs MONAI); covnet.
        variant: size of nlran and its ablations: tiny, base, large; the preset's if not given.
        norm: batch, or group for batches of one or two scans.
        dropout: before the classifier.
        non_local_after: stages (1 to 4) that a non-local block follows; the network's own if not
            given.
        form: of the non-local block.
        subsample: give the non-local block a quarter of the keys.
        residual: attention residual learning, (1 + mask) * trunk; else mask * trunk.
        decoder_sum: the mask branch adds encoder features, as the 2-D reference does.
        pretrained: begin with published weights (resnet3d: Kinetics; covnet: ImageNet); they are
            downloaded.
        stem_stride: of the first convolution in depth, height, width; 1,2,2 suits thick slices.
    """

    network: str = "nlran"
    variant: Literal["tiny", "base", "large"] | None = None
    norm: Literal["batch", "group"] | None = None
    dropout: float | None = None
    non_local_after: list[int] | None = None
    form: Literal["embedded_gaussian", "gaussian", "dot_product", "concatenation"] | None = None
    subsample: bool | None = None
    residual: bool | None = None
    decoder_sum: bool | None = None
    stem_stride: list[int] | None = None
    pretrained: bool = False

    def __post_init__(self) -> None:
        check_name(self.network)
        check_fraction("[0, 1)", dropout=self.dropout)
        if self.stem_stride is not None and (
            len(self.stem_stride) != 3 or min(self.stem_stride) < 1
        ):
            raise ValueError(f"--stem-stride must be 3 numbers >= 1, got {self.stem_stride}")
        if any(not 1 <= stage <= 4 for stage in self.non_local_after or ()):
            raise ValueError(f"--non-local-after must name stages 1 to 4: {self.non_local_after}")
        if self.pretrained and self.network not in ("resnet3d", "covnet"):
            raise ValueError(f"--pretrained: no published weights for {self.network}")
        own = self.arguments()
        if own and self.network not in VARIED:
            raise ValueError(
                f"--{next(iter(own)).replace('_', '-')} is an option of nlran and its ablations, "
                f"not of {self.network}"
            )

    def arguments(self) -> dict[str, object]:
        """Return what was given beyond name and size, as `NLRAN` takes it."""
        named = {
            "norm": self.norm,
            "dropout": self.dropout,
            "non_local_after": self.non_local_after,
            "form": self.form,
            "subsample": self.subsample,
            "residual": self.residual,
            "decoder_sum": self.decoder_sum,
            "stem_stride": self.stem_stride,
        }
        return {name: value for name, value in named.items() if value is not None}


@dataclass(frozen=True)
class RecipeOptions:
    """The recipe.

    Attributes:
        preset: what holds for all that is not given: quick (minutes on two cores) or paper (full
            size, for a GPU; the paper's own recipe is not known); auto is paper where there is a
            CUDA device, else quick.
        epochs: passes over the training scans.
        batch_size: scans per step and device.
        lr: peak learning rate.
        weight_decay: of the optimiser.
        optimizer: adamw or sgd.
        warmup: share of the steps over which the learning rate rises.
        label_smoothing: share of the label given to all classes.
        class_weights: balanced weighs a class by how rare it is.
        patience: stop after so many epochs without a better val score; 0 never does.
        augment: rotate, scale, shift and add noise to training scans.
        flip: swap left and right too; not for labels that have a side.
        cache: folder for prepared scans, so that later epochs decode nothing; OUT/cache if not
            given, none keeps what fits in memory.
    """

    preset: Literal["auto", "quick", "paper"] = "auto"
    epochs: int | None = None
    batch_size: int | None = None
    lr: float | None = None
    weight_decay: float | None = None
    optimizer: Literal["adamw", "sgd"] | None = None
    warmup: float | None = None
    label_smoothing: float | None = None
    class_weights: Literal["none", "balanced"] = "none"
    patience: int | None = None
    augment: bool = True
    flip: bool = True
    cache: str | None = None

    def __post_init__(self) -> None:
        check_at_least(1, epochs=self.epochs, batch_size=self.batch_size)
        check_positive(lr=self.lr)
        check_fraction("[0, 1)", warmup=self.warmup, label_smoothing=self.label_smoothing)
        check_at_least(0, patience=self.patience, weight_decay=self.weight_decay)
