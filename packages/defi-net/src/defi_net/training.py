"""`defi-net-train`: a network trained, judged on its test split, and saved."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any

from papercommons.cli import FloatRunOptions, leave_process_group
from papercommons.devices import compute_device
from papercommons.errors import DataError, counted
from papercommons.files import is_first_process
from papercommons.metrics.localization import PROTOCOLS
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

from defi_net.calibration import FIXED, ImageThreshold, choose_threshold
from defi_net.data import InpaintingData
from defi_net.evaluation import judge
from defi_net.judgement import Judgement, example_sections, write_judgement
from defi_net.layouts import Sample
from defi_net.lightning import CLAMP, DeFINetModule
from defi_net.localizer import Localizer
from defi_net.model import DeFINet
from defi_net.opening import describe_way, open_data, way_of
from defi_net.options import (
    PACKAGE,
    DataOptions,
    NetworkOptions,
    RecipeOptions,
    SplitOptions,
    ViewOptions,
)
from defi_net.presets import resolve
from defi_net.reading import read_sample
from defi_net.saved import LIMITS

log = logging.getLogger("papercommons")

CURVES = {
    "loss": ("train/loss", "val/loss"),
    "parts of the loss": ("train/mask_loss", "train/edge_loss"),
    "val": ("val/auc", "val/f1", "val/iou", "val/fpr"),
}
MEANS = "Means over each epoch; training photographs are augmented."


def train_network(
    data: str,
    out: str,
    options: DataOptions,
    splits: SplitOptions,
    network: NetworkOptions,
    recipe: RecipeOptions,
    run: FloatRunOptions,
) -> Result | None:
    """Train a network, judge it, write the run's folder, and return the result.

    Of several processes the first judges and writes; the others return None after training.

    Args:
        data: folder or manifest.
        out: folder of the run.
        options: how the data are read.
        splits: how they are divided.
        network: which network.
        recipe: how it is trained.
        run: how to run.

    Raises:
        DataError: the data cannot be used, see `InpaintingData`.
        ValueError: options that do not go together.
    """
    values = resolve(network, recipe, cuda=may_use_cuda(run))
    seed_everything(run.seed)
    model = make_model(network, values)
    found = open_data(
        data,
        options,
        **asdict(splits),
        size=values["size"],
        batch_size=values["batch_size"],
        augment=values["augment"],
        fit=values["fit"],
        seed=run.seed,
        num_workers=run.num_workers,
    )
    if not found.splits["train"]:
        raise DataError(f"{data}: no train split: all rows say val or test")
    for line in describe(found):
        log.info("%s", line)
    monitor, mode = choose_monitor(found)
    module = DeFINetModule(
        model,
        lr=values["lr"],
        mask_weight=recipe.mask_weight,
        edge_weight=recipe.edge_weight,
        bce=recipe.bce,
        edges=recipe.edges,
        schedule=values["schedule"],
        monitor=monitor or "train/loss",
    )
    settings: dict[str, Any] = {"data": data, "out": out, **asdict(options), **asdict(splits)}
    settings |= {**asdict(network), **asdict(recipe), **values, **run.settings()}
    folder = begin_run(settings, run)
    if run.compile:
        model.compile()
    started = time.perf_counter()
    _, history = fit(
        module,
        found,
        epochs=values["epochs"],
        run=replace(run, trainer={**CLAMP, **run.trainer}),
        out=folder,
        monitor=monitor,
        mode=mode,
    )
    seconds = time.perf_counter() - started
    which = load_best(module, folder, history)
    leave_process_group()  # the first process judges; the others need not wait for it
    if not is_first_process():
        return None
    device = compute_device(run)
    way, size = way_of(ViewOptions(), {"fit": values["fit"], "size": values["size"]})
    localizer = Localizer(model, way=way, size=size, device=device, precision=run.precision)
    read = partial(
        read_sample, missing_mask=options.missing_mask, resize_masks=options.resize_masks
    )
    image = FIXED
    split, samples = held_out(found)
    if not run.dry_run:
        image = (
            choose_threshold(
                localizer, found.splits["val"], read=read, rate=recipe.false_alarm_rate
            )
            or FIXED
        )
    result = Result(
        package=PACKAGE,
        command="defi-net-train",
        title=f"{values['backbone']}, {network.neck}, {network.head} on {data}: {which}; "
        f"{split} split, {len(samples):,} photographs",
        metrics={
            "seconds": seconds,
            "epochs": len(history.rows),
            "parameters": sum(p.numel() for p in model.parameters()),
            "photographs": {name: len(samples) for name, samples in found.splits.items()},
            "left_out": len(found.left_out),
        },
        settings=settings,
        limits=LIMITS,
        data_hash=found.data_hash,
        device=describe_device(device),
        notes=[*notes_of(found, split), f"seen as {describe_way(localizer)}"],
    )
    if folder is None:
        return result
    model.cpu().save_pretrained(
        folder / "export",
        made_by=f"defi-net-train, preset {values['preset']}, seed {run.seed}, {which}",
        data_hash=found.data_hash,
        device=describe_device(device),
        size=values["size"],
        fit=values["fit"],
        image_threshold=None if image is FIXED else image._asdict(),
    )
    result.files |= run_files(folder)
    sections = [history_section(history.rows, CURVES, caption=MEANS), split_section(found)]
    model.to(device)
    judge_and_write(localizer, samples, image, result, sections, read, run.seed, folder)
    return result


def judge_and_write(
    localizer: Localizer,
    samples: Sequence[Sample],
    image: ImageThreshold,
    result: Result,
    sections: Sequence[Section],
    read: Any,
    seed: int,
    folder: Any,
) -> None:
    """Judge the held-out photographs, and write the run's report.

    Args:
        localizer: the trained network.
        samples: held out; without any the report has no judgement.
        image: threshold for whole photographs.
        result: gets the numbers.
        sections: of the report, after those of the judgement.
        read: a partial `read_sample`; its keywords draw the examples, too.
        seed: of the resampling.
        folder: of the run.
    """
    if not samples:
        write_report(folder / "report.html", result, sections)
        result.save(folder)
        return
    rows = judge(localizer, samples, score=image.score, seed=seed, read=read)
    judgement = Judgement.of(rows, PROTOCOLS, image, seed=seed)
    result.rows = judgement.table()
    result.metrics = {**result.metrics, **judgement.numbers()}
    result.notes = [*result.notes, *judgement.notes()]
    examples = example_sections(localizer, samples, rows, **read.keywords)
    write_judgement(folder, result, judgement, judgement.sections(*examples, *sections))


def make_model(network: NetworkOptions, values: dict[str, Any]) -> DeFINet:
    """Return a new network.

    Args:
        network: options of the command.
        values: of `defi_net.presets.resolve`.

    Raises:
        ValueError: unknown name, or options that do not go together.
    """
    options = asdict(network) | {"backbone": values["backbone"], "width": values["width"]}
    return DeFINet(**options)


def choose_monitor(data: InpaintingData) -> tuple[str | None, str]:
    """Return what chooses best.ckpt and whether more or less of it is better."""
    if not data.has_val:
        return None, "min"
    forged = any(sample.mask is not None for sample in data.splits["val"])
    return ("val/auc", "max") if forged else ("val/loss", "min")


def held_out(data: InpaintingData) -> tuple[str, list[Sample]]:
    """Return the split that the trained network is judged on: test, or else val."""
    for name in ("test", "val"):
        if data.splits[name]:
            return name, data.splits[name]
    return "no", []


def describe(data: InpaintingData) -> list[str]:
    """Return what there is, a line for each split."""
    lines = []
    for name, samples in data.splits.items():
        authentic = sum(sample.mask is None for sample in samples)
        sources = len({sample.source for sample in samples})
        methods = sorted({sample.method for sample in samples if sample.mask is not None})
        lines.append(
            f"{name}: {len(samples):,} photographs of {counted(sources, 'source')}, "
            f"{authentic:,} of them authentic{': ' * bool(methods)}{', '.join(methods)}"
        )
    return lines


def notes_of(data: InpaintingData, split: str) -> list[str]:
    """Return what must be known beside the numbers.

    Args:
        data: what was trained on.
        split: that was judged: test, val or no.
    """
    lines = [
        f"{pair} SHARE SOURCES ({len(names)}): the numbers flatter"
        for pair, names in data.shared.items()
    ]
    if not data.has_val:
        lines.append(NO_VAL)
    if split == "val":
        lines.append("there is no test split: these numbers are of the val split, which chose")
    return [*lines, *(f"left out: {name}" for name in data.left_out)]


def split_section(data: InpaintingData) -> Section:
    """Return what is in each split."""
    rows = [
        {"split": name}
        | {method: sum(sample.method == method for sample in samples) for method in _methods(data)}
        | {"photographs": len(samples), "sources": len({sample.source for sample in samples})}
        for name, samples in data.splits.items()
    ]
    return Section("Photographs", rows=rows)


def _methods(data: InpaintingData) -> list[str]:
    return sorted({sample.method for samples in data.splits.values() for sample in samples})
