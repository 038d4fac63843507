"""From options to a plan: what is trained and how, in plain types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from papercommons.cli import RunOptions
from papercommons.training import may_use_cuda

from rld_distill.methods import complete_options, create_recipe
from rld_distill.options import DataOptions, RecipeOptions
from rld_distill.presets import resolve

OF_THE_STUDENT = ("student", "teacher", "teacher_epochs", "warmup_epochs", "loss_options")


@dataclass(frozen=True)
class Plan:
    """What to train and how; plain types.

    Attributes:
        student: name for `create_model`.
        method: see `RLDModule`.
        loss_options: of the method.
        ce_weight: None: the method's.
        epochs: passes over the training images.
        warmup_epochs: of the distillation term.
        lr: of SGD.
        momentum: of SGD.
        weight_decay: of SGD.
        milestones: epochs after which lr falls to a tenth.
        pretrained: whether the student begins with published weights.
    """

    student: str
    method: str
    loss_options: Mapping[str, Any]
    ce_weight: float | None
    epochs: int
    warmup_epochs: int
    lr: float
    momentum: float
    weight_decay: float
    milestones: tuple[int, ...]
    pretrained: bool = False


def resolve_recipe(
    recipe: RecipeOptions, images: DataOptions, run: RunOptions, **given: Any
) -> dict[str, Any]:
    """Return every number of the recipe, and say it in one log line.

    Args:
        recipe: its options.
        images: gives val_fraction.
        run: says whether a CUDA device may be used.
        **given: further entries of the preset (teacher, student, ...); None means not given.

    Raises:
        ValueError: see `resolve`.
    """
    options = asdict(recipe) | {"val_fraction": images.val_fraction} | given
    return resolve(options.pop("preset"), cuda=may_use_cuda(run), **options)


def make_plan(
    method: str, values: dict[str, Any], given: dict[str, Any], ce_weight: float | None = None
) -> Plan:
    """Return the plan for a student.

    Args:
        method: its name.
        values: of `resolve_recipe`.
        given: options of the loss that the user gave; the preset may hold others.
        ce_weight: None: the method's.

    Raises:
        ValueError: the method has no such option, or it is out of range.
    """
    recipe = values.get("loss_options", {}).get(method, {})
    options = complete_options(method, recipe | given)
    create_recipe(method, **options)  # numbers out of range are refused before anything trains
    return Plan(
        student=values["student"],
        method=method,
        loss_options=options,
        ce_weight=ce_weight,
        epochs=values["epochs"],
        warmup_epochs=values["warmup_epochs"],
        lr=values["lr"],
        momentum=values["momentum"],
        weight_decay=values["weight_decay"],
        milestones=tuple(values["lr_milestones"]),
    )
