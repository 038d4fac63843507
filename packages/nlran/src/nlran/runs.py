"""Training a network: what `nlran-train` does once its options stand."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping
from papercommons.cli import RunOptions
from papercommons.report import Result, Section, curves_png, describe_device
from papercommons.training import begin_run, fit, may_use_cuda, seed_everything

from nlran.data import CTData
from nlran.evaluation import LABELS, report_sections, result_rows
from nlran.judging import LIMITS, PACKAGE, judge, write_judgement
from nlran.lightning import NLRANModule
from nlran.options import (
    NetworkOptions,
    PreparationOptions,
    ScanOptions,
    SplitOptions,
    TrainingOptions,
)
from nlran.presets import resolve
from nlran.saved import RESEARCH_USE, save_network
from nlran.splits import write_splits

log = logging.getLogger("papercommons")

ON_ITS_OWN_SCANS = (
    "NO SCANS WERE HELD OUT (--split none): these numbers are of the training scans themselves and "
    "say nothing about new patients."
)


def train_network(
    data: str,
    out: str,
    scans: ScanOptions,
    preparation: PreparationOptions,
    splitting: SplitOptions,
    network: NetworkOptions,
    training: TrainingOptions,
    run: RunOptions,
) -> Result:
    """Train a network, judge it, write the run's folder, and return the result.

    Args:
        data: folder or file of scans.
        out: folder of the run.
        scans: which scans.
        preparation: what the network sees.
        splitting: how scans are divided.
        network: which network.
        training: the recipe.
        run: how to run.

    Raises:
        DataError: the scans cannot be used, see `CTData`.
    """
    own = asdict(training)
    flags = {name: own.pop(name) for name in ("class_weights", "augment", "flip", "cache")}
    values = resolve(
        own.pop("preset"),
        cuda=may_use_cuda(run),
        size=preparation.size,
        variant=network.variant,
        **own,
    )
    log.info("preset %s: %s", values["preset"], _words(values))
    settings: dict[str, Any] = {"data": data, "out": out, **asdict(scans), **asdict(preparation)}
    settings |= {**asdict(splitting), **asdict(network), **flags, **values, **run.settings()}
    folder = begin_run(settings, run)
    seed_everything(run.seed)
    cache = training.cache if training.cache is not None or folder is None else f"{out}/cache"
    ct = CTData(
        data,
        **asdict(scans),
        **(asdict(preparation) | {"size": values["size"]}),
        **asdict(splitting),
        batch_size=values["batch_size"],
        seed=run.seed,
        augment=training.augment,
        flip=training.flip,
        num_workers=run.num_workers,
        cache=None if cache == "none" else cache,
    )
    describe(ct)
    options: dict[str, Any] = dict(network.arguments())
    if network.model in ("nlran", "ran3d", "nlresnet3d", "plain3d", "cbam3d"):
        options["variant"] = values["variant"]
    weights = None
    if training.class_weights == "balanced":
        counts = ct.target_counts().float()
        weights = (counts.sum() / (len(counts) * counts)).tolist()
    module = NLRANModule(
        network.model,
        len(ct.classes),
        variant=values["variant"],
        network_options=network.arguments(),
        lr=values["lr"],
        weight_decay=values["weight_decay"],
        optimizer=values["optimizer"],
        warmup=values["warmup"],
        label_smoothing=values["label_smoothing"],
        class_weights=weights,
    )
    if run.compile:
        module.network.compile()
    if folder is not None:
        write_splits(folder / "splits.csv", ct.scans, ct.splits)
    monitor, mode = _monitor(ct)
    stop: list[Callback] = []
    if monitor is not None and values["patience"]:
        stop = [EarlyStopping(monitor, mode=mode, patience=values["patience"])]
    parameters = sum(p.numel() for p in module.network.parameters())
    log.info("training %s, %s parameters", network.model, f"{parameters:,}")
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
    held_out = splitting.split != "none"
    split = next(name for name in ("test", "val", "train") if ct.splits[name])
    evaluating = replace(run, trainer={})
    last = judge(module, ct, ct.splits[split], run=evaluating)
    chosen, which = last, "last epoch"
    if folder is not None and (folder / "best.ckpt").is_file():
        state = torch.load(folder / "best.ckpt", map_location="cpu", weights_only=True)
        module.load_state_dict(state["state_dict"])
        chosen = judge(module, ct, ct.splits[split], run=evaluating)
        which = "best on val"
    rows = result_rows(chosen.numbers)
    if which != "last epoch":
        for row, name in zip(rows, LABELS, strict=True):
            row["last epoch"] = last.numbers[name]
    notes = [RESEARCH_USE, *([] if held_out else [ON_ITS_OWN_SCANS])]
    if held_out and split != "test":
        notes.append(f"there is no test split: these numbers are of the {split} split")
    if splitting.split == "scan":
        notes.append("SPLIT BY SCAN: patients may be in training and test; the numbers flatter")
    notes += [*ct.scans.notes, *chosen.notes]
    notes += [f"left out: {path} ({why})" for path, why in ct.skipped]
    result = Result(
        package=PACKAGE,
        command="nlran-train",
        title=f"{network.model} on {data}: {which}, {split} split, {len(chosen.target)} scans",
        rows=rows,
        metrics={
            **chosen.numbers,
            **{f"last_{name}": value for name, value in last.numbers.items()},
            "seconds": seconds,
            "parameters": parameters,
            "scans": {name: len(places) for name, places in ct.splits.items()},
            "skipped_scans": len(ct.skipped),
        },
        settings={**settings, "classes": list(ct.classes), "units": ct.units},
        limits=LIMITS,
        data_hash=ct.data_hash,
        device=device,
        notes=notes,
    )
    if folder is None:
        return result
    save_network(
        module.network,
        folder / "export",
        model=network.model,
        options=options,
        classes=ct.classes,
        preparation=ct.preparation,
        data_hash=ct.data_hash,
        made_by=f"nlran-train, seed {run.seed}, {len(history.rows)} epochs, {which}",
    )
    result.files |= {"last": str(folder / "last.ckpt"), "export": str(folder / "export")}
    if which != "last epoch":
        result.files["best"] = str(folder / "best.ckpt")
    sections = [
        _history_section(history.rows),
        *report_sections(chosen.probabilities, chosen.target, ct.classes),
        _split_section(ct),
    ]
    write_judgement(folder, result, chosen, ct, sections)
    return result


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


def _monitor(data: CTData) -> tuple[str | None, str]:
    """Return what chooses best.ckpt: macro AUC, or the loss where the val split lacks a class."""
    if not data.has_val:
        return None, "max"
    labels = {data.scans.scans[place].label for place in data.splits["val"]}
    return ("val/auc", "max") if len(labels) == len(data.classes) else ("val/loss", "min")


def _words(values: dict[str, Any]) -> str:
    return ", ".join(f"{k} {v}" for k, v in values.items() if k != "preset")


def _history_section(history: Sequence[dict[str, float]]) -> Section:
    panels: dict[str, dict[str, list[float | None]]] = {}
    for title, names in {
        "loss": ("train/loss", "val/loss"),
        "accuracy": ("train/accuracy", "val/accuracy"),
        "macro AUC and F1": ("val/auc", "val/f1"),
    }.items():
        curves = {n: [row.get(n) for row in history] for n in names if n in history[-1]}
        if curves:
            panels[title] = curves
    return Section(
        "Training",
        figure=curves_png(panels),
        caption="Means over each epoch; training scans are augmented.",
    )


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
