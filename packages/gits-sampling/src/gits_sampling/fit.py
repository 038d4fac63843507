"""Finding the schedule after the warm-up: a small search, an honest choice.

The paper (section 3.5 of the specification) searches the cheapest path over the teacher's grid for
one coefficient. ``coeff="auto"`` runs the actual solver on held-out latents for every candidate
(all coefficients, two metrics, two grids, and the usual fixed schedules) and keeps the one that
ends nearest to a finer solution, so it may also say that nothing was gained.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from papercommons.versions import installed_version
from torch import Tensor

from gits_sampling.afs import add_first_step
from gits_sampling.costs import Metric
from gits_sampling.end_points import EndPoints, training_points
from gits_sampling.models import Denoiser
from gits_sampling.multistep import Prediction
from gits_sampling.path import optimal_path, optimal_paths, path_cost
from gits_sampling.refine import refine as move_sigmas
from gits_sampling.schedule import Schedule
from gits_sampling.solvers import sample, steps_for
from gits_sampling.stepping import Options
from gits_sampling.warming import WarmUp, fixed_schedules, warm_up, wide_search

COEFFS = tuple(round(0.8 + 0.05 * k, 2) for k in range(11))
"""Coefficients that ``coeff="auto"`` tries: 0.8 to 1.3."""


@dataclass(frozen=True)
class Candidate:
    """A schedule that was tried.

    Attributes:
        name: what made it.
        sigmas: float64, shape (K + 1,).
        error: mean distance of held-out ends to the reference's.
        grid: of a path; None for a fixed schedule.
        metric: of a path.
        coeff: of a path.
        indices: of a path.
    """

    name: str
    sigmas: Tensor
    error: float
    grid: str | None = None
    metric: str | None = None
    coeff: float | None = None
    indices: tuple[int, ...] | None = None


@torch.no_grad()
def end_error(
    denoiser: Denoiser, warm: WarmUp, sigmas: Tensor, *, batch: int = 64, **solver: Any
) -> float:
    """Return the mean L2 distance of held-out ends to those of the finer solution.

    Args:
        denoiser: the model.
        warm: with held-out latents.
        sigmas: the schedule.
        batch: samples at once.
        **solver: of `sample`.
    """
    total = torch.zeros((), dtype=torch.float64)
    for latents, ends in zip(warm.latents.split(batch), warm.ends.split(batch), strict=True):
        found = sample(denoiser, latents, sigmas, **solver)
        total += (found - ends).double().flatten(1).norm(dim=1).sum().cpu()
    return float(total) / len(warm.latents)


def candidates(
    denoiser: Denoiser,
    warm: WarmUp,
    steps: int,
    *,
    coeffs: Sequence[float] = COEFFS,
    batch: int = 64,
    **solver: Any,
) -> list[Candidate]:
    """Return every schedule of K steps with its error on held-out latents, the best first.

    Equal paths of several coefficients are tried once.

    Args:
        denoiser: the model.
        warm: with held-out latents.
        steps: K.
        coeffs: of the paths.
        batch: samples at once.
        **solver: of `sample`.

    Raises:
        ValueError: no held-out latents, or an argument out of range.
    """
    if warm.latents.ndim < 2:
        raise ValueError("candidates are judged on held-out samples: held_out must be >= 1, got 0")
    found: list[Candidate] = []
    for (kind, metric), cost in warm.costs.items():
        seen: set[tuple[int, ...]] = set()
        for (count, coeff), path in optimal_paths(cost, steps, coeffs).items():
            indices = tuple(path.tolist())
            if count != steps or indices in seen:
                continue
            seen.add(indices)
            sigmas = warm.grids[kind][path]
            error = end_error(denoiser, warm, sigmas, batch=batch, **solver)
            name = f"gits {kind} {metric} {coeff:g}"
            found.append(Candidate(name, sigmas, error, kind, metric, coeff, indices))
    first = next(iter(warm.grids.values()))
    for name, sigmas in fixed_schedules(steps, float(first[-1]), float(first[0])).items():
        error = end_error(denoiser, warm, sigmas, batch=batch, **solver)
        found.append(Candidate(name, sigmas, error))
    return sorted(found, key=lambda candidate: candidate.error)


def fit_schedule(
    denoiser: Denoiser,
    *,
    sigma_min: float,
    sigma_max: float,
    shape: Sequence[int],
    nfe: int,
    solver: str = "ipndm",
    order: int | None = None,
    coeff: float | Literal["auto"] = "auto",
    metric: Metric = "dev",
    prediction: Prediction = "data",
    thresholding: bool = False,
    afs: bool | Literal["auto"] = False,
    refine: bool | Mapping[str, Any] = False,
    warm: WarmUp | None = None,
    train: EndPoints | None = None,
    batch: int = 64,
    **options: Any,
) -> Schedule:
    """Return the best schedule for a model, a solver and a budget of network calls.

    Args:
        denoiser: any callable D(x, sigma) -> x0 in the variance-exploding frame, see
            `gits_sampling.adapters`.
        sigma_min: least noise level, > 0; the schedule ends there.
        sigma_max: greatest noise level; it begins there.
        shape: of a sample, e.g. (3, 32, 32).
        nfe: network calls per sample.
        solver: that will sample, see `gits_sampling.sample`.
        order: its order.
        coeff: of the path's cost; > 1 moves the schedule towards small noise. ``auto`` tries
            `COEFFS`, two metrics, two grids and the usual schedules on held-out latents.
        metric: of the costs, where `coeff` is a number.
        prediction: of dpmpp and unipc, data or noise.
        thresholding: of dpmpp and unipc, see `gits_sampling.sample`.
        afs: analytical first step; ``auto`` adds one where it gains, see `gits_sampling.afs`.
        refine: move the sigmas off the grid where that gains, see `gits_sampling.refine`; a mapping
            holds its options.
        warm: of an earlier call, with the grids and metrics wanted; made if not given.
        train: samples for `afs` and `refine`; made if not given.
        batch: samples at once.
        **options: of `warm_up`.

    Returns:
        The schedule; with ``auto`` its details hold the error of every candidate, and its method
        names a fixed schedule where none of ours was better.

    Raises:
        ValueError: an argument out of range, or the model gives NaN or infinity.
    """
    run: dict[str, Any] = {"solver": solver, "order": order, "afs": afs is True}
    run |= {"prediction": prediction, "thresholding": thresholding}
    Options(**run)
    steps = steps_for(solver, nfe, afs is True)  # type: ignore[arg-type]
    auto, judged = coeff == "auto", bool(refine) or afs == "auto"
    if warm is None:
        given: dict[str, Any] = {"metrics": (metric,), "held_out": 128 if judged else 0}
        warm = warm_up(
            denoiser,
            sigma_min=sigma_min,
            sigma_max=sigma_max,
            shape=shape,
            batch=batch,
            **((wide_search(sigma_min, sigma_max) if auto else given) | options),
        )
    details: dict[str, Any] = {} if warm.clean is None else {"start": "noised samples"}
    if auto:
        tried = candidates(denoiser, warm, steps, batch=batch, **run)
        best = tried[0]
        details["errors"] = {candidate.name: candidate.error for candidate in tried}
    else:
        best = _cheapest(warm, steps, float(coeff), metric)
    schedule = _as_schedule(best, warm, nfe=nfe, details=details, **run)
    if judged and train is None:
        train = training_points(denoiser, warm, batch=batch)
    if afs == "auto":
        schedule = add_first_step(denoiser, warm, schedule, train=train, batch=batch)
    if refine:
        how = dict(refine) if isinstance(refine, Mapping) else {}
        schedule = move_sigmas(denoiser, warm, schedule, train=train, **({"batch": batch} | how))
    return schedule


def _cheapest(warm: WarmUp, steps: int, coeff: float, metric: Metric) -> Candidate:
    """Return the cheapest path on the warm-up's first grid; its error is not measured (nan)."""
    kind, grid = next(iter(warm.grids.items()))
    if (kind, metric) not in warm.costs:
        known = ", ".join(of for grid_kind, of in warm.costs if grid_kind == kind)
        raise ValueError(f"metric must be one of the warm-up's, {known}; got {metric!r}")
    path = optimal_path(warm.costs[kind, metric], steps, coeff)
    name = f"gits {kind} {metric} {coeff:g}"
    return Candidate(name, grid[path], math.nan, kind, metric, coeff, tuple(path.tolist()))


def _as_schedule(best: Candidate, warm: WarmUp, **values: Any) -> Schedule:
    values["version"] = installed_version("gits-sampling")
    if best.indices is None or best.grid is None or best.metric is None or best.coeff is None:
        about = {name: warm.about[name] for name in ("warmup", "seed", "fingerprint")}
        return Schedule(sigmas=best.sigmas, method=best.name, **values, **about)
    values |= {name: getattr(best, name) for name in ("indices", "coeff", "metric", "grid")}
    cost = path_cost(warm.costs[best.grid, best.metric], list(best.indices), best.coeff)
    return Schedule(sigmas=best.sigmas, cost=cost, **values, **warm.about)
