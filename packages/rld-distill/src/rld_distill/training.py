"""What `rld-distill-train` does once its options stand, and how a training run ends."""

from __future__ import annotations

import logging
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from papercommons.cli import RunOptions
from papercommons.errors import counted
from papercommons.files import is_first_process
from papercommons.report import Result, write_report
from papercommons.training import begin_run, history_section, run_files

from rld_distill.data import DistillData, open_data
from rld_distill.distill import Outcome, distill
from rld_distill.evaluation import LIMITS, report_sections, result_rows
from rld_distill.options import (
    PACKAGE,
    DataOptions,
    LossOptions,
    RecipeOptions,
    TeacherOptions,
)
from rld_distill.plans import Plan, make_plan, resolve_recipe
from rld_distill.sources import Pictures
from rld_distill.teachers import get_teacher

log = logging.getLogger("papercommons")

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


def train_student(
    data: str,
    out: str,
    method: str,
    student: str | None,
    pretrained: bool,
    teacher_cache: str | None,
    teacher: TeacherOptions,
    loss: LossOptions,
    recipe: RecipeOptions,
    images: DataOptions,
    run: RunOptions,
) -> Result:
    """Train a student, judge it, write the run's folder, and return the result.

    Args:
        data: see `rld_distill.sources.parse_data`.
        out: folder of the run.
        method: its name.
        student: the network's name; None takes the preset's.
        pretrained: whether it begins with published weights.
        teacher_cache: file of rld-distill-cache, or None.
        teacher: the teacher.
        loss: options of the loss.
        recipe: how to train.
        images: how images are read.
        run: how to run.

    Raises:
        DataError: the images, the teacher or the cache cannot be used, or do not fit.
        ValueError: an option of the loss is out of range.
    """
    values = resolve_recipe(
        recipe,
        images,
        run,
        student=student,
        teacher=teacher.teacher,
        teacher_epochs=teacher.teacher_epochs,
    )
    plan = make_plan(method, values, loss.given(), loss.ce_weight)
    plan = replace(plan, pretrained=pretrained)
    arguments = {"data": data, "out": out, "method": method, "teacher_cache": teacher_cache}
    settings = {
        **arguments,
        "pretrained": pretrained,
        **asdict(teacher),
        **asdict(images),
        **values,
        **run.settings(),
    }
    settings |= {"loss_options": dict(plan.loss_options), "ce_weight": plan.ce_weight}
    folder = begin_run(settings, run)
    read = open_data(
        data,
        images,
        run,
        batch_size=values["batch_size"],
        val_fraction=values["val_fraction"],
        teacher_cache=teacher_cache,
    )
    network = None
    if teacher.teacher is not None or (method != "ce" and teacher_cache is None):
        network = get_teacher(teacher, values, read, run, folder)
    log.info("training %s with %s", plan.student, method)
    outcome = distill(plan, read, network, run=run, out=folder)
    return finish_run("rld-distill-train", plan, read, outcome, settings, folder)


def finish_run(
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
            "epochs": len(outcome.history),
            "parameters": sum(p.numel() for p in outcome.module.student.parameters()),
            "left_out": len(data.skipped),
        },
        settings=settings | {"ce_weight": outcome.module.ce_weight, **dict(plan.loss_options)},
        limits=LIMITS,
        data_hash=data.data_hash,
        device=outcome.device,
        notes=[f"{counted(len(data.skipped), 'image')} left out as unreadable"]
        if data.skipped
        else [],
    )
    if folder is None or not is_first_process():
        return result
    result.files |= run_files(folder)
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
