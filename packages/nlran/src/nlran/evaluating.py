"""What `nlran-eval` does: a trained network judged on scans."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from papercommons.cli import DeviceOptions
from papercommons.errors import DataError
from papercommons.files import is_first_process, prepare_out
from papercommons.report import Result, describe_device

from nlran.data import CTData
from nlran.evaluation import result_rows
from nlran.judgement import LIMITS, class_notes, judge, write_judgement
from nlran.lightning import NLRANModule
from nlran.options import PACKAGE, DataOptions
from nlran.saved import RESEARCH_USE, load_network
from nlran.splits import read_splits
from nlran.tables import read_manifest


def evaluate_network(
    data: str,
    checkpoint: str,
    split: str,
    out: str | None,
    scans: DataOptions,
    batch_size: int,
    specificity: float,
    bootstrap: int,
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
        bootstrap: resamples of patients for the intervals.
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
        split_by="none",
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
    settings |= {"bootstrap": bootstrap, **run.settings()}
    folder = None if out is None else prepare_out(out, settings, overwrite=run.overwrite)
    module = NLRANModule(network, len(classes))
    found = judge(module, ct, places, run=run, specificity=specificity, draws=bootstrap)
    result = Result(
        package=PACKAGE,
        command="nlran-eval",
        title=f"{config['model']} on {data}: {split} split, {len(found.target)} scans",
        rows=result_rows(found.numbers),
        metrics={
            **found.metrics(),
            "scans": len(found.target),
            "left_out": len(ct.skipped),
        },
        settings=settings,
        limits=LIMITS,
        data_hash=ct.data_hash,
        device=describe_device(module.trainer.strategy.root_device),
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
