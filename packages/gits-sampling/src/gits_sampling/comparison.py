"""An honest table: what schedules are worth for one's own model, on latents never used before.

Every schedule runs with the actual solver; its error is the mean distance of the ends to those of a
fine solution from the same latents. Ours counts as a gain only where the one we would have given
(``refined``, else ``auto``) beats the best of the others, chosen with hindsight, beyond noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from papercommons.cli import track
from torch import Tensor

from gits_sampling.comparison_columns import (
    FIXED,
    PUBLISHED,
    SCHEDULES,
    columns,
    is_ours,
    path_of,
    settings,
    taken,
)
from gits_sampling.end_points import EndPoints, end_errors, paired_gain, training_points
from gits_sampling.fit import COEFFS, candidates
from gits_sampling.models import Denoiser
from gits_sampling.path import optimal_path
from gits_sampling.refine import refine
from gits_sampling.schedule import Schedule, check_sigmas
from gits_sampling.sigmas import ays
from gits_sampling.solvers import steps_for
from gits_sampling.warming import WarmUp, fixed_schedules, warm_up, wide_search

EVALUATION = 3
"""Stream of seeds of the evaluation latents, see `gits_sampling.end_points`."""


@dataclass(frozen=True)
class Entry:
    """One schedule with one solver and budget.

    Attributes:
        solver: its name.
        order: its largest order.
        nfe: the budget.
        calls: network calls of a sample, as counted; with guidance two for each evaluation.
        schedule: the column's name.
        method: what ``auto`` or ``refined`` took.
        sigmas: the noise levels.
        error: mean distance to where the samples should end.
        noise: standard error of that mean.
        best: of this solver and budget it has the smallest error; of equal ones the first.
    """

    solver: str
    order: int
    nfe: int
    calls: int
    schedule: str
    method: str
    sigmas: tuple[float, ...]
    error: float
    noise: float
    best: bool


@dataclass(frozen=True)
class Verdict:
    """Whether ours is better than the best of the others.

    Attributes:
        solver: its name.
        nfe: the budget.
        ours: the column that is ours.
        error: of ours.
        other: the best column that is no path, choice or refinement of this package.
        other_error: its error.
        noise: standard error of the paired difference.
        result: ``gain`` or ``no gain``.
    """

    solver: str
    nfe: int
    ours: str
    error: float
    other: str
    other_error: float
    noise: float
    result: str


@dataclass(frozen=True)
class Comparison:
    """The whole table.

    Attributes:
        entries: by solver, then budget, then schedule.
        verdicts: one for each solver and budget with schedules of both kinds.
        left_out: columns and budgets that do not exist here, with the reason.
        about: settings, plain types.
    """

    entries: tuple[Entry, ...]
    verdicts: tuple[Verdict, ...]
    left_out: tuple[str, ...] = ()
    about: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain types."""
        return asdict(self)

    def table(self) -> list[dict[str, Any]]:
        """Return a row for each solver and budget: errors by schedule, the best one, the result."""
        results = {(v.solver, v.nfe): v.result for v in self.verdicts}
        rows: dict[tuple[str, int, int], dict[str, Any]] = {}
        for entry in self.entries:
            key = (entry.solver, entry.order, entry.nfe)
            row = rows.setdefault(
                key, {"solver": f"{entry.solver} {entry.order}", "nfe": entry.nfe}
            )
            row[entry.schedule] = entry.error
            if entry.best:
                row["best"] = entry.schedule
        for (solver, _, nfe), row in rows.items():
            row["best"] = row.pop("best")  # after the errors
            row["result"] = results.get((solver, nfe))
        return list(rows.values())


def compare_schedules(
    denoiser: Denoiser,
    *,
    sigma_min: float,
    sigma_max: float,
    shape: Sequence[int],
    nfes: Sequence[int],
    solvers: Sequence[str] = ("euler", "ipndm", "dpmpp", "unipc"),
    schedules: Sequence[str] = SCHEDULES,
    own: Callable[[int], Tensor] | None = None,
    coeffs: Sequence[float] = COEFFS,
    warm: WarmUp | None = None,
    train: EndPoints | None = None,
    evaluation: EndPoints | None = None,
    evaluation_samples: int = 256,
    noise: float = 1.64,
    batch: int = 64,
    options: dict[str, Any] | None = None,
    refinement: dict[str, Any] | None = None,
    **warm_options: Any,
) -> Comparison:
    """Return the errors of schedules on latents that were used for nothing else.

    Args:
        denoiser: the model.
        sigma_min: least noise level, > 0.
        sigma_max: greatest noise level.
        shape: of a sample.
        nfes: budgets of network calls, each >= 1. Odd ones are left out for heun and dpm.
        solvers: names, with the order where it is not the highest: ``dpmpp`` or ``dpmpp 2``.
        schedules: of `SCHEDULES`, or paths as ``gits 0.9`` or ``gits 1.0 l2``. Published ones are
            left out where the range is not that of their models, ``own`` where it is not given.
        own: the model's own default: n -> sigmas of shape (n,), with the ends of the range.
        coeffs: that ``auto`` tries.
        warm: with held-out samples, of an earlier call; made if not given.
        train: for ``refined``; drawn if not given.
        evaluation: samples to judge on; drawn with seeds of their own if not given.
        evaluation_samples: how many of these, if not given.
        noise: by how many standard errors of the paired difference a gain must win.
        batch: samples at once.
        options: further ones of `gits_sampling.sample`, such as prediction, for the solvers that
            take them.
        refinement: further ones of `gits_sampling.refine.refine`, such as iterations.
        **warm_options: of `gits_sampling.warm_up`.

    Raises:
        ValueError: an argument out of range, nothing is left to compare, or the model gives NaN.
    """
    runs, left_out = settings(solvers, nfes)
    names = columns(schedules, sigma_min, sigma_max, own, left_out)
    if warm is None:
        given = wide_search(sigma_min, sigma_max) | {"batch": batch} | warm_options
        warm = warm_up(
            denoiser,
            sigma_min=sigma_min,
            sigma_max=sigma_max,
            shape=shape,
            **given,
        )
    if train is None and "refined" in names:
        train = training_points(denoiser, warm, batch=batch)
    if evaluation is None:
        evaluation = training_points(
            denoiser, warm, evaluation_samples, batch=batch, stream=EVALUATION
        )
    counted = _Counted(denoiser)
    batches = len(evaluation.latents.split(batch))
    entries: list[Entry] = []
    verdicts: list[Verdict] = []
    for solver, order, nfe in track(runs, "comparing"):
        run = {"solver": solver, "order": order} | taken(solver, options or {})
        steps = steps_for(solver, nfe)  # type: ignore[arg-type]
        made = _make(denoiser, warm, train, names, steps, nfe, own, coeffs, batch, run, refinement)
        errors: dict[str, Tensor] = {}
        calls: dict[str, int] = {}
        for name, (sigmas, _) in made.items():
            counted.calls = 0
            errors[name] = end_errors(counted, evaluation, sigmas, batch=batch, **run)
            calls[name] = counted.calls // batches
        means = {name: float(e.mean()) for name, e in errors.items()}
        first = min(means, key=means.__getitem__)
        entries += [
            Entry(
                solver=solver,
                order=order,
                nfe=nfe,
                calls=calls[name],
                schedule=name,
                method=method,
                sigmas=tuple(sigmas.tolist()),
                error=means[name],
                noise=float(errors[name].std()) / math.sqrt(len(errors[name]))
                if len(errors[name]) > 1
                else 0.0,
                best=name == first,
            )
            for name, (sigmas, method) in made.items()
        ]
        verdict = _verdict(solver, nfe, errors, noise)
        verdicts += [verdict] if verdict else []
    about = dict(warm.about) | {"evaluation_samples": len(evaluation.latents), "noise": noise}
    return Comparison(tuple(entries), tuple(verdicts), tuple(left_out), about)


def _verdict(solver: str, nfe: int, errors: dict[str, Tensor], noise: float) -> Verdict | None:
    """Return ours against the best other column, or None where there are not both."""
    others = [name for name in errors if not is_ours(name)]
    ours = [name for name in errors if is_ours(name)]
    if not others or not ours:
        return None
    # named before any error is seen: the refined one, else auto, else the first path asked for
    mine = next((name for name in ("refined", "auto") if name in ours), ours[0])
    other = min(others, key=lambda name: float(errors[name].mean()))
    gain = paired_gain(errors[other], errors[mine])
    result = "gain" if gain.beyond(noise) else "no gain"
    return Verdict(solver, nfe, mine, gain.after, other, gain.before, gain.noise, result)


def _make(
    denoiser: Denoiser,
    warm: WarmUp,
    train: EndPoints | None,
    names: Sequence[str],
    steps: int,
    nfe: int,
    own: Callable[[int], Tensor] | None,
    coeffs: Sequence[float],
    batch: int,
    run: dict[str, Any],
    refinement: dict[str, Any] | None,
) -> dict[str, tuple[Tensor, str]]:
    """Return sigmas and method of every column, for one solver and budget."""
    kind, grid = next(iter(warm.grids.items()))
    low, high = float(grid[-1]), float(grid[0])
    fixed = fixed_schedules(steps, low, high) if set(names) & set(FIXED) else {}
    chosen: Schedule | None = None
    if {"auto", "refined"} & set(names):
        best = candidates(denoiser, warm, steps, coeffs=coeffs, batch=batch, **run)[0]
        plain = {"nfe": nfe, "solver": run["solver"], "order": run["order"]}
        chosen = Schedule(sigmas=best.sigmas, method=best.name, **plain)
    made: dict[str, tuple[Tensor, str]] = {}
    for name in names:
        if name in FIXED:
            made[name] = fixed[name], name
        elif name in PUBLISHED:
            made[name] = ays(steps + 1, low, high, model=name.split()[1]), name  # type: ignore[arg-type]
        elif name == "own":
            assert own is not None
            sigmas = check_sigmas(own(steps + 1))
            if not torch.allclose(sigmas[[0, -1]], grid[[0, -1]], rtol=1e-6, atol=0.0):
                ends = f"{high:g} to {low:g}, got {sigmas[0]:g} to {sigmas[-1]:g}"
                raise ValueError(f"own must run from sigma {ends}")
            made[name] = sigmas, name
        elif name == "auto":
            assert chosen is not None
            made[name] = chosen.sigmas, chosen.method
        elif name == "refined":
            assert chosen is not None
            more = {k: v for k, v in run.items() if k not in ("solver", "order")}
            more |= {"batch": batch} | (refinement or {})
            better = refine(denoiser, warm, chosen, train=train, **more)
            made[name] = better.sigmas, better.method
        else:
            coeff, metric = path_of(name)
            if (kind, metric) not in warm.costs:
                raise ValueError(f"the warm-up must have the metric of {name!r}, got no {metric}")
            path = optimal_path(warm.costs[kind, metric], steps, coeff)
            made[name] = grid[path], name
    return made


class _Counted:
    """Counts network calls."""

    def __init__(self, denoiser: Denoiser) -> None:
        self.denoiser, self.calls = denoiser, 0
        self.each = int(getattr(denoiser, "network_calls", 1))

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        self.calls += self.each
        return self.denoiser(x, sigma)
