"""Samples of many seeds under one schedule; `gits-sampling-sample`."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np
import torch
from papercommons.cli import ComputeOptions, track
from papercommons.errors import DataError, counted
from papercommons.files import atomic_path, prepare_out
from papercommons.report import Result, Section, describe_device, write_report
from torch import Tensor
from torchvision.io import write_png

from gits_sampling.fit_report import describe
from gits_sampling.fitting import conditions_of
from gits_sampling.latents import draw_latents
from gits_sampling.loading import Loaded
from gits_sampling.opening import batch_of, fingerprint_of, open_model, settings_of
from gits_sampling.options import PACKAGE, FormOptions, ModelOptions, own_schedule_file
from gits_sampling.pictures import schedules_png
from gits_sampling.sample_pictures import to_uint8, write_grid
from gits_sampling.schedule import Schedule
from gits_sampling.solvers import network_calls, sample
from gits_sampling.stepping import Options

log = logging.getLogger("papercommons")

IN_GRID = 64
LIMITS = "Samples are only as good as the model; few steps follow it less closely than many."


def sample_model(
    model: str,
    schedule_file: str | None,
    sigmas: Sequence[float] | None,
    solver: str | None,
    order: int | None,
    seeds: Sequence[int],
    save: str | None,
    denoise_to_zero: bool | None,
    force: bool,
    out: str,
    about: ModelOptions,
    form: FormOptions,
    run: ComputeOptions,
) -> Result:
    """Sample, write samples, a picture of them and a report, and return the result.

    Args:
        model: see `gits_sampling.loading.load_denoiser`.
        schedule_file: of the schedule; None: `sigmas`, else the one that the model carries.
        sigmas: noise levels.
        solver: the schedule's if None.
        order: the schedule's if None.
        seeds: one per sample.
        save: png or npz; png for images if None.
        denoise_to_zero: the schedule's if None.
        force: take a schedule of another model.
        out: folder of the run.
        about: the model.
        form: what dpmpp and unipc do, with `sigmas`.
        run: where and how to compute.

    Raises:
        DataError: model or schedule cannot be read, or the schedule is of another model.
        ValueError: an argument out of range, or the model gives NaN or infinity.
    """
    given = None
    if sigmas is None:
        if form != FormOptions():
            raise ValueError("--form and --thresholding are the schedule's own; leave them out")
        given = Schedule.load(schedule_file or own_schedule_file(model))
    loaded = open_model(model, about, run)
    schedule = chosen_schedule(given, sigmas, solver, order, denoise_to_zero, form)
    check_range(schedule, loaded)
    if given is not None:
        check_fingerprint(given, loaded, about, force)
    is_image = len(loaded.shape) == 3 and loaded.shape[0] in (1, 3)
    if save == "png" and not is_image:
        raise ValueError(
            f"--save png is for images of 1 or 3 channels; samples are {loaded.shape} here, so "
            "take npz"
        )
    settings: dict[str, Any] = settings_of(model, about, loaded)
    settings |= {"schedule": schedule_file, "sigmas": schedule.sigmas.tolist()}
    settings |= {"solver": schedule.solver, "order": schedule.order, "seeds": len(seeds)}
    settings |= {"first_seed": seeds[0], "save": save, "denoise_to_zero": schedule.denoise_to_zero}
    settings |= {"force": force, "out": out, **asdict(form), **run.settings()}
    folder = prepare_out(out, settings, overwrite=run.overwrite)
    started = time.perf_counter()
    shown: list[Tensor] = []

    def batches() -> Iterator[tuple[Sequence[int], Tensor]]:
        for part, images in sample_batches(loaded, schedule, seeds, about.batch_size):
            if sum(map(len, shown)) < IN_GRID:
                shown.append(images.cpu())
            yield part, images

    as_png = is_image and save != "npz"
    written = folder / ("samples" if as_png else "samples.npz")
    if as_png:
        for part, images in batches():
            write_images(images, part, written)
    else:
        write_arrays((images for _, images in batches()), seeds, loaded.shape, written)
    seconds = time.perf_counter() - started
    result = Result(
        package=PACKAGE,
        command="gits-sampling-sample",
        title=f"{counted(len(seeds), 'sample')} of {model}: {schedule.solver}, {schedule.nfe} "
        f"evaluations each ({describe(schedule)})",
        metrics={
            "samples": len(seeds),
            "steps": schedule.steps,
            "network_calls_each": schedule.nfe * loaded.network_calls,
            "seconds": seconds,
            "samples_per_second": len(seeds) / seconds,
        },
        settings=settings,
        limits=LIMITS,
        data_hash=fingerprint_of(loaded, loaded.sigma_max, loaded.sigma_min),
        device=describe_device(loaded.device),
        files={"samples": str(written)},
    )
    sections = []
    if is_image:
        result.files["grid"] = str(folder / "grid.png")
        grid = torch.cat(shown)[:IN_GRID]
        write_grid(grid, folder / "grid.png", columns=min(8, len(grid)), least_width=640)
        picture = (folder / "grid.png").read_bytes()
        sections.append(Section("Samples", figure=picture, caption=f"The first {len(grid)}"))
    levels = schedules_png({describe(schedule): schedule})
    sections.append(Section("Noise levels", figure=levels, caption="Where the model is called"))
    write_report(folder / "report.html", result, sections)
    result.save(folder)
    return result


def chosen_schedule(
    given: Schedule | None,
    sigmas: Sequence[float] | None,
    solver: str | None,
    order: int | None,
    denoise_to_zero: bool | None,
    form: FormOptions,
) -> Schedule:
    """Return the schedule with what was asked for otherwise; its nfe is what it costs.

    Args:
        given: a schedule; None: from `sigmas`.
        sigmas: noise levels.
        solver: its own if None.
        order: its own if None, or with another solver that one's highest.
        denoise_to_zero: its own if None.
        form: what dpmpp and unipc do, with `sigmas`.

    Raises:
        ValueError: an argument out of range.
    """
    if given is None:
        assert sigmas is not None
        most = 2 * len(sigmas)  # until it is counted below
        given = Schedule(
            sigmas=torch.tensor(sigmas, dtype=torch.float64),
            nfe=most,
            solver=solver or "ipndm",
            method="given",
            prediction=form.form,
            thresholding=form.thresholding,
        )
    changed: dict[str, Any] = {}
    if solver is not None and solver != given.solver:
        changed |= {"solver": solver, "order": None}
    if order is not None:
        changed["order"] = order
    if denoise_to_zero is not None:
        changed["denoise_to_zero"] = denoise_to_zero
    name = changed.get("solver", given.solver)
    last = changed.get("denoise_to_zero", given.denoise_to_zero)
    ends_at_zero = float(given.sigmas[-1]) == 0
    calls = network_calls(name, given.steps, given.afs, last, ends_at_zero=ends_at_zero)
    schedule = replace(given, nfe=calls, **changed)
    how = schedule.solver_options
    if how.pop("denoise_to_zero") and ends_at_zero:
        raise ValueError("--denoise-to-zero must be off for noise levels that end at 0")
    Options(**how)
    return schedule


def check_range(schedule: Schedule, loaded: Loaded) -> None:
    """Check that noise levels are the model's.

    Args:
        schedule: with its noise levels.
        loaded: the model.

    Raises:
        ValueError: they are not.
    """
    first, last = float(schedule.sigmas[0]), float(schedule.sigmas[-1])
    low, high = loaded.sigma_min, loaded.sigma_max
    lowest = last if last > 0 else float(schedule.sigmas[-2])
    if first > high * (1 + 1e-5) or lowest < low * (1 - 1e-5):
        raise ValueError(
            f"the noise levels run from {first:.6g} to {lowest:.6g}, outside the model's "
            f"{high:.6g} to {low:.6g}"
        )
    if first < 0.5 * high:
        log.warning(
            "sampling begins with pure noise at sigma %g; the model's noise begins at %g, so "
            "samples may lack contrast",
            first,
            high,
        )


def check_fingerprint(schedule: Schedule, loaded: Loaded, about: ModelOptions, force: bool) -> None:
    """Check that a schedule was fitted to this model, under the same conditions if it has any.

    Under other conditions models cannot be told apart, and only a warning is given.

    Args:
        schedule: with the fingerprint of its model, if it has one.
        loaded: the model.
        about: what the model is conditioned on.
        force: only warn.

    Raises:
        DataError: it is of another model, and `force` is not given.
    """
    if schedule.fingerprint is None:
        return
    found = fingerprint_of(loaded, float(schedule.sigmas[0]), float(schedule.sigmas[-1]))
    if found == schedule.fingerprint:
        return
    before = schedule.details.get("conditions")
    if before is not None and before != conditions_of(loaded, about) and not force:
        log.warning("the schedule was fitted under other conditions (prompts, labels or guidance)")
    elif force:
        log.warning("the schedule was fitted to another model")
    else:
        raise DataError(
            f"the schedule was fitted to another model (fingerprint {schedule.fingerprint}, this "
            f"one has {found}); fit one to this model, or pass --force"
        )


def sample_batches(
    loaded: Loaded, schedule: Schedule, seeds: Sequence[int], batch: int
) -> Iterator[tuple[Sequence[int], Tensor]]:
    """Yield seeds and their samples, batch by batch.

    Args:
        loaded: the model.
        schedule: with its solver.
        seeds: one per sample.
        batch: samples at once.
    """
    size = batch_of(loaded, batch)
    parts = [seeds[start : start + size] for start in range(0, len(seeds), size)]
    first = float(schedule.sigmas[0])
    for part in track(parts, "sampling"):
        latents = draw_latents(part, loaded.shape, first, loaded.like)
        with torch.no_grad():
            images = sample(loaded.denoiser, latents, schedule.sigmas, **schedule.solver_options)
        yield part, images


def write_images(images: Tensor, seeds: Sequence[int], folder: Path) -> None:
    """Write each image as ``SEED.png``, the seed in ten digits.

    Args:
        images: [-1, 1] (beyond is cut off), float, shape (B, 1 or 3, H, W).
        seeds: one per image.
        folder: made if absent.
    """
    for image, seed in zip(to_uint8(images), seeds, strict=True):
        with atomic_path(folder / f"{seed:010d}.png") as temporary:
            write_png(image, str(temporary))


def write_arrays(
    batches: Iterable[Tensor], seeds: Sequence[int], shape: Sequence[int], path: Path
) -> None:
    """Write samples as they come into an .npz file: ``seeds`` and ``samples``, float32.

    Args:
        batches: as many samples as seeds, together.
        seeds: one per sample.
        shape: of a sample.
        path: the file.
    """
    header = {"descr": "<f4", "fortran_order": False, "shape": (len(seeds), *shape)}
    with atomic_path(path) as temporary, ZipFile(temporary, "w", ZIP_DEFLATED) as archive:
        with archive.open("seeds.npy", "w") as file:
            np.lib.format.write_array(file, np.array(seeds))
        with archive.open("samples.npy", "w", force_zip64=True) as file:
            np.lib.format.write_array_header_1_0(file, header)
            for images in batches:
                file.write(images.float().cpu().numpy().astype("<f4").tobytes())
