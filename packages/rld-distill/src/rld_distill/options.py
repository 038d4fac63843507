"""Options that several commands share, as dataclasses; `papercommons.cli` makes flags of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from papercommons.checks import check_at_least, check_fraction, check_positive
from papercommons.errors import DataError, nearest
from papercommons.files import find_saved

from rld_distill.zoo import list_models

PACKAGE = "rld-distill"
Augment = Literal["auto", "none", "crop", "crop-flip", "resized-crop", "strong"]


@dataclass(frozen=True)
class DataOptions:
    """How images are read.

    Attributes:
        augment: training images: none; crop (shifted by up to 4 pixels); crop-flip (CIFAR's);
            resized-crop (ImageNet's); strong (crop-flip, two distortions, a grey square); auto:
            crop for grey, crop-flip for small coloured images, else resized-crop.
        size: height and width for the networks; as stored, or 224 for photographs, if not given.
        val_fraction: share of the training images held out to choose best.ckpt and to tune on.
        skip_bad: leave out images that cannot be read (they are named) instead of stopping.
    """

    augment: Augment = "auto"
    size: int | None = None
    val_fraction: float | None = None
    skip_bad: bool = False

    def __post_init__(self) -> None:
        check_at_least(4, size=self.size)
        check_fraction("[0, 1)", val_fraction=self.val_fraction)


@dataclass(frozen=True)
class TeacherOptions:
    """The teacher.

    Attributes:
        teacher: folder of a trained one, or a network's name (rld-distill-models lists them;
            timm:NAME and torchvision:NAME come with their published weights). A bare name without
            weights is trained first and kept in OUT/teacher.
        teacher_checkpoint: weights for a teacher given by name.
        teacher_mean: channel means (three) its images were normalised with, if they differ.
        teacher_std: the deviations likewise.
        teacher_epochs: passes over the images for a teacher trained first.
    """

    teacher: str | None = None
    teacher_checkpoint: str | None = None
    teacher_mean: list[float] | None = None
    teacher_std: list[float] | None = None
    teacher_epochs: int | None = None

    def __post_init__(self) -> None:
        check_at_least(1, teacher_epochs=self.teacher_epochs)
        for name, values in (("mean", self.teacher_mean), ("std", self.teacher_std)):
            if values is not None and len(values) != 3:
                raise ValueError(f"--teacher-{name} must be three numbers, got {values}")


@dataclass(frozen=True)
class RecipeOptions:
    """The recipe.

    Attributes:
        preset: what holds for all that is not given: quick (minutes on two cores), demo, paper
            (CIFAR), imagenet; auto is paper where there is a CUDA device, else quick.
        epochs: passes over the training images.
        batch_size: images per step and device.
        lr: learning rate.
        lr_milestones: when it falls to a tenth: whole epochs, or shares of all epochs below 1.
        momentum: of SGD.
        weight_decay: on all parameters.
        warmup_epochs: epochs over which RLD and DKD are faded in; 0 is none.
    """

    preset: Literal["auto", "quick", "demo", "paper", "imagenet"] = "auto"
    epochs: int | None = None
    batch_size: int | None = None
    lr: float | None = None
    lr_milestones: list[float] | None = None
    momentum: float | None = None
    weight_decay: float | None = None
    warmup_epochs: int | None = None

    def __post_init__(self) -> None:
        check_at_least(1, epochs=self.epochs, batch_size=self.batch_size)
        check_positive(lr=self.lr)
        check_fraction("[0, 1)", momentum=self.momentum)
        check_at_least(0, weight_decay=self.weight_decay, warmup_epochs=self.warmup_epochs)


@dataclass(frozen=True)
class LossOptions:
    """The loss.

    Attributes:
        alpha: weight of sample confidence (rld) or of the true class (dkd).
        beta: weight of masked correlation (rld) or of the other classes (dkd).
        temperature: softens both networks' answers.
        scd_temperature: another one for sample confidence (rld).
        mask: which classes masked correlation leaves out; gt is the paper's ablation (rld).
        logit_std: standardise logits first, with that plug-in's weights (rld, dkd, kd, mlkd).
        ce_weight: weight of cross-entropy with the labels; the method's own if not given.
        loss_options: any option of the method, as --loss-options.KEY VALUE.
    """

    alpha: float | None = None
    beta: float | None = None
    temperature: float | None = None
    scd_temperature: float | None = None
    mask: Literal["ge", "gt"] | None = None
    logit_std: bool | None = None
    ce_weight: float | None = None
    loss_options: dict[str, Any] = field(default_factory=dict)

    def given(self) -> dict[str, object]:
        """Return what was given, by the names that `rld_distill.methods` knows."""
        named = {
            "alpha": self.alpha,
            "beta": self.beta,
            "temperature": self.temperature,
            "scd_temperature": self.scd_temperature,
            "mask": self.mask,
            "standardize": self.logit_std or None,
        }
        own = {name: value for name, value in named.items() if value is not None}
        return {**self.loss_options, **own}


def check_networks(
    student: str | None, teacher: TeacherOptions, *, weights_needed: bool = False
) -> None:
    """Check names and paths of networks as far as is cheap.

    Args:
        student: its name, or None.
        teacher: its options.
        weights_needed: whether a teacher without weights is an error.

    Raises:
        ValueError: an unknown name, or options that do not go together.
        DataError: a missing file or folder.
    """
    for name in (student, teacher.teacher):
        if name is None or ":" in name or name in list_models():
            continue
        if name == teacher.teacher and (Path(name).exists() or "/" in name):
            find_saved(name)
        else:
            raise ValueError(
                f"unknown network {name!r}{nearest(name, list_models())} "
                "(rld-distill-models lists them; others are timm:NAME, torchvision:NAME)"
            )
    weights = teacher.teacher_checkpoint
    if weights is not None:
        if teacher.teacher is None or Path(teacher.teacher).is_dir():
            raise ValueError("--teacher-checkpoint needs the network's name as --teacher")
        if not Path(weights).is_file():
            raise DataError(f"{weights}: no such file; give the teacher's weights")
    elif weights_needed and teacher.teacher in list_models():
        raise ValueError(
            f"--teacher {teacher.teacher} has no weights; give the folder of rld-distill-teacher, "
            "or --teacher-checkpoint"
        )
