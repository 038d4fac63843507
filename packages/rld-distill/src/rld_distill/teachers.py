"""Teachers: saved ones, published ones, and one trained on the spot."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from papercommons.checkpoint import load_weights, read_state_dict
from papercommons.cli import RunOptions
from papercommons.errors import DataError
from torch import nn

from rld_distill.data import DistillData
from rld_distill.distill import Outcome, distill
from rld_distill.lightning import RenormalizedTeacher
from rld_distill.options import TeacherOptions
from rld_distill.plans import Plan, make_plan
from rld_distill.presets import resolve
from rld_distill.saved import load_network
from rld_distill.zoo import create_model, input_normalization, list_models, published_classes

log = logging.getLogger("papercommons")


def get_teacher(
    options: TeacherOptions,
    values: dict[str, Any],
    data: DistillData,
    run: RunOptions,
    folder: Path | None,
) -> nn.Module:
    """Return the teacher that the options mean, trained first if it has no weights.

    Args:
        options: the teacher's.
        values: of `resolve_recipe`; gives the name if the user did not.
        data: its images.
        run: options of the command.
        folder: output folder of the command; a teacher trained here goes to its ``teacher``.

    Raises:
        DataError: see `load_teacher`.
    """
    name = values["teacher"]
    if options.teacher_checkpoint is None and name in list_models():
        kept = {key: values[key] for key in ("batch_size", "momentum", "weight_decay")}
        epochs = values["teacher_epochs"]
        log.info("no trained teacher given: training %s for %d epochs first", name, epochs)
        recipe = resolve(
            values["preset"], cuda=False, log_it=False, student=name, epochs=epochs, **kept
        )
        plan = make_plan("ce", recipe, {})
        place = None if folder is None else folder / "teacher"
        network, outcome = train_teacher(plan, data, run=run, out=place)
        if outcome is not None:
            log.info("teacher: test accuracy %.4f", outcome.test["accuracy"])
        return network
    return load_teacher(
        name,
        data,
        checkpoint=options.teacher_checkpoint,
        mean=options.teacher_mean,
        std=options.teacher_std,
    )


def train_teacher(
    plan: Plan, data: DistillData, *, run: RunOptions, out: Path | None
) -> tuple[nn.Module, Outcome | None]:
    """Return a teacher trained on labels alone, and what its training gave.

    A finished one in `out` is taken as it is (outcome None), an unfinished one is gone on with.

    Args:
        plan: its method is ce.
        data: its images.
        run: options of the command.
        out: folder of its run; None keeps nothing.
    """
    if out is not None and (out / "export" / "config.json").is_file():
        return load_network(out)[0], None
    begun = out is not None and (out / "last.ckpt").is_file()
    outcome = distill(plan, data, None, run=replace(run, resume="last" if begun else None), out=out)
    return outcome.module.student, outcome


def load_teacher(
    teacher: str,
    data: DistillData,
    *,
    checkpoint: str | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> nn.Module:
    """Return a teacher that takes images normalised as `data` gives them.

    Args:
        teacher: folder of a saved classifier or run, or a name for `create_model`.
        data: gives the classes, and how images are normalised.
        checkpoint: weights for a name; None takes timm's or torchvision's published ones.
        mean: of each channel, as the teacher's images were normalised; None: as saved with it, as
            published, else as the data's.
        std: likewise.

    Raises:
        DataError: it does not fit the data, or has no weights.
    """
    classes = len(data.classes)
    if Path(teacher).is_dir():
        network, config = load_network(teacher)
        if config["num_classes"] != classes:
            raise DataError(
                f"{teacher}: teacher knows {config['num_classes']} classes, the data have "
                f"{classes}; they must agree"
            )
        if config["classes"] != list(data.classes):
            raise DataError(f"{teacher}: teacher's classes are named or ordered otherwise")
        own = (config["mean"], config["std"])
    else:
        if checkpoint is None and (known := published_classes(teacher)) != classes:
            raise DataError(
                f"{teacher}: its published weights tell {known or 'no'} classes apart, the data "
                f"have {classes}; train it with rld-distill-teacher --network {teacher}, or give "
                "--teacher-checkpoint"
            )
        network = create_model(teacher, classes, pretrained=checkpoint is None)
        if checkpoint is not None:
            weights = read_state_dict(checkpoint, part="student")
            load_weights(network, weights, source=checkpoint)
        own = (None if checkpoint else input_normalization(teacher)) or (data.mean, data.std)
    own_mean, own_std = list(mean or own[0]), list(std or own[1])
    if (own_mean, own_std) == (list(data.mean), list(data.std)):
        return network
    return RenormalizedTeacher(
        network, mean=data.mean, std=data.std, own_mean=own_mean, own_std=own_std
    )
