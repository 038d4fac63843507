"""Training a small diffusion model and finding its schedules; `gits-sampling-train`."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from papercommons.cli import RunOptions
from papercommons.files import atomic_path, is_first_process, write_text
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
from papercommons.versions import installed_version
from torch import Tensor

from gits_sampling.data import ImageData
from gits_sampling.features import frechet_distance
from gits_sampling.fit_report import fit_sections, notes_of, row_of
from gits_sampling.fitting import Fitted, fit_budgets, save_schedules
from gits_sampling.lightning import GITSModule
from gits_sampling.loading import load_denoiser
from gits_sampling.opening import batch_of
from gits_sampling.options import (
    PACKAGE,
    DataOptions,
    FormOptions,
    ModelOptions,
    NetworkOptions,
    RecipeOptions,
    SearchOptions,
)
from gits_sampling.presets import epochs_for, resolve
from gits_sampling.sample_pictures import write_grid
from gits_sampling.saved import save_network

log = logging.getLogger("papercommons")

JUDGED = 256  # most images of a Frechet distance
SHOWN = 40

LIMITS = (
    "A small network trained for a short time: its samples show that the method works, not what "
    "diffusion models can do. The Frechet distance is in a fixed random feature space and compares "
    "only with others made here."
)
CARD = """# Diffusion model: {network}, {shape}

A denoiser saved by gits-sampling {version}, with averaged weights. Load it with
`gits_sampling.load_denoiser("FOLDER")`, or sample with
`gits-sampling-sample --model FOLDER --seeds 0-63`.

- Input: x = x0 + sigma noise, float32 (B, {shape}), sigma from {high:g} to {low:g}.
- Output: D(x; sigma), the denoised image in [-1, 1].
- Classes: {classes}.
- Schedule: `schedule.json`, {schedule}.
- Made by: {made_by}
- Trained on images with hash {data_hash}.
- Limits: {limits}
"""


def train_network(
    data: str,
    budgets: Sequence[int],
    solver: str,
    out: str,
    source: DataOptions,
    network: NetworkOptions,
    recipe: RecipeOptions,
    search: SearchOptions,
    run: RunOptions,
) -> Result:
    """Train a network, fit its schedules, write the run's folder, and return the result.

    Args:
        data: see `gits_sampling.data.load_images`.
        budgets: of the schedules; none for none.
        solver: of these.
        out: folder of the run.
        source: how the images are read.
        network: what is trained.
        recipe: how it is trained.
        search: the search for schedules.
        run: how to run.

    Raises:
        ValueError: options that do not go together.
        DataError: the images cannot be used.
    """
    seed_everything(run.seed)
    values = resolve(network, recipe, cuda=may_use_cuda(run))
    images = ImageData(
        data,
        size=source.size,
        grey=source.grey,
        batch_size=values["batch_size"],
        val_fraction=source.val_fraction,
        flip=source.flip,
        seed=run.seed,
        num_workers=run.num_workers,
        skip_bad=source.skip_bad,
    )
    count = len(images.splits["train"])
    values["epochs"] = recipe.epochs or epochs_for(values, count, images.shape[1:])
    module = make_module(
        images, network.network, values["width"], values["lr"], labels=source.labels
    )
    settings: dict[str, Any] = {"data": data, "nfe": ",".join(map(str, budgets)), "solver": solver}
    settings |= {"out": out, **asdict(source), **asdict(network), **asdict(recipe)}
    settings |= {**asdict(search), **values, **run.settings()}
    settings |= {"size": images.shape[1], "labels": bool(module.num_classes)}
    log.info("%s images of %s, %s epochs", f"{count:,}", images.shape, values["epochs"])
    folder = begin_run(settings, run)
    if run.compile:
        module.network.compile()
    started = time.perf_counter()
    _, history = fit(
        module,
        images,
        epochs=values["epochs"],
        run=run,
        out=folder,
        monitor="val/loss" if "val" in images.splits else None,
        mode="min",
    )
    seconds = time.perf_counter() - started
    which = load_best(module, folder, history)
    result = Result(
        package=PACKAGE,
        command="gits-sampling-train",
        title=f"{network.network} on {data}: {which}",
        metrics={
            **losses(history.rows),
            "seconds": seconds,
            "epochs": values["epochs"],
            "images_seen": module.images_seen,
            "parameters": sum(p.numel() for p in module.average.parameters()),
            "left_out": images.left_out,
            "images": {name: len(split) for name, split in images.splits.items()},
        },
        settings=settings,
        limits=LIMITS,
        data_hash=images.data_hash,
        device=describe_device(module.device),
        notes=[] if "val" in images.splits else [NO_VAL],
    )
    if folder is None or not is_first_process():
        return result
    finish(folder, result, module, images, history.rows, budgets, solver, search, run.seed, which)
    return result


def make_module(
    images: ImageData, network: str, width: int, lr: float, *, labels: bool | None = None
) -> GITSModule:
    """Return the module that trains, for these images.

    Args:
        images: give the shape, the classes and the spread of the data.
        network: unet or diffusers.
        width: channels of its first level.
        lr: learning rate.
        labels: train with the classes; where there are several if None.
    """
    if labels is None:
        labels = len(images.classes) > 1
    network_options: dict[str, Any] = {"width": width}
    if network == "diffusers":
        network_options = {"block_out_channels": (width, 2 * width, 2 * width)}
    return GITSModule(
        network,
        images.shape,
        num_classes=len(images.classes) if labels else 0,
        network_options=network_options,
        sigma_data=images.sigma_data(),
        lr=lr,
    )


def losses(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the last training loss, and the least loss on held-out images where there are any."""
    found = {"train/loss": rows[-1]["train/loss"]}
    held_out = [row["val/loss"] for row in rows if "val/loss" in row]
    return found | ({"val/loss": min(held_out)} if held_out else {})


def finish(
    folder: Path,
    result: Result,
    module: GITSModule,
    images: ImageData,
    rows: Sequence[Mapping[str, float]],
    budgets: Sequence[int],
    solver: str,
    search: SearchOptions,
    seed: int,
    which: str,
) -> None:
    """Export the network, judge its samples, fit its schedules, and write the report.

    Args:
        folder: of the run.
        result: gets what is found.
        module: trained.
        images: its data.
        rows: of the history.
        budgets: of the schedules.
        solver: of these.
        search: the search for these.
        seed: of the run.
        which: epoch, in words.
    """
    device = module.device
    module.eval()
    made_by = f"gits-sampling-train, seed {seed}, {which}"
    about = {"made_by": made_by, "data_hash": images.data_hash, "classes": images.classes}
    save_network(module, folder / "export", **about, limits=LIMITS)
    sections = [history_section(rows, {"loss": ("train/loss", "val/loss")})]
    result.metrics = dict(result.metrics) | frechet_distances(module, images)
    if budgets:
        fitted = fit_network(folder, module, budgets, solver, search, result.device, seed)
        result.rows, result.notes = fitted.rows, [*result.notes, *notes_of(fitted, 1)]
        result.metrics["schedules"] = [row_of(s) for s in fitted.schedules.values()]
        result.files["schedules"] = str(folder / "schedules" / f"{solver}-nfe*.json")
        module.schedule = fitted.schedules[max(fitted.schedules)]
        sections += fit_sections(fitted)
        save_network(module, folder / "export", **about, limits=LIMITS)
    write_text(folder / "export" / "README.md", card(module, about))
    result.files |= run_files(folder)
    samples = module.sample(range(SHOWN))
    write_grid(samples, folder / "samples.png", columns=10, least_width=640)
    result.files["samples"] = str(folder / "samples.png")
    caption = f"{SHOWN} samples, {module.schedule.solver}, {module.schedule.nfe} evaluations each"
    picture = (folder / "samples.png").read_bytes()
    sections.insert(0, Section("Samples", figure=picture, caption=caption))
    for name, section in zip(
        ("history", "errors", "schedules", "costs"), sections[1:], strict=False
    ):
        assert section.figure is not None
        with atomic_path(folder / f"{name}.png") as temporary:
            temporary.write_bytes(section.figure)
    module.to(device)
    write_report(folder / "report.html", result, sections)
    result.save(folder)


def fit_network(
    folder: Path,
    module: GITSModule,
    budgets: Sequence[int],
    solver: str,
    search: SearchOptions,
    device: str,
    seed: int,
) -> Fitted:
    """Fit schedules to the exported network, write them, and return them.

    Args:
        folder: of the run, with export/.
        module: gives the device.
        budgets: evaluations of the model.
        solver: that will sample.
        search: the search.
        device: in words.
        seed: of the latents.
    """
    loaded = load_denoiser(folder / "export", device=module.device)
    fitted = fit_budgets(
        loaded.denoiser,
        budgets,
        sigma_min=loaded.sigma_min,
        sigma_max=loaded.sigma_max,
        shape=loaded.shape,
        like=loaded.like,
        search=search,
        form=FormOptions(),
        solver=solver,
        batch=batch_of(loaded, 64),
        seed=seed,
    )
    save_schedules(folder / "schedules", fitted, solver, loaded, device, ModelOptions())
    return fitted


def frechet_distances(module: GITSModule, images: ImageData) -> dict[str, float]:
    """Return the distance of samples from held-out images, and that of as many training images.

    Nothing where fewer than 20 images are held out.

    Args:
        module: trained.
        images: its data.
    """
    held_out = images.splits.get("test", images.splits.get("val"))
    count = 0 if held_out is None else min(JUDGED, len(held_out), len(images.splits["train"]))
    if held_out is None or count < 20:
        return {}
    real = held_out.read(_spread(len(held_out), count))
    train = images.splits["train"]
    known = train.read(_spread(len(train), count))
    made = [module.sample(part).cpu() for part in torch.arange(count).split(64)]
    return {
        "frechet_samples": float(frechet_distance(real, torch.cat(made))),
        "frechet_training_images": float(frechet_distance(real, known)),
        "frechet_images": count,
    }


def _spread(size: int, count: int) -> list[int]:
    """Return `count` places, evenly over `size`."""
    places: Tensor = torch.linspace(0, size - 1, count).round().long()
    return places.tolist()


def card(module: GITSModule, about: Mapping[str, Any]) -> str:
    """Return the model card of an exported network.

    Args:
        module: trained.
        about: classes, made_by and data_hash.
    """
    return CARD.format(
        network=module.network_name,
        shape=", ".join(map(str, module.shape)),
        version=installed_version(PACKAGE),
        high=module.sigma_max,
        low=module.sigma_min,
        classes=", ".join(about["classes"]) if module.num_classes else "none asked for",
        schedule=f"{module.schedule}, {module.schedule.solver}",
        made_by=about["made_by"],
        data_hash=about["data_hash"],
        limits=LIMITS,
    )
