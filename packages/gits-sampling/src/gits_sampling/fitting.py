"""Schedules of every budget from one warm-up, judged beside the usual ones; `gits-sampling-fit`."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from papercommons.cli import ComputeOptions, track
from papercommons.errors import DataError
from papercommons.files import atomic_path, prepare_out
from papercommons.report import Result, describe_device, write_report
from torch import Tensor

from gits_sampling.comparison import EVALUATION
from gits_sampling.end_points import EndPoints, end_errors, paired_gain, training_points
from gits_sampling.fit import fit_schedule
from gits_sampling.fit_report import describe, fit_sections, notes_of, row_of, sample_sections
from gits_sampling.loading import Loaded
from gits_sampling.models import Denoiser
from gits_sampling.opening import batch_of, fingerprint_of, open_model, settings_of
from gits_sampling.options import PACKAGE, FormOptions, ModelOptions, SearchOptions
from gits_sampling.schedule import Schedule
from gits_sampling.stepping import Options
from gits_sampling.warming import WarmUp, fixed_schedules, warm_up, wide_search

NOISE = 1.64
"""Standard errors of the paired difference by which a gain must win: one-sided, 5 %."""

LIMITS = (
    "The error is the distance, from the same latents, to where a fine solution of the same model "
    "ends: it says how well the sampler follows the model, not how good the model's samples look. "
    "A schedule holds for this model, solver and budget."
)


@dataclass(frozen=True)
class Fitted:
    """Schedules of several budgets and how they do.

    Attributes:
        schedules: by budget.
        rows: the table, one row for each budget.
        warm: the warm-up.
        judge: the samples that the table's errors are of.
        left_out: what could not be compared, with the reason.
        seconds: of the warm-up, and of the searches after it.
    """

    schedules: dict[int, Schedule]
    rows: list[dict[str, Any]]
    warm: WarmUp
    judge: EndPoints
    left_out: list[str] = field(default_factory=list)
    seconds: tuple[float, float] = (0.0, 0.0)


def fit_budgets(
    denoiser: Denoiser,
    budgets: Sequence[int],
    *,
    sigma_min: float,
    sigma_max: float,
    shape: Sequence[int],
    like: Tensor,
    search: SearchOptions,
    form: FormOptions,
    solver: str = "ipndm",
    order: int | None = None,
    coeff: float | Literal["auto"] = "auto",
    metric: str | None = None,
    grid: str | None = None,
    afs: bool = False,
    refine: bool = False,
    own: Callable[[int], Tensor] | None = None,
    batch: int = 64,
    seed: int = 0,
) -> Fitted:
    """Return the best schedule of every budget, each with its error on samples of its own.

    The samples that judge are neither those of the costs nor those that chose.

    Args:
        denoiser: the model.
        budgets: evaluations of the model.
        sigma_min: least noise level.
        sigma_max: greatest.
        shape: of a sample.
        like: dtype and device of the states.
        search: the search.
        form: what dpmpp and unipc do.
        solver: that will sample.
        order: its order.
        coeff: see `gits_sampling.fit_schedule`.
        metric: only this one; with auto all if not given, else dev.
        grid: only this one; with auto all if not given, else polynomial.
        afs: add an analytical first step where it gains.
        refine: move the noise levels where it gains.
        own: the model's own schedule: n -> sigmas (n,).
        batch: samples at once.
        seed: of the latents.

    Raises:
        ValueError: an argument out of range, or the model gives NaN or infinity.
    """
    auto = coeff == "auto"
    wide = wide_search(sigma_min, sigma_max) if auto else {"grids": ["polynomial"]}
    wide |= {} if auto else {"metrics": ["dev"]}
    wide |= {} if grid is None else {"grids": [grid]}
    wide |= {} if metric is None else {"metrics": [metric]}
    begun = time.perf_counter()
    warm = warm_up(
        denoiser,
        sigma_min=sigma_min,
        sigma_max=sigma_max,
        shape=shape,
        points=search.teacher_points,
        rho=search.rho,
        teacher=search.teacher,
        teacher_order=search.teacher_order,
        samples=search.warmup,
        held_out=search.held_out,
        batch=batch,
        seed=seed,
        like=like,
        **wide,
    )
    train = None
    if afs or refine:
        train = training_points(denoiser, warm, search.warmup, batch=batch)
    judge = training_points(denoiser, warm, search.held_out, batch=batch, stream=EVALUATION)
    warmed = time.perf_counter()
    fitted = Fitted({}, [], warm, judge)
    for nfe in track(budgets, "searching"):
        schedule = fit_schedule(
            denoiser,
            sigma_min=sigma_min,
            sigma_max=sigma_max,
            shape=shape,
            nfe=nfe,
            solver=solver,
            order=order,
            coeff=coeff,
            metric=metric or "dev",  # type: ignore[arg-type]
            prediction=form.form,
            thresholding=form.thresholding,
            afs="auto" if afs else False,
            refine=refine,
            warm=warm,
            train=train,
            batch=batch,
        )
        others = _others(schedule, sigma_min, sigma_max, own, fitted.left_out)
        row, judged = _judge(denoiser, judge, schedule, others, batch)
        details = {**schedule.details, "judged": judged}
        fitted.schedules[nfe] = replace(schedule, details=details)
        fitted.rows.append(row)
    return replace(fitted, seconds=(warmed - begun, time.perf_counter() - warmed))


def _others(
    schedule: Schedule,
    low: float,
    high: float,
    own: Callable[[int], Tensor] | None,
    left_out: list[str],
) -> dict[str, Tensor]:
    """Return the usual schedules of the same budget, and the model's own."""
    steps = schedule.steps - schedule.afs
    found = fixed_schedules(steps, low, high)
    if own is not None:
        try:
            found["own"] = own(steps + 1)
        except DataError as error:
            left_out.append(str(error))
    return found


def _judge(
    denoiser: Denoiser, judge: EndPoints, schedule: Schedule, others: dict[str, Tensor], batch: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a row of the table, and what the schedule's file says of it."""
    how = schedule.solver_options | {"batch": batch}
    del how["denoise_to_zero"]
    plain = how | {"afs": False}
    errors = {name: end_errors(denoiser, judge, s, **plain) for name, s in others.items()}
    ours = end_errors(denoiser, judge, schedule.sigmas, **how)
    best = min(errors, key=lambda name: float(errors[name].mean()))
    gain = paired_gain(errors[best], ours)
    result = "gain" if gain.beyond(NOISE) else "no gain"
    means = {name: float(error.mean()) for name, error in errors.items()}
    row = {"nfe": schedule.nfe, "schedule": describe(schedule), "ours": gain.after, **means}
    judged = {"result": result, "ours": gain.after, "others": means, "samples": len(ours)}
    return row | {"result": result}, judged


def fit_model(
    model: str,
    budgets: Sequence[int],
    solver: str,
    order: int | None,
    coeff: float | Literal["auto"],
    metric: str | None,
    grid: str | None,
    afs: bool,
    refine: bool,
    out: str,
    about: ModelOptions,
    search: SearchOptions,
    form: FormOptions,
    run: ComputeOptions,
) -> Result:
    """Fit schedules to a model, write them with a report, and return the result.

    Args:
        model: see `gits_sampling.loading.load_denoiser`.
        budgets: evaluations of the model.
        solver: that will sample.
        order: its order.
        coeff: a number or auto.
        metric: of the costs.
        grid: of the teacher.
        afs: add an analytical first step where it gains.
        refine: move the noise levels where it gains.
        out: folder of the run.
        about: the model.
        search: the search.
        form: what dpmpp and unipc do.
        run: where and how to compute.

    Raises:
        DataError: the model cannot be loaded.
        ValueError: an argument out of range, or the model gives NaN or infinity.
    """
    Options(solver=solver, order=order, thresholding=form.thresholding)  # type: ignore[arg-type]
    Options(solver=search.teacher, order=search.teacher_order)
    loaded = open_model(model, about, run)
    batch = batch_of(loaded, about.batch_size)
    fitted = fit_budgets(
        loaded.denoiser,
        budgets,
        sigma_min=loaded.sigma_min,
        sigma_max=loaded.sigma_max,
        shape=loaded.shape,
        like=loaded.like,
        search=search,
        solver=solver,
        order=order,
        coeff=coeff,
        metric=metric,
        grid=grid,
        afs=afs,
        refine=refine,
        form=form,
        own=None if loaded.default is None else loaded.own,
        batch=batch,
        seed=run.seed,
    )
    settings: dict[str, Any] = settings_of(model, about, loaded)
    settings |= {"nfe": ",".join(map(str, budgets)), "solver": solver, "order": order}
    settings |= {"coeff": coeff, "metric": metric, "grid": grid, "afs": afs, "refine": refine}
    settings |= {"out": out, **asdict(search), **asdict(form), **run.settings()}
    won = sum(row["result"] == "gain" for row in fitted.rows)
    result = Result(
        package=PACKAGE,
        command="gits-sampling-fit",
        title=f"{model}, {solver}: a gain at {won} of {len(fitted.rows)} budgets over the best "
        "usual schedule",
        rows=fitted.rows,
        metrics={
            "gains": won,
            "budgets": len(fitted.rows),
            "network_calls_per_evaluation": loaded.network_calls,
            "warm_up_seconds": fitted.seconds[0],
            "search_seconds": fitted.seconds[1],
            "schedules": [row_of(schedule) for schedule in fitted.schedules.values()],
        },
        settings=settings,
        limits=LIMITS,
        data_hash=fitted.warm.about["fingerprint"],
        device=describe_device(loaded.device),
        notes=notes_of(fitted, loaded.network_calls),
    )
    folder = prepare_out(out, settings, overwrite=run.overwrite)
    save_schedules(folder, fitted, solver, loaded, result.device, about)
    result.files["schedules"] = str(folder / f"{solver}-nfe*.json")
    sections = [*fit_sections(fitted), *sample_sections(loaded, fitted)]
    for section in sections:
        if section.figure is not None:
            name = section.heading.lower().replace(" ", "-") + ".png"
            with atomic_path(folder / name) as temporary:
                temporary.write_bytes(section.figure)
    write_report(folder / "report.html", result, sections)
    result.save(folder)
    return result


def save_schedules(
    folder: Path, fitted: Fitted, solver: str, loaded: Loaded, device: str, about: ModelOptions
) -> None:
    """Write the schedules, ``SOLVER-nfeN.json``.

    Args:
        folder: of the run.
        fitted: what to write.
        solver: named in the files.
        loaded: the model.
        device: in words.
        about: what the model was conditioned on, kept with the schedules.
    """
    sign = fingerprint_of(loaded, loaded.sigma_max, loaded.sigma_min)
    for nfe, schedule in fitted.schedules.items():
        details = {**schedule.details, "conditions": conditions_of(loaded, about)}
        whole = replace(schedule, fingerprint=sign, device=device, details=details)
        whole.save(folder / f"{solver}-nfe{nfe}.json")


def conditions_of(loaded: Loaded, about: ModelOptions) -> dict[str, Any]:
    """Return what a model was conditioned on, plain types.

    Args:
        loaded: the model with its prompts or labels.
        about: the options that gave them.
    """
    return {
        "given": list(loaded.conditions),
        "negative": about.negative,
        "guidance": about.guidance,
    }
