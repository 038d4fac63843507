"""`semforge-train`: a network trained, calibrated on val, judged on its test split, and saved."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import torch
from papercommons.cli import FloatRunOptions, leave_process_group
from papercommons.devices import compute_device
from papercommons.files import is_first_process, write_csv
from papercommons.report import Result, Section, describe_device, write_report
from papercommons.training import (
    NO_VAL,
    begin_run,
    fit,
    history_section,
    load_best,
    may_use_cuda,
    run_files,
    seed_everything,
)

from semforge.calibration import calibrate
from semforge.data import FaceForgeryData
from semforge.evaluating import judge, notes_of, read_faces, read_facts, write_judgement
from semforge.graph import LabelGraph, as_graph
from semforge.inspector import Inspector
from semforge.lightning import SemForgeModule
from semforge.options import (
    PACKAGE,
    CropOptions,
    DataOptions,
    LossOptions,
    NetworkOptions,
    RecipeOptions,
)
from semforge.pictures import errors_sections, judgement_sections, lambda_section
from semforge.presets import resolve
from semforge.saved import LIMITS, save_network

log = logging.getLogger("papercommons")

CURVES = {
    "loss": ("train/loss", "val/loss"),
    "losses of the levels": ("train/loss_root", "train/loss_global", "train/loss_local"),
    "AUC of fake on val": ("val/auc",),
}
MEANS = "Means over each epoch; training faces are corrupted, and losses weighted, as asked for."


def train_network(
    data: str,
    val: str | None,
    test: str | None,
    out: str,
    options: DataOptions,
    crop: CropOptions,
    network: NetworkOptions,
    recipe: RecipeOptions,
    losses: LossOptions,
    run: FloatRunOptions,
) -> Result | None:
    """Train a network, judge it, write the run's folder, and return the result.

    Of several processes the first judges and writes; the others return None after training.

    Args:
        data: list, CSV or folder of a published set.
        val: another one for validation.
        test: another one for testing.
        out: folder of the run.
        options: how the data are read.
        crop: how faces are cut.
        network: which network.
        recipe: how it is trained.
        losses: which losses, and how they are weighed.
        run: how to run.

    Raises:
        DataError: the data cannot be used, see `FaceForgeryData`.
        ValueError: options that do not go together.
    """
    values = resolve(network, recipe, cuda=may_use_cuda(run))
    seed_everything(run.seed)
    graph = open_graph(network)
    module = make_module(graph, network, recipe, losses, values)
    found = FaceForgeryData(
        data,
        val=val,
        test=test,
        graph=graph,
        layout=options.layout,
        root=options.root,
        size=module.net.image_size,
        crop=crop.crop,
        detector=crop.detector,
        boxes=crop.boxes,
        cache=None if run.dry_run or crop.crop == "none" else str(Path(out) / "cache"),
        n_frames=options.n_frames,
        batch_size=values["batch_size"],
        augment=recipe.aug_prob,
        self_blend=recipe.self_blend,
        meta=meta_split(losses, recipe, val),
        val_fraction=recipe.val_fraction,
        seed=run.seed,
        num_workers=run.num_workers,
        skip_bad=options.skip_bad,
        allow_leak=options.allow_leak,
    )
    for line in describe(found):
        log.info("%s", line)
    settings: dict[str, Any] = {"data": data, "val": val, "test": test, "out": out}
    for group in (options, crop, network, recipe, losses):
        settings |= asdict(group)
    settings |= {**values, **run.settings()}
    folder = begin_run(settings, run)
    if run.compile:
        module.net.scorer.compile()
    started = time.perf_counter()
    monitor, mode = choose_monitor(found)
    _, history = fit(
        module,
        found,
        epochs=values["epochs"],
        run=run,
        out=folder,
        monitor=monitor,
        mode=mode,
    )
    seconds = time.perf_counter() - started
    which = load_best(module, folder, history)
    leave_process_group()  # the first process judges; the others need not wait for it
    if not is_first_process():
        return None
    net = module.net
    device = compute_device(run)
    split = "test" if len(found.splits["test"]) else "val" if found.has_val else "no"
    result = Result(
        package=PACKAGE,
        command="semforge-train",
        title=f"{values['backbone']}, {network.head} over {graph.name} on {data}: {which}; "
        f"{split} split",
        metrics={
            "seconds": seconds,
            "epochs": len(history.rows),
            "parameters": sum(p.numel() for p in net.parameters()),
            "splits": {name: len(faces) for name, faces in found.splits.items()},
            "left_out": len(found.left_out),
        },
        settings=settings,
        limits=LIMITS,
        data_hash=found.data_hash,
        device=describe_device(device),
        notes=[
            *([] if found.has_val else [NO_VAL]),
            *(["there is no test split: these numbers are of val, which chose"] * (split == "val")),
            *notes_of(found),
        ],
    )
    if folder is None:
        return result
    inspector = open_trained(net, device, run, found)
    save_network(
        net,
        folder / "export",
        crop=remembered_crop(found, crop, data),
        calibration=None if inspector.calibration is None else inspector.calibration._asdict(),
        made_by=f"semforge-train, preset {values['preset']}, loss {losses.loss}, weighting "
        f"{losses.weighting}, seed {run.seed}, {which}",
        data_hash=found.data_hash,
        device=describe_device(device),
    )
    result.files |= run_files(folder)
    sections = [history_section(history.rows, CURVES, caption=MEANS)]
    if losses.weighting == "autol":
        write_csv(folder / "lambda.csv", lambda_rows(history.rows))
        result.files["lambda"] = str(folder / "lambda.csv")
        sections.append(lambda_section(history.rows))
    sections.append(data_section(found))
    if split == "no":
        write_report(folder / "report.html", result, sections)
        result.save(folder)
        return result
    judgement = judge(inspector, found, split, seed=run.seed)
    result.rows = judgement.table()
    result.metrics = {**result.metrics, **judgement.numbers()}
    result.notes = [*judgement.notes(), *result.notes]
    pictures = read_faces(found, split, judgement)
    sections = [
        *judgement_sections(judgement, inspector.calibration),
        *errors_sections(judgement, pictures),
        *sections,
    ]
    write_judgement(folder, result, judgement, sections)
    return result


def open_graph(network: NetworkOptions) -> LabelGraph:
    """Return the label graph that the options mean."""
    if network.strict_root:
        named = {"ffsc": LabelGraph.ffsc, "ffpp": LabelGraph.ffpp}[network.graph]
        return named(strict_root=True)
    return as_graph(network.graph)


def meta_split(
    losses: LossOptions, recipe: RecipeOptions, val: str | None
) -> Literal["val", "train"] | None:
    """Return where the weights of the levels are judged; None where they stay equal.

    Args:
        losses: as given.
        recipe: a share for val makes one.
        val: the data for validation.
    """
    if losses.weighting == "equal" or losses.meta_split is not None:
        return losses.meta_split
    return "val" if val is not None or recipe.val_fraction > 0 else "train"


def make_module(
    graph: LabelGraph,
    network: NetworkOptions,
    recipe: RecipeOptions,
    losses: LossOptions,
    values: Mapping[str, Any],
) -> SemForgeModule:
    """Return the untrained module.

    Args:
        graph: of the labels.
        network: which network.
        recipe: how it is trained.
        losses: which losses.
        values: of `semforge.presets.resolve`.

    Raises:
        ValueError: an unknown backbone, or options that do not go together.
    """
    given = values["pretrained"]
    pretrained: bool | str = {"published": True, "none": False}.get(given, given)
    return SemForgeModule(
        values["backbone"],
        graph,
        network.head,
        embedding=network.embedding,
        root_prior=values["root_prior"],
        dropout=network.dropout,
        image_size=network.size,
        pretrained=pretrained,
        loss=losses.loss,
        weighting=losses.weighting,
        lambda_lr=losses.lambda_lr,
        lambda_init=losses.lambda_init,
        lambda_min=losses.lambda_min,
        lambda_every=losses.lambda_every,
        lambda_form=losses.lambda_form,
        lr=values["lr"],
        weight_decay=recipe.weight_decay,
        optimizer=recipe.optimizer,
        schedule=recipe.schedule,
        lr_step=recipe.lr_step,
        lr_decay=recipe.lr_decay,
    )


def open_trained(
    net: Any, device: torch.device, run: FloatRunOptions, data: FaceForgeryData
) -> Inspector:
    """Return the trained network on its device, calibrated on val if there is one.

    Args:
        net: the network.
        device: where it computes.
        run: options of the command.
        data: its val split calibrates.
    """
    inspector = Inspector(net.to(device).float().eval(), device, run.precision, None, {})
    if data.has_val:
        scores = inspector.predict(data.loader("val"))
        inspector.calibration = calibrate(scores.log_odds[:, 0], scores.labels[:, 0])
    return inspector


def remembered_crop(data: FaceForgeryData, crop: CropOptions, source: str) -> dict[str, Any]:
    """Return how faces were cut, for config.json; a set of semforge-synth says it itself.

    Args:
        data: knows how it cut them.
        crop: as given.
        source: the training data, where facts.json may lie.
    """
    cut_by = crop.cut_by
    if crop.crop == "none" and cut_by is None:
        made = read_facts(source).get("crop", {})
        if isinstance(made, Mapping) and made.get("crop") == "detect":
            cut_by = made.get("detector")
    return {**data.crop_settings, "cut_by": cut_by if crop.crop == "none" else None}


def choose_monitor(data: FaceForgeryData) -> tuple[str | None, str]:
    """Return what chooses best.ckpt and whether more or less of it is better."""
    if not data.has_val:
        return None, "min"
    root = set(data.splits["val"].labels[:, 0].tolist())
    return ("val/auc", "max") if {0, 1} <= root else ("val/loss", "min")


def lambda_rows(history: Sequence[Mapping[str, float]]) -> list[dict[str, float]]:
    """Return the weights of the levels: one row per epoch."""
    return [
        {"epoch": row["epoch"]}
        | {k.removeprefix("lambda/"): v for k, v in row.items() if k.startswith("lambda/")}
        for row in history
    ]


def describe(data: FaceForgeryData) -> list[str]:
    """Return what there is, a line for each split."""
    lines = []
    for name, faces in data.splits.items():
        if not len(faces):
            continue
        root = faces.labels[:, 0].tolist()
        methods = sorted({m for m, y in zip(faces.methods, root, strict=True) if y == 1})
        videos = len({video for video in faces.videos if video})
        lines.append(
            f"{name}: {len(root):,} faces, {root.count(0):,} of them real"
            f"{f', of {videos:,} videos' if videos else ''}{': ' * bool(methods)}"
            f"{', '.join(methods)}"
        )
    return lines


def data_section(data: FaceForgeryData) -> Section:
    """Return how many faces each split has, by method."""
    names = sorted({method for faces in data.splits.values() for method in faces.methods})
    counts = {split: Counter(faces.methods) for split, faces in data.splits.items()}
    rows = [{"method": name} | {split: of[name] for split, of in counts.items()} for name in names]
    whole = {split: len(faces) for split, faces in data.splits.items()}
    return Section("Faces", rows=[*rows, {"method": "all", **whole}])
