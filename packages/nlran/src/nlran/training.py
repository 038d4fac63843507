"""Training a network: what `nlran-train` does once its options stand."""

from __future__ import annotations

import logging
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import Callback, EarlyStopping
from papercommons.cli import RunOptions
from papercommons.errors import DataError
from papercommons.files import is_first_process
from papercommons.report import Result, Section, describe_device
from papercommons.training import (
    begin_run,
    fit,
    history_section,
    judging_options,
    load_best,
    may_use_cuda,
    run_files,
    seed_everything,
)

from nlran.data import CTData
from nlran.evaluation import LABELS, result_rows
from nlran.judgement import (
    LIMITS,
    class_notes,
    judge,
    write_judgement,
)
from nlran.lightning import NLRANModule
from nlran.networks import VARIED, check_grid
from nlran.options import (
    PACKAGE,
    DataOptions,
    NetworkOptions,
    PreparationOptions,
    RecipeOptions,
    SplitOptions,
)
from nlran.presets import resolve
from nlran.saved import RESEARCH_USE, save_network
from nlran.scans import ScanSet
from nlran.splits import read_splits, split_scans, write_splits

log = logging.getLogger("papercommons")

ON_ITS_OWN_SCANS = (
    "NO SCANS WERE HELD OUT (--split-by none): these numbers are of the training scans themselves "
    "and say nothing about new patients."
)


def train_network(
    data: str,
    found: ScanSet,
    out: str,
    scans: DataOptions,
    preparation: PreparationOptions,
    splitting: SplitOptions,
    network: NetworkOptions,
    recipe: RecipeOptions,
    run: RunOptions,
) -> Result:
    """Train a network, judge it, write the run's folder, and return the result.

    Args:
        data: where the user said the scans are.
        found: the scans.
        out: folder of the run.
        scans: how they are read.
        preparation: what the network sees.
        splitting: how scans are divided.
        network: which network.
        recipe: how to train.
        run: how to run.

    Raises:
        DataError: the scans cannot be used, see `CTData`; or they changed since the run began.
    """
    given = {**asdict(recipe), "size": preparation.size, "variant": network.variant}
    values = resolve(recipe.preset, given, network=network.network, cuda=may_use_cuda(run))
    chosen_scans = found if scans.limit is None else found.limit(scans.limit)
    split_scans(
        chosen_scans,
        by=splitting.split_by,
        val_fraction=splitting.val_fraction,
        test_fraction=splitting.test_fraction,
        seed=run.seed,
    )
    seed_everything(run.seed)
    cache = recipe.cache if recipe.cache is not None or run.dry_run else f"{out}/cache"
    ct = CTData(
        found,
        **asdict(scans),
        **(asdict(preparation) | {"size": values["size"]}),
        **asdict(splitting),
        batch_size=values["batch_size"],
        seed=run.seed,
        augment=recipe.augment,
        flip=recipe.flip,
        num_workers=run.num_workers,
        cache=None if cache == "none" else cache,
    )
    describe(ct)
    module = _create_module(ct, values, network, recipe)
    check_grid(module.network, values["size"], values["batch_size"], len(ct.splits["train"]))
    settings: dict[str, Any] = {"data": data, "out": out, **asdict(scans)}
    settings |= {**asdict(preparation), **asdict(splitting), **asdict(network), **asdict(recipe)}
    settings |= {**values, **run.settings()}
    folder = begin_run(settings, run)
    if run.compile:
        module.network.compile()
    if folder is not None:
        _keep_splits(folder / "splits.csv", ct, resumed=run.resume is not None)
    monitor, mode = choose_monitor(ct)
    stop: list[Callback] = []
    if monitor is not None and values["patience"]:
        stop = [EarlyStopping(monitor, mode=mode, patience=values["patience"])]
    parameters = sum(p.numel() for p in module.network.parameters())
    log.info("training %s, %s parameters", network.network, f"{parameters:,}")
    started = time.perf_counter()
    trainer, history = fit(
        module,
        ct,
        epochs=values["epochs"],
        run=run,
        out=folder,
        monitor=monitor,
        mode=mode,
        callbacks=stop,
    )
    seconds = time.perf_counter() - started
    device = describe_device(trainer.strategy.root_device)
    split = next(name for name in ("test", "val", "train") if ct.splits[name])
    evaluating = judging_options(run)
    last = judge(module, ct, ct.splits[split], run=evaluating)
    which = load_best(module, folder, history)
    chosen = last
    if folder is not None and "best" in run_files(folder):
        chosen = judge(module, ct, ct.splits[split], run=evaluating)
    rows = result_rows(chosen.numbers)
    if chosen is not last:
        for row, name in zip(rows, LABELS, strict=True):
            row["last epoch"] = last.numbers[name]
    result = Result(
        package=PACKAGE,
        command="nlran-train",
        title=f"{network.network} on {data}: {which}, {split} split, {len(chosen.target)} scans",
        rows=rows,
        metrics={
            **chosen.metrics(),
            **{f"last_{name}": value for name, value in last.numbers.items()},
            "seconds": seconds,
            "epochs": len(history.rows),
            "parameters": parameters,
            "scans": {name: len(places) for name, places in ct.splits.items()},
            "left_out": len(ct.skipped),
        },
        settings={**settings, "classes": list(ct.classes), "units": ct.units},
        limits=LIMITS,
        data_hash=ct.data_hash,
        device=device,
        notes=[
            *notes_of(ct, splitting, split),
            *chosen.notes,
            *class_notes(chosen, ct.classes),
        ],
    )
    if folder is None or not is_first_process():
        return result
    varied = {"variant": values["variant"]} if network.network in VARIED else {}
    save_network(
        module.network,
        folder / "export",
        model=network.network,
        options=varied | network.arguments(),
        classes=ct.classes,
        preparation=ct.preparation,
        data_hash=ct.data_hash,
        device=device,
        made_by=f"nlran-train, seed {run.seed}, {which}; {_training_words(ct, splitting)}",
    )
    result.files |= run_files(folder)
    sections = [
        history_section(
            history.rows,
            {
                "loss": ("train/loss", "val/loss"),
                "accuracy": ("train/accuracy", "val/accuracy"),
                "macro AUC and F1": ("val/auc", "val/f1"),
            },
            caption="Means over each epoch; training scans are augmented.",
        ),
        *chosen.sections(),
        _split_section(ct),
    ]
    write_judgement(folder, result, chosen, ct, sections)
    return result


def _create_module(
    ct: CTData, values: dict[str, Any], network: NetworkOptions, recipe: RecipeOptions
) -> NLRANModule:
    weights = None
    if recipe.class_weights == "balanced":
        counts = ct.target_counts().float()
        weights = (counts.sum() / (len(counts) * counts)).tolist()
    extra = {"pretrained": True} if network.pretrained else {}
    return NLRANModule(
        network.network,
        len(ct.classes),
        variant=values["variant"],
        network_options=network.arguments() | extra,
        lr=values["lr"],
        weight_decay=values["weight_decay"],
        optimizer=values["optimizer"],
        warmup=values["warmup"],
        label_smoothing=values["label_smoothing"],
        class_weights=weights,
    )


def _keep_splits(path: Path, ct: CTData, *, resumed: bool) -> None:
    """Write splits.csv; a resumed run must have the one it began with."""
    if not is_first_process():
        return
    if resumed and path.is_file():
        begun = read_splits(path, ct.scans)
        count = len(path.read_text(encoding="utf-8").splitlines()) - 1
        if begun != ct.splits or count != len(ct.scans):
            raise DataError(
                f"{path}: cannot resume: the scans or their division changed since the run began; "
                "restore them, or start again with --overwrite"
            )
        return
    write_splits(path, ct.scans, ct.splits)


def _training_words(ct: CTData, splitting: SplitOptions) -> str:
    counts = zip(ct.classes, ct.target_counts().tolist(), strict=True)
    shown = ", ".join(f"{count} {name}" for name, count in counts)
    held_out = f"{len(ct.splits['test'])} test scans" if ct.splits["test"] else "NO TEST SCANS"
    return f"trained on {shown}, split by {splitting.split_by}, {held_out}"


def notes_of(ct: CTData, splitting: SplitOptions, split: str) -> list[str]:
    """Return what must be known beside the numbers."""
    lines = [RESEARCH_USE]
    if splitting.split_by == "none":
        lines.append(ON_ITS_OWN_SCANS)
    elif split != "test":
        lines.append(f"there is no test split: these numbers are of the {split} split")
    if splitting.split_by == "scan":
        lines.append("SPLIT BY SCAN: patients may be in training and test; the numbers flatter")
    return [
        *lines,
        *ct.split_notes,
        *ct.scans.notes,
        *(f"left out: {path} ({why})" for path, why in ct.skipped),
    ]


def describe(data: CTData) -> None:
    """Log what was found: layout, classes, splits, units, and what was left out."""
    sizes = ", ".join(f"{len(places)} {name}" for name, places in data.splits.items())
    log.info("%s: %s", data.scans.root, data.scans.layout)
    log.info("%s scans; classes %s; %s", sizes, ", ".join(data.classes), data.units)
    for note in data.scans.notes:
        log.warning("%s", note)
    for path, why in data.skipped:
        log.warning("left out: %s: %s", path, why)
    if not data.splits["test"] and not data.splits["val"]:
        log.warning("%s", ON_ITS_OWN_SCANS)


def choose_monitor(data: CTData) -> tuple[str | None, str]:
    """Return what chooses best.ckpt: macro AUC, or the loss where the val split lacks a class."""
    if not data.has_val:
        return None, "max"
    labels = {data.scans.scans[place].label for place in data.splits["val"]}
    return ("val/auc", "max") if len(labels) == len(data.classes) else ("val/loss", "min")


def _split_section(data: CTData) -> Section:
    rows = []
    for name, places in data.splits.items():
        scans = [data.scans.scans[place] for place in places]
        patients = len({scan.patient for scan in scans})
        counts = {
            c: sum(scan.label == number for scan in scans) for number, c in enumerate(data.classes)
        }
        rows.append({"split": name, "scans": len(scans), "patients": patients, **counts})
    known = (
        ""
        if data.scans.patients_known
        else ("No patient ids were found: every scan counts as a patient of its own. ")
    )
    return Section("Scans", text=f"{known}splits.csv lists every scan.", rows=rows)
