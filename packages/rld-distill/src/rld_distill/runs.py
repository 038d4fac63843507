"""What the training commands share: from options to plan, data and teacher, and to the report."""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

from papercommons.cli import DeviceOptions, RunOptions
from papercommons.files import is_first_process
from papercommons.report import Result, write_report
from papercommons.training import history_section, may_use_cuda
from torch import nn

from rld_distill.data import DistillData
from rld_distill.distill import Outcome, Plan
from rld_distill.evaluation import report_sections
from rld_distill.methods import complete_options, create_recipe
from rld_distill.options import ImageOptions, TeacherOptions, TrainingOptions
from rld_distill.presets import resolve
from rld_distill.sources import Pictures
from rld_distill.teachers import load_teacher, train_teacher
from rld_distill.zoo import list_models

log = logging.getLogger("papercommons")

PACKAGE = "rld-distill"
CURVES = {
    "accuracy": ("train/accuracy", "val/accuracy"),
    "loss": ("train/loss", "train/ce", "train/scd", "train/mcd", "train/distill"),
    "share where the teacher is wrong": ("train/teacher_wrong",),
    "masked classes": ("train/masked",),
}
MEANS = (
    "Means over each epoch. ce, scd and mcd stand without their weights; loss is the weighted, "
    "warmed-up sum."
)
OF_THE_STUDENT = ("student", "teacher", "teacher_epochs", "warmup_epochs", "loss_options")
LIMITS = (
    "Accuracy holds for images like those of the test split. The headline is the last epoch; "
    "best.ckpt is chosen on the val split, never on test. One seed says little: "
    "rld-distill-compare gives mean and spread. The published gains of RLD are on CIFAR-100 and "
    "ImageNet; on other data another method can win."
)


def resolve_training(
    training: TrainingOptions, images: ImageOptions, run: RunOptions, **given: Any
) -> dict[str, Any]:
    """Return every number of the recipe, and say it in one log line.

    Args:
        training: the recipe's options.
        images: gives val_fraction.
        run: says whether a CUDA device may be used.
        **given: further entries of the recipe (teacher, student, ...); None means not given.
    """
    options = asdict(training) | {"val_fraction": images.val_fraction} | given
    values = resolve(options.pop("preset"), cuda=may_use_cuda(run), **options)
    shown = ", ".join(f"{k} {v}" for k, v in values.items() if k not in ("preset", "loss_options"))
    log.info("preset %s: %s", values["preset"], shown)
    return values


def make_plan(
    method: str, values: dict[str, Any], given: dict[str, Any], ce_weight: float | None = None
) -> Plan:
    """Return the plan for a student.

    Args:
        method: its name.
        values: of `resolve_training`.
        given: options of the loss that the user gave; the recipe may hold others.
        ce_weight: None: the method's.
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


def open_data(
    data: str,
    images: ImageOptions,
    run: DeviceOptions,
    *,
    batch_size: int,
    val_fraction: float = 0.0,
    teacher_cache: str | None = None,
) -> DistillData:
    """Return the data and say what they are.

    Args:
        data: the ``--data`` of a command.
        images: how they are read.
        run: gives seed and workers.
        batch_size: images per step and device.
        val_fraction: share held out.
        teacher_cache: file of rld-distill-cache.
    """
    module = DistillData(
        data,
        batch_size=batch_size,
        image_size=images.image_size,
        augment=images.augment,
        val_fraction=val_fraction,
        seed=run.seed,
        num_workers=run.num_workers,
        teacher_cache=teacher_cache,
        skip_bad=images.skip_bad,
    )
    splits = module.splits
    log.info(
        "%s: %d train, %d val, %d test images, %d classes, %d x %d, augmentation %s",
        *(data, len(splits.train), len(splits.val), len(splits.test), len(splits.classes)),
        *(module.image_size, module.image_size, module.augment),
    )
    for path in module.skipped:
        log.warning("left out: %s cannot be read", path)
    if module.skipped:
        log.warning("left out %d images in all", len(module.skipped))
    return module


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
        values: of `resolve_training`; gives the name if the user did not.
        data: its images.
        run: options of the command.
        folder: output folder of the command; a teacher trained here goes to its ``teacher``.
    """
    name = values["teacher"]
    if options.teacher_checkpoint is None and name in list_models():
        kept = {key: values[key] for key in ("batch_size", "momentum", "weight_decay")}
        epochs = values["teacher_epochs"]
        recipe = resolve(values["preset"], cuda=False, student=name, epochs=epochs, **kept)
        plan = make_plan("ce", recipe, {})
        log.info("no trained teacher given: training %s for %d epochs first", name, plan.epochs)
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


def result_rows(columns: dict[str, dict[str, float]]) -> list[dict[str, Any]]:
    """Return a result table: one row per measure, one column per split.

    Args:
        columns: heading -> numbers of `classification_report`.
    """
    labels = {
        "accuracy": "accuracy",
        "accuracy_low": "  95 % from",
        "accuracy_high": "  95 % to",
        "top5": "top-5 accuracy",
        "nll": "negative log-likelihood",
        "ece": "calibration error",
        "teacher_accuracy": "teacher's accuracy",
        "agreement": "agreement with teacher",
        "accuracy_teacher_right": "accuracy where teacher right",
        "accuracy_teacher_wrong": "accuracy where teacher wrong",
    }
    return [
        {"": label} | {heading: numbers.get(key) for heading, numbers in columns.items()}
        for key, label in labels.items()
        if any(key in numbers for numbers in columns.values())
    ]


def finish(
    command: str,
    plan: Plan,
    data: DistillData,
    outcome: Outcome,
    settings: dict[str, Any],
    folder: Path | None,
) -> Result:
    """Return the result of a training command, after writing result.json and report.html.

    Args:
        command: its name.
        plan: what was trained.
        data: on what.
        outcome: what it gave.
        settings: every resolved option.
        folder: output folder; None writes nothing.
    """
    columns = {
        "test, last epoch": outcome.test,
        "test, best on val": outcome.best,
        "val, last epoch": outcome.val,
    }
    result = Result(
        package=PACKAGE,
        command=command,
        title=f"{plan.student} on {settings['data']}, method {plan.method}",
        rows=result_rows({heading: numbers for heading, numbers in columns.items() if numbers}),
        metrics={
            **outcome.test,
            **{f"best_{name}": value for name, value in outcome.best.items()},
            **{f"val_{name}": value for name, value in outcome.val.items()},
            "seconds": outcome.seconds,
            "skipped_images": len(data.skipped),
        },
        settings=settings | {"ce_weight": outcome.module.ce_weight, **dict(plan.loss_options)},
        limits=LIMITS,
        data_hash=data.data_hash,
        device=outcome.device,
        notes=[f"{len(data.skipped)} images left out as unreadable"] if data.skipped else [],
    )
    if folder is None or not is_first_process():
        return result
    result.files |= {"last": str(folder / "last.ckpt"), "export": str(folder / "export")}
    if outcome.best:
        result.files["best"] = str(folder / "best.ckpt")
    hidden = ["train/distill"] if "train/scd" in outcome.history[-1] else []
    if "train/distill" not in outcome.history[-1]:
        hidden.append("train/ce")  # the same as the loss
    curves = {title: [n for n in names if n not in hidden] for title, names in CURVES.items()}
    sections = [history_section(outcome.history, curves, caption=MEANS)]
    sections += report_sections(
        outcome.logits,
        data.splits.test.labels,
        data.classes,
        Pictures(data.splits.test),
        outcome.teacher_logits,
    )
    write_report(folder / "report.html", result, sections)
    result.save(folder)
    return result
