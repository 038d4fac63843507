"""One run: train a student (or a teacher) and judge its last epoch on the test split."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from papercommons.cli import DeviceOptions, RunOptions
from papercommons.errors import counted
from papercommons.files import is_first_process
from papercommons.report import describe_device
from papercommons.training import (
    fit,
    gather_predictions,
    judging_options,
    load_best,
    seed_everything,
)
from torch import Tensor, nn

from rld_distill.data import DistillData
from rld_distill.evaluation import classification_report
from rld_distill.lightning import RLDModule
from rld_distill.plans import Plan
from rld_distill.saved import save_network
from rld_distill.sources import ImageSet

log = logging.getLogger("papercommons")


@dataclass
class Outcome:
    """What a run gave.

    Attributes:
        module: the trained module, at its last epoch.
        test: `classification_report` of the last epoch on the test split.
        val: the same on the val split, empty without one.
        best: the same on the test split for best.ckpt (chosen on val), empty without one.
        history: one row per epoch.
        seconds: training time.
        device: what it ran on.
        logits: of the test images, shape (N, C).
        teacher_logits: likewise, or None.
    """

    module: RLDModule
    test: dict[str, float]
    val: dict[str, float]
    best: dict[str, float]
    history: list[dict[str, float]]
    seconds: float
    device: str
    logits: Tensor
    teacher_logits: Tensor | None


def distill(
    plan: Plan,
    data: DistillData,
    teacher: nn.Module | None,
    *,
    run: RunOptions,
    out: Path | None = None,
) -> Outcome:
    """Train the planned student and return what it gave.

    Args:
        plan: what to train and how.
        data: its images.
        teacher: takes the same images; None for method ce or cached logits.
        run: options of the command; its seed makes weights, order and augmentation.
        out: folder for checkpoints, metrics.csv and export/; None writes nothing.

    Raises:
        DataError: teacher and data do not fit, or give logits that are not finite.
    """
    seed_everything(run.seed)
    data.seed = run.seed
    module = RLDModule(
        plan.student,
        teacher,
        len(data.classes),
        pretrained=plan.pretrained,
        method=plan.method,
        loss_options=dict(plan.loss_options),
        ce_weight=plan.ce_weight,
        warmup_epochs=plan.warmup_epochs,
        lr=plan.lr,
        momentum=plan.momentum,
        weight_decay=plan.weight_decay,
        milestones=list(plan.milestones),
    )
    if run.compile:
        module.student.compile()
        if teacher is not None:
            teacher.compile()
    started = time.perf_counter()
    monitor = "val/accuracy" if data.has_val else None
    trainer, history = fit(
        module, data, epochs=plan.epochs, run=run, out=out, monitor=monitor, mode="max"
    )
    seconds = time.perf_counter() - started
    device = describe_device(trainer.strategy.root_device)
    evaluating = judging_options(run)
    logits, test = judge(module, data, data.splits.test, run=evaluating)
    val = judge(module, data, data.splits.val, run=evaluating)[1] if data.has_val else {}
    best: dict[str, float] = {}
    if out is not None and not run.dry_run:
        if is_first_process():
            save_network(
                module.student,
                out / "export",
                name=plan.student,
                data=data,
                made_by=f"rld-distill, method {plan.method}, seed {run.seed}, "
                + counted(plan.epochs, "epoch"),
            )
        if (out / "best.ckpt").is_file():
            last = {name: value.clone() for name, value in module.state_dict().items()}
            load_best(module, out, history)
            best = judge(module, data, data.splits.test, run=evaluating)[1]
            module.load_state_dict(last)
    return Outcome(module, test, val, best, history.rows, seconds, device, logits[0], logits[1])


def judge(
    module: RLDModule,
    data: DistillData,
    images: ImageSet,
    *,
    run: DeviceOptions,
    draws: int = 1000,
) -> tuple[tuple[Tensor, Tensor | None], dict[str, float]]:
    """Return the logits (student's, teacher's or None) of a split in order, and its numbers.

    Args:
        module: the student, and its teacher if it has one.
        data: how the images are read.
        images: the split.
        run: options of the command.
        draws: resamples of images for the interval.
    """
    predictions = gather_predictions(module, data.loader(images), run=run)
    index = torch.cat([p.indices for p in predictions])
    logits = torch.cat([p.logits for p in predictions])[index.argsort()]
    teacher = None
    if predictions[0].teacher_logits is not None:
        teacher = torch.cat([p.teacher_logits for p in predictions])[index.argsort()]
    labels = images.labels[index.sort().values]  # all of them, but for a dry run
    return (logits, teacher), classification_report(logits, labels, teacher, draws=draws)
