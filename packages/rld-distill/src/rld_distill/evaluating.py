"""What `rld-distill-eval` does: a saved classifier judged on one split."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from papercommons.cli import DeviceOptions
from papercommons.errors import DataError
from papercommons.files import is_first_process, prepare_out, write_csv
from papercommons.report import Result, describe_device, write_report
from torch import Tensor

from rld_distill.data import open_data
from rld_distill.distill import judge
from rld_distill.evaluation import LIMITS, report_sections, result_rows
from rld_distill.lightning import RLDModule
from rld_distill.options import PACKAGE, DataOptions
from rld_distill.saved import load_network
from rld_distill.sources import ImageSet, Pictures
from rld_distill.teachers import load_teacher


def evaluate_classifier(
    data: str,
    checkpoint: str,
    split: str,
    teacher: str | None,
    out: str | None,
    batch_size: int,
    val_fraction: float,
    skip_bad: bool,
    bootstrap: int,
    run: DeviceOptions,
) -> Result:
    """Judge a saved classifier on a split, and return the result.

    Args:
        data: see `rld_distill.sources.parse_data`.
        checkpoint: folder of a run, or of a saved classifier.
        split: train, val, test or all.
        teacher: folder of its teacher, or None.
        out: folder for items.csv and the report; None writes nothing.
        batch_size: images at once.
        val_fraction: as in training.
        skip_bad: leave out images that cannot be read.
        bootstrap: resamples of images for the interval.
        run: where and how to compute.

    Raises:
        DataError: images, classifier and teacher cannot be used, or do not fit; an empty split.
    """
    network, config = load_network(checkpoint)
    images = DataOptions(size=config["size"], augment="none", skip_bad=skip_bad)
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
    chosen = read.splits.part(split)
    if len(chosen) == 0:
        raise DataError(f"{data}: its {split} split is empty; choose another --split")
    (logits, teacher_logits), numbers = judge(module, read, chosen, run=run, draws=bootstrap)
    settings = {
        "data": data,
        "checkpoint": checkpoint,
        "split": split,
        "teacher": teacher,
        "out": out,
        "batch_size": batch_size,
        "val_fraction": val_fraction,
        "bootstrap": bootstrap,
        **run.settings(),
    }
    result = Result(
        package=PACKAGE,
        command="rld-distill-eval",
        title=f"{config['model']} from {checkpoint} on {data}",
        rows=result_rows({f"{split}, {len(chosen):,} images": numbers}),
        metrics=numbers | {"images": len(chosen), "left_out": len(read.skipped)},
        settings=settings,
        limits=LIMITS,
        data_hash=read.data_hash,
        device=describe_device(module.trainer.strategy.root_device),
    )
    if out is not None and is_first_process():
        folder = prepare_out(out, settings, overwrite=run.overwrite)
        write_csv(folder / "items.csv", item_rows(logits, chosen, read.classes))
        result.files["items"] = str(folder / "items.csv")
        sections = report_sections(
            logits, chosen.labels, read.classes, Pictures(chosen), teacher_logits
        )
        write_report(folder / "report.html", result, sections)
        result.save(folder)
    return result


def item_rows(logits: Tensor, images: ImageSet, classes: Sequence[str]) -> list[dict[str, Any]]:
    """Return one row per image: its class, the one named, and the probability of that.

    Args:
        logits: float, shape (N, C).
        images: the same N images.
        classes: C names.
    """
    confidence, answer = logits.float().softmax(1).max(1)
    found = zip(images.names, images.labels, answer, confidence, strict=True)
    return [
        {
            "path": name,
            "label": classes[int(label)],
            "prediction": classes[int(named)],
            "probability": float(probability),
        }
        for name, label, named, probability in found
    ]
