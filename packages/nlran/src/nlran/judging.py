"""What a network says about scans, and `nlran-eval`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from papercommons.cli import DeviceOptions
from papercommons.errors import DataError
from papercommons.files import is_first_process, prepare_out, write_csv
from papercommons.report import Result, Section, describe_device, write_report
from papercommons.training import gather_predictions, make_trainer
from torch import Tensor

from nlran.data import CTData
from nlran.evaluation import (
    classification_report,
    confusion_rows,
    per_class_rows,
    report_sections,
    result_rows,
)
from nlran.lightning import NLRANModule
from nlran.options import ScanOptions
from nlran.saved import RESEARCH_USE, load_network
from nlran.splits import read_splits
from nlran.tables import read_manifest

PACKAGE = "nlran"
LIMITS = (
    f"{RESEARCH_USE} The numbers hold for scans like those of the split, from the same scanners "
    "and hospitals; nlran-audit looks for shortcuts between data sources and classes. Intervals "
    "resample patients, not trainings: another seed gives another network."
)


@dataclass
class Judgement:
    """What a network says about one split.

    Attributes:
        indices: numbers of the scans in their set, int64, shape (N,).
        probabilities: float32, shape (N, C).
        target: int64, shape (N,).
        numbers: of `classification_report`.
        notes: what is not defined, in words.
        per_class: of `per_class_rows`.
        confusion: of `confusion_rows`.
    """

    indices: Tensor
    probabilities: Tensor
    target: Tensor
    numbers: dict[str, float]
    notes: list[str]
    per_class: list[dict[str, Any]]
    confusion: list[dict[str, Any]]

    def metrics(self) -> dict[str, Any]:
        """Return every number: with intervals, by class, and the confusions."""
        return {**self.numbers, "per_class": self.per_class, "confusion": self.confusion}

    def sections(self) -> list[Section]:
        """Return the parts of a report, see `report_sections`."""
        return report_sections(self.probabilities, self.target, self.per_class)


def evaluate_network(
    data: str,
    checkpoint: str,
    split: str,
    out: str | None,
    scans: ScanOptions,
    batch_size: int,
    specificity: float,
    run: DeviceOptions,
) -> Result:
    """Judge a trained network on scans and return the result.

    Args:
        data: folder or file of scans.
        checkpoint: folder of a run, or of a saved network.
        split: train, val or test as the run divided these scans, or all.
        out: folder for the report; None writes nothing.
        scans: which scans.
        batch_size: scans at once.
        specificity: at which sensitivity is read off.
        run: where and how to compute.

    Raises:
        DataError: classes do not fit, or the run does not know these scans.
    """
    network, config = load_network(checkpoint)
    preparation, classes = config["preparation"], config["classes"]
    own = asdict(preparation)
    units = own.pop("units")
    wanted = asdict(scans) | {"classes": classes, "limit": None}
    ct = CTData(
        data,
        **wanted,
        **own,
        split="none",
        batch_size=batch_size,
        seed=run.seed,
        augment=False,
        num_workers=run.num_workers,
        complete=False,
    )
    if ct.units != units and not scans.mixed_units:
        raise DataError(
            f"{data}: scans are in {ct.units}, the network was trained on {units}; "
            "pass --mixed-units to judge it all the same"
        )
    places = list(range(len(ct.scans)))
    if split != "all":
        table = Path(checkpoint) / "splits.csv"
        if not table.is_file():
            raise DataError(
                f"{table}: no such file, so nothing is known of the {split} split; "
                "pass --split all to judge every scan"
            )
        places = read_splits(table, ct.scans)[split]
        if not places:
            raise DataError(f"{table}: the {split} split is empty; choose another --split")
    places = [
        place
        for label in range(len(classes))
        for place in [p for p in places if ct.scans.scans[p].label == label][: scans.limit]
    ]
    settings: dict[str, Any] = {"data": data, "checkpoint": checkpoint, "split": split, "out": out}
    settings |= {**asdict(scans), "batch_size": batch_size, "specificity": specificity}
    settings |= run.settings()
    folder = None if out is None else prepare_out(out, settings, overwrite=run.overwrite)
    device = describe_device(make_trainer(run).strategy.root_device)
    module = NLRANModule(network, len(classes))
    found = judge(module, ct, places, run=run, specificity=specificity)
    result = Result(
        package=PACKAGE,
        command="nlran-eval",
        title=f"{config['model']} on {data}: {split} split, {len(found.target)} scans",
        rows=result_rows(found.numbers),
        metrics={
            **found.metrics(),
            "scans": len(found.target),
            "skipped_scans": len(ct.skipped),
        },
        settings=settings,
        limits=LIMITS,
        data_hash=ct.data_hash,
        device=device,
        notes=[
            RESEARCH_USE,
            *_seen_in_training(Path(checkpoint) / "splits.csv", ct, places, split),
            *ct.scans.notes,
            *found.notes,
            *class_notes(found, classes),
            *(f"left out: {path} ({why})" for path, why in ct.skipped),
        ],
    )
    if folder is not None and is_first_process():
        write_judgement(folder, result, found, ct, found.sections())
    return result


def _seen_in_training(table: Path, ct: CTData, places: Sequence[int], split: str) -> list[str]:
    """Return a loud line if scans that are judged were trained on, as far as their names tell."""
    if split == "train":
        return ["THESE ARE THE TRAINING SCANS: the numbers say nothing about new patients"]
    if split != "all" or not table.is_file():
        return []
    trained = {row.path for row in read_manifest(table) if row.split == "train"}
    seen = sum(ct.scans.scans[place].path in trained for place in places)
    return [
        f"{seen} OF {len(places)} SCANS ARE NAMED LIKE TRAINING SCANS of this run: the numbers "
        "flatter"
    ] * bool(seen)


def class_notes(found: Judgement, classes: Sequence[str]) -> list[str]:
    """Return a line per class: what it was taken for, and a point of its ROC curve.

    Args:
        found: what the network says.
        classes: names.
    """
    lines = []
    for row, counts in zip(found.per_class, found.confusion, strict=True):
        if row["scans"] == 0:
            continue
        taken = ", ".join(f"{counts[f'says {name}']} {name}" for name in classes)
        line = f"{row['class']}: {row['scans']} scans, taken for {taken}"
        if row["sensitivity"] is not None:
            line += (
                f"; sensitivity {row['sensitivity']:.3f} at {row['at specificity']:.0%} "
                "specificity (a point of the ROC curve of these scans, not a threshold)"
            )
        lines.append(line)
    return lines


def judge(
    module: NLRANModule,
    data: CTData,
    places: Sequence[int],
    *,
    run: DeviceOptions,
    specificity: float = 0.95,
) -> Judgement:
    """Return what the module says about some scans.

    Args:
        module: with the network.
        data: how scans are read.
        places: numbers of scans.
        run: options of the command.
        specificity: at which sensitivity is read off.
    """
    predictions = gather_predictions(module, data.loader(places), run=run)
    indices = torch.cat([p.indices for p in predictions])
    order = indices.argsort()
    indices = indices[order]
    probabilities = torch.cat([p.logits for p in predictions])[order].softmax(1)
    known = [data.scans.scans[place] for place in indices.tolist()]
    target = torch.tensor([scan.label for scan in known])
    numbers, notes = classification_report(
        probabilities, target, [scan.patient for scan in known], data.classes, seed=run.seed
    )
    rows = per_class_rows(probabilities, target, data.classes, specificity=specificity)
    table = confusion_rows(probabilities.argmax(1), target, data.classes)
    return Judgement(indices, probabilities, target, numbers, notes, rows, table)


def write_judgement(
    folder: Path, result: Result, found: Judgement, data: CTData, sections: Sequence[Section]
) -> None:
    """Write predictions.csv, confusion.csv, report.html and result.json.

    Args:
        folder: of the run.
        result: gets the files' names.
        found: what the network says.
        data: gives names of scans and classes.
        sections: of the report.
    """
    rows = []
    for place, probabilities, target in zip(
        found.indices.tolist(), found.probabilities, found.target.tolist(), strict=True
    ):
        scan = data.scans.scans[place]
        rows.append(
            {"scan": scan.path, "patient": scan.patient, "class": data.classes[target]}
            | {"says": data.classes[int(probabilities.argmax())]}
            | {
                f"p({name})": f"{float(p):.6f}"
                for name, p in zip(data.classes, probabilities, strict=True)
            }
            | {"use": RESEARCH_USE}
        )
    write_csv(folder / "predictions.csv", rows)
    write_csv(folder / "confusion.csv", found.confusion)
    result.files |= {"predictions": str(folder / "predictions.csv")}
    write_report(folder / "report.html", result, sections)
    result.save(folder)
