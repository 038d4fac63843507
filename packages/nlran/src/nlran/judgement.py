"""What a network says about one split: its numbers, the lines beside them, and the files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from papercommons.cli import DeviceOptions
from papercommons.files import write_csv
from papercommons.report import Result, Section, write_report
from papercommons.training import gather_predictions
from torch import Tensor

from nlran.data import CTData
from nlran.evaluation import (
    classification_report,
    confusion_rows,
    per_class_rows,
    report_sections,
)
from nlran.lightning import NLRANModule
from nlran.saved import RESEARCH_USE

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


def judge(
    module: NLRANModule,
    data: CTData,
    places: Sequence[int],
    *,
    run: DeviceOptions,
    specificity: float = 0.95,
    draws: int = 1000,
) -> Judgement:
    """Return what the module says about some scans.

    Args:
        module: with the network.
        data: how scans are read.
        places: numbers of scans.
        run: options of the command.
        specificity: at which sensitivity is read off.
        draws: resamples of patients for the intervals.
    """
    predictions = gather_predictions(module, data.loader(places), run=run)
    indices = torch.cat([p.indices for p in predictions])
    order = indices.argsort()
    indices = indices[order]
    probabilities = torch.cat([p.logits for p in predictions])[order].softmax(1)
    known = [data.scans.scans[place] for place in indices.tolist()]
    target = torch.tensor([scan.label for scan in known])
    numbers, notes = classification_report(
        probabilities,
        target,
        [scan.patient for scan in known],
        data.classes,
        draws=draws,
        seed=run.seed,
    )
    rows = per_class_rows(probabilities, target, data.classes, specificity=specificity)
    table = confusion_rows(probabilities.argmax(1), target, data.classes)
    return Judgement(indices, probabilities, target, numbers, notes, rows, table)


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
        taken = ", ".join(f"{counts[f'predicted_{name}']} {name}" for name in classes)
        line = f"{row['class']}: {row['scans']} scans, taken for {taken}"
        if row["sensitivity"] is not None:
            line += (
                f"; sensitivity {row['sensitivity']:.3f} at {row['specificity']:.0%} "
                "specificity (a point of the ROC curve of these scans, not a threshold)"
            )
        lines.append(line)
    return lines


def write_judgement(
    folder: Path, result: Result, found: Judgement, data: CTData, sections: Sequence[Section]
) -> None:
    """Write items.csv, confusion.csv, report.html and result.json.

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
            {"scan": scan.path, "patient": scan.patient, "label": data.classes[target]}
            | {"prediction": data.classes[int(probabilities.argmax())]}
            | {
                f"p({name})": f"{float(p):.6f}"
                for name, p in zip(data.classes, probabilities, strict=True)
            }
            | {"use": RESEARCH_USE}
        )
    write_csv(folder / "items.csv", rows)
    write_csv(folder / "confusion.csv", found.confusion)
    result.files |= {"items": str(folder / "items.csv"), "confusion": str(folder / "confusion.csv")}
    write_report(folder / "report.html", result, sections)
    result.save(folder)
