"""Trained classifiers at work: evaluation, prediction, the teacher's logits, a loss on a file."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from papercommons.cli import DeviceOptions
from papercommons.data.images import is_readable
from papercommons.errors import DataError
from papercommons.files import hash_files, is_first_process, prepare_out, write_csv
from papercommons.report import Result, Section, describe_device, image_grid_png, write_report
from papercommons.training import gather_predictions, may_use_cuda, seed_everything

from rld_distill.cache import write_cache
from rld_distill.data import DistillDataset, make_loader
from rld_distill.distill import judge
from rld_distill.evaluation import report_sections
from rld_distill.lightning import RLDModule
from rld_distill.methods import complete_options, create_recipe
from rld_distill.options import ImageOptions, TeacherOptions
from rld_distill.presets import resolve
from rld_distill.runs import LIMITS, PACKAGE, open_data, result_rows
from rld_distill.saved import load_classifier
from rld_distill.sources import ImageSet, Pictures
from rld_distill.teachers import load_teacher

log = logging.getLogger("papercommons")


def cache_teacher(
    data: str,
    options: TeacherOptions,
    out: str,
    images: ImageOptions,
    run: DeviceOptions,
    views: int,
    dtype: str,
    top_k: int | None,
    batch_size: int,
) -> Result:
    """Write the teacher's logits of the training images; see `rld_distill.cli.cache`."""
    seed_everything(run.seed)
    val_fraction = images.val_fraction
    if val_fraction is None:
        val_fraction = resolve("auto", cuda=may_use_cuda(run))["val_fraction"]
    read = open_data(data, images, run, batch_size=batch_size, val_fraction=val_fraction)
    assert options.teacher is not None
    network = load_teacher(options.teacher, read, checkpoint=options.teacher_checkpoint)
    module = RLDModule(network, None, len(read.classes), method="ce")
    train = read.splits.train
    logits = []
    for view in range(views):
        loader = read.loader(train, augment=read.augment, view=view)
        predictions = gather_predictions(module, loader, run=run)
        index = torch.cat([p.indices for p in predictions])
        logits.append(torch.cat([p.logits for p in predictions])[index.argsort()])
    about = {
        "data_hash": read.data_hash,
        "teacher": options.teacher,
        "augment": read.augment,
        "seed": run.seed,
        "image_size": read.image_size,
        "num_classes": len(read.classes),
    }
    size = 0
    if is_first_process():
        write_cache(out, logits, about, dtype=getattr(torch, dtype), top_k=top_k)
        size = Path(out).stat().st_size
    exact = read.augment == "none" and dtype == "float32" and top_k is None
    note = (
        "exact: training with --augment none gives what the live teacher gives"
        if exact
        else f"exact for {views} epochs of training; after that the views come round again"
        if dtype == "float32" and top_k is None
        else "approximate: logits are stored in float16 or only the largest of them"
    )
    return Result(
        package=PACKAGE,
        command="rld-distill-cache",
        title=f"{views} views of {len(train):,} images, {len(read.classes)} classes",
        metrics={"bytes": size, "views": views, "images": len(train)},
        settings={**about, "data": data, "out": out, "dtype": dtype, "top_k": top_k},
        limits=note,
        data_hash=read.data_hash,
        files={"cache": out},
        notes=[note],
    )


def evaluate_classifier(
    data: str,
    checkpoint: str,
    split: str,
    teacher: str | None,
    out: str | None,
    batch_size: int,
    val_fraction: float,
    skip_bad: bool,
    run: DeviceOptions,
) -> Result:
    """Judge a saved classifier; see `rld_distill.cli.evaluate`."""
    network, config = load_classifier(checkpoint)
    images = ImageOptions(image_size=config["image_size"], augment="none", skip_bad=skip_bad)
    read = open_data(data, images, run, batch_size=batch_size, val_fraction=val_fraction)
    if list(read.classes) != config["classes"]:
        raise DataError(
            f"{checkpoint}: knows {config['num_classes']} classes "
            f"({', '.join(config['classes'][:3])}, ...), the data have {len(read.classes)} "
            f"({', '.join(read.classes[:3])}, ...); they must be the same"
        )
    read.mean, read.std = tuple(config["mean"]), tuple(config["std"])
    company = None if teacher is None else load_teacher(teacher, read)
    module = RLDModule(network, company, len(read.classes), method="ce")
    chosen: ImageSet = getattr(read.splits, split)
    if len(chosen) == 0:
        raise DataError(f"{data}: its {split} split is empty; choose another --split")
    (logits, teacher_logits), numbers = judge(module, read, chosen, run=run)
    settings = {
        "data": data,
        "checkpoint": checkpoint,
        "split": split,
        "teacher": teacher,
        "out": out,
        "batch_size": batch_size,
        "val_fraction": val_fraction,
        **run.settings(),
    }
    result = Result(
        package=PACKAGE,
        command="rld-distill-eval",
        title=f"{config['model']} from {checkpoint} on {data}",
        rows=result_rows({f"{split}, {len(chosen):,} images": numbers}),
        metrics=numbers | {"skipped_images": len(read.skipped)},
        settings=settings,
        limits=LIMITS,
        data_hash=read.data_hash,
        device=describe_device(module.trainer.strategy.root_device),
    )
    if out is not None and is_first_process():
        folder = prepare_out(out, settings, overwrite=run.overwrite)
        sections = report_sections(
            logits, chosen.labels, read.classes, Pictures(chosen), teacher_logits
        )
        write_report(folder / "report.html", result, sections)
        result.save(folder)
    return result


def predict_images(
    paths: Sequence[Path],
    checkpoint: str,
    out: str | None,
    batch_size: int,
    skip_bad: bool,
    run: DeviceOptions,
) -> Result:
    """Name the class of each image; see `rld_distill.cli.predict`."""
    network, config = load_classifier(checkpoint)
    bad: list[str] = []
    if skip_bad:
        good = [path for path in paths if is_readable(path)]
        bad = sorted({str(path) for path in paths} - {str(path) for path in good})
        paths = good
        for path in bad:
            log.warning("left out: %s cannot be read", path)
        if not good:
            raise DataError("none of the images can be read")
    images = ImageSet(
        torch.zeros(len(paths), dtype=torch.long), [str(p) for p in paths], root=Path()
    )
    dataset = DistillDataset(
        images,
        augment="none",
        size=config["image_size"],
        mean=config["mean"],
        std=config["std"],
    )
    loader = make_loader(dataset, batch_size=batch_size, num_workers=run.num_workers)
    module = RLDModule(network, None, config["num_classes"], method="ce")
    predictions = gather_predictions(module, loader, run=run)
    order = torch.cat([p.indices for p in predictions]).argsort()
    probabilities = torch.cat([p.logits for p in predictions])[order].softmax(1)
    top = probabilities.topk(min(5, config["num_classes"]))
    names = config["classes"]
    rows = [
        {
            "path": images.names[i],
            "class": names[top.indices[i, 0]],
            "probability": float(top.values[i, 0]),
            "top5": " ".join(
                f"{names[c]}:{p:.3f}"
                for c, p in zip(top.indices[i].tolist(), top.values[i].tolist(), strict=True)
            ),
        }
        for i in range(len(probabilities))
    ]
    settings = {"checkpoint": checkpoint, "out": out, "batch_size": batch_size, **run.settings()}
    result = Result(
        package=PACKAGE,
        command="rld-distill-predict",
        title=f"{config['model']} from {checkpoint}: {len(rows):,} images",
        rows=rows if out is None else rows[:20],
        metrics={"images": len(rows), "skipped_images": len(bad)},
        settings=settings,
        limits="It names one of its classes for any picture, also one that shows none of them; a "
        "probability is calibrated only as far as rld-distill-eval shows.",
        data_hash=hash_files(paths),
        device=describe_device(module.trainer.strategy.root_device),
        notes=[f"{len(bad)} images left out as unreadable: {', '.join(bad[:5])}"] if bad else [],
    )
    if out is not None and is_first_process():
        folder = prepare_out(out, settings, overwrite=run.overwrite)
        write_csv(folder / "predictions.csv", rows)
        result.files["predictions"] = str(folder / "predictions.csv")
        shown = min(24, len(rows))
        pictures = Pictures(images)
        grid = image_grid_png(
            [pictures[i] for i in range(shown)],
            [f"{row['class']}\n{row['probability']:.0%}" for row in rows[:shown]],
        )
        section = Section(
            "Pictures", figure=grid, caption="The first images with the class named for each."
        )
        write_report(folder / "report.html", result, [section])
        result.save(folder)
    return result


def evaluate_loss(file: str, method: str, given: dict[str, Any]) -> Result:
    """Evaluate a loss on logits from a file; see `rld_distill.cli.loss`."""
    try:
        with np.load(file, allow_pickle=False) as arrays:
            found = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    except Exception as error:
        raise DataError(f"{file}: not a readable .npz ({str(error).splitlines()[0]})") from None
    if missing := {"student", "teacher", "target"} - found.keys():
        raise DataError(f"{file}: no array {', '.join(sorted(missing))}; has {sorted(found)}")
    student = found["student"].requires_grad_()
    recipe = create_recipe(method, **given)
    assert recipe.loss is not None
    value = recipe.loss(student, found["teacher"], found["target"])
    value.backward()
    assert student.grad is not None
    metrics = {"loss": value.item(), "gradient_norm": student.grad.norm().item()}
    options = complete_options(method, given)
    return Result(
        package=PACKAGE,
        command="rld-distill-loss",
        title=f"{method} on {file}: {len(student)} samples, {student.shape[1]} classes",
        rows=[metrics],
        metrics=metrics,
        settings={"file": file, "method": method, **options},
        data_hash=hash_files([file]),
    )
