"""What a network says about scans, and `nlran-eval`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from papercommons.cli import DeviceOptions
from papercommons.errors import DataError
from papercommons.files import prepare_out, write_csv
from papercommons.report import Result, Section, describe_device, write_report
from papercommons.training import gather_predictions, make_trainer
from torch import Tensor

from nlran.data import CTData
from nlran.evaluation import classification_report, confusion_rows, report_sections, result_rows
from nlran.lightning import NLRANModule
from nlran.options import ScanOptions
from nlran.saved import RESEARCH_USE, load_network
from nlran.splits import read_splits

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
    """

    indices: Tensor
    probabilities: Tensor
    target: Tensor
    numbers: dict[str, float]
    notes: list[str]


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
    ct = CTData(
        data,
        **(asdict(scans) | {"classes": scans.classes or classes}),
        **own,
        split="none",
        batch_size=batch_size,
        seed=run.seed,
        augment=False,
        num_workers=run.num_workers,
        cache=None,
    )
    if list(ct.classes) != list(classes):
        raise DataError(
            f"{data}: has classes {', '.join(ct.classes)}; the network knows {', '.join(classes)}"
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
    folder = None
    settings: dict[str, Any] = {"data": data, "checkpoint": checkpoint, "split": split, "out": out}
    settings |= {**asdict(scans), "batch_size": batch_size, "specificity": specificity}
    settings |= run.settings()
    if out is not None:
        kept = {name: value for name, value in settings.items() if value is not None}
        folder = prepare_out(out, kept, overwrite=run.overwrite)
    device = describe_device(make_trainer(run).strategy.root_device)
    found = judge(NLRANModule(network, len(classes)), ct, places, run=run)
    result = Result(
        package=PACKAGE,
        command="nlran-eval",
        title=f"{config['model']} on {data}: {split} split, {len(found.target)} scans",
        rows=result_rows(found.numbers),
        metrics={**found.numbers, "scans": len(found.target), "skipped_scans": len(ct.skipped)},
        settings=settings,
        limits=LIMITS,
        data_hash=ct.data_hash,
        device=device,
        notes=[
            RESEARCH_USE,
            *ct.scans.notes,
            *found.notes,
            *(f"left out: {path} ({why})" for path, why in ct.skipped),
        ],
    )
    if folder is not None:
        sections = report_sections(
            found.probabilities, found.target, classes, specificity=specificity
        )
        write_judgement(folder, result, found, ct, sections)
    return result


def judge(
    module: NLRANModule, data: CTData, places: Sequence[int], *, run: DeviceOptions
) -> Judgement:
    """Return what the module says about some scans.

    Args:
        module: with the network.
        data: how scans are read.
        places: numbers of scans.
        run: options of the command.
    """
    predictions = gather_predictions(module, data.loader(places), run=run)
    indices = torch.cat([p.indices for p in predictions])
    order = indices.argsort()
    indices = indices[order]
    probabilities = torch.cat([p.logits for p in predictions])[order].softmax(1)
    known = [data.scans.scans[place] for place in indices.tolist()]
    target = torch.tensor([scan.label for scan in known])
    numbers, notes = classification_report(
        probabilities, target, [scan.patient for scan in known], seed=run.seed
    )
    return Judgement(indices, probabilities, target, numbers, notes)


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
        )
    write_csv(folder / "predictions.csv", rows)
    answer = found.probabilities.argmax(1)
    write_csv(folder / "confusion.csv", confusion_rows(answer, found.target, data.classes))
    result.files |= {"predictions": str(folder / "predictions.csv")}
    write_report(folder / "report.html", result, sections)
    result.save(folder)
