"""Analytical first step: the best first point for it (specification, section 3.5, step 5).

At sigma_max the slope is nearly x / sqrt(1 + sigma^2), without a network call. So one more point
fits between the first two of a schedule at the same number of calls; here it is searched with the
actual solver. Unlike the reference's, the teacher never takes that step, every solver has its
right orders and weights, and where the grid has no point left between the two, others are tried.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor

from gits_sampling.end_points import (
    EndPoints,
    end_errors,
    held_out,
    paired_gain,
    training_points,
)
from gits_sampling.models import Denoiser
from gits_sampling.refine import check_ends
from gits_sampling.schedule import Schedule
from gits_sampling.solvers import network_calls
from gits_sampling.warming import WarmUp

BETWEEN = 15
"""Points tried between the first two, uniform in ln sigma, where the grid has none."""


def add_first_step(
    denoiser: Denoiser,
    warm: WarmUp,
    schedule: Schedule,
    *,
    train: EndPoints | None = None,
    samples: int = 256,
    noise: float = 1.64,
    batch: int = 64,
    **options: Any,
) -> Schedule:
    """Return the schedule with an analytical first step put before it, where that gains.

    The network calls stay, but for heun and dpm: there K + 1 steps cost 2K + 1 calls, one more.

    Args:
        denoiser: the model.
        warm: of the model, with held-out samples: these alone decide whether to keep it.
        schedule: without afs, of at least one step, its last sigma above 0.
        train: what the point is chosen on; `training_points` of the warm-up if not given.
        samples: how many of these, if not given.
        noise: by how many standard errors of the paired difference it must win, >= 0.
        batch: samples at once.
        **options: further ones of `gits_sampling.sample`, e.g. prediction.

    Returns:
        A schedule with ``afs=True`` and one sigma more; its indices are kept where the point is
        the grid's. Or the given sigmas with result ``no gain``. ``details["afs"]`` holds the mean
        error of every point on training samples, and the errors on held-out samples.

    Raises:
        ValueError: the schedule has afs already, or other ends than the warm-up's; noise or batch
            out of range; or the model gives NaN.
    """
    if schedule.afs:
        raise ValueError("the schedule must be without an analytical first step, got afs=True")
    if noise < 0 or batch < 1:
        raise ValueError(f"noise must be >= 0 and batch >= 1, got {noise} and {batch}")
    check_ends(warm, schedule)
    judge = held_out(warm)
    if train is None:
        train = training_points(denoiser, warm, samples, batch=batch)
    solver = schedule.solver_options | options | {"batch": batch}
    del solver["denoise_to_zero"], solver["afs"]
    points, indices = first_points(warm, schedule)
    tried = [torch.cat([schedule.sigmas[:1], p[None], schedule.sigmas[1:]]) for p in points]
    errors = [float(end_errors(denoiser, train, s, afs=True, **solver).mean()) for s in tried]
    best = min(range(len(tried)), key=errors.__getitem__)
    gain = paired_gain(
        end_errors(denoiser, judge, schedule.sigmas, **solver),
        end_errors(denoiser, judge, tried[best], afs=True, **solver),
    )
    calls = network_calls(schedule.solver, schedule.steps + 1, True, schedule.denoise_to_zero)  # type: ignore[arg-type]
    won = gain.beyond(noise)
    about = {
        "result": "gain" if won else "no gain",
        "held_out": asdict(gain),
        "train": dict(zip([f"{p:.6g}" for p in points.tolist()], errors, strict=True)),
        "calls": [schedule.nfe, calls],
    }
    details = {**schedule.details, "afs": about}
    if not won:
        return replace(schedule, details=details)
    kept = schedule.indices if indices is not None else None
    if kept is None:  # not a path of the grid
        off_grid = dict.fromkeys(("indices", "coeff", "metric", "cost", "grid"))
    else:
        assert indices is not None
        off_grid = {"cost": None}
        kept = (kept[0], indices[best], *kept[1:])
    return replace(
        schedule,
        **({"indices": kept} | off_grid),  # type: ignore[arg-type]
        sigmas=tried[best],
        afs=True,
        nfe=calls,
        details=details,
    )


def first_points(warm: WarmUp, schedule: Schedule) -> tuple[Tensor, list[int] | None]:
    """Return the sigmas to try as second point, and their indices on the grid, if they are on it.

    The grid's points between the first two of a path; where there are none, or the schedule is no
    path, `BETWEEN` points uniform in ln sigma.

    Args:
        warm: with the path's grid.
        schedule: any.
    """
    grid = warm.grids.get(schedule.grid or "")
    if grid is not None and schedule.indices is not None and schedule.indices[1] > 1:
        indices = list(range(1, schedule.indices[1]))
        if torch.equal(grid[list(schedule.indices)], schedule.sigmas):
            return grid[indices], indices
    logs = schedule.sigmas[:2].log()
    share = torch.arange(1, BETWEEN + 1, dtype=torch.float64) / (BETWEEN + 1)
    return (logs[0] + share * (logs[1] - logs[0])).exp(), None
