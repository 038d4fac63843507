"""The warm-up: one look at the trajectories of the user's model, and the schedules that are usual.

A teacher runs on every grid once. What its trajectories cost, and where held-out samples end, serve
every budget, coefficient and solver after that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from papercommons.data.sampling import mix_seeds
from torch import Tensor

from gits_sampling.costs import Metric, cost_matrix
from gits_sampling.latents import draw_latents
from gits_sampling.models import Denoiser, fingerprint
from gits_sampling.sigmas import has_vp_time, log_snr, polynomial, time_uniform
from gits_sampling.solvers import sample, trajectory

Grid = Literal["polynomial", "time_uniform", "log_snr"]
FINER = 4  # times as many points has the grid of the reference on held-out latents


@dataclass(frozen=True)
class WarmUp:
    """What a teacher's trajectories say about a model; all budgets and coefficients use it.

    Attributes:
        grids: noise levels of each grid, float64, shape (N,).
        costs: (grid, metric) -> cost matrix, float64, shape (N, N).
        latents: of held-out samples, sigma_max times noise, shape (M, ...).
        ends: where a finer solution of these ends, shape (M, ...).
        about: how it was made, plain types.
        clean: what all these latents began from beside noise, see `warm_up`.
    """

    grids: dict[str, Tensor]
    costs: dict[tuple[str, str], Tensor]
    latents: Tensor
    ends: Tensor
    about: dict[str, Any]
    clean: Tensor | None = None


def make_grid(kind: str, n: int, sigma_min: float, sigma_max: float, rho: float) -> Tensor:
    """Return n noise levels of a kind, float64.

    Args:
        kind: polynomial, time_uniform or log_snr.
        n: number of levels, >= 2.
        sigma_min: least noise level, > 0.
        sigma_max: greatest.
        rho: exponent of the polynomial grid.

    Raises:
        ValueError: unknown kind, or see `gits_sampling.sigmas`.
    """
    makers: dict[str, Callable[[], Tensor]] = {
        "polynomial": lambda: polynomial(n, sigma_min, sigma_max, rho),
        "time_uniform": lambda: time_uniform(n, sigma_min, sigma_max, 1.0),
        "log_snr": lambda: log_snr(n, sigma_min, sigma_max),
    }
    if kind not in makers:
        raise ValueError(f"grid must be one of {', '.join(makers)}, got {kind}")
    return makers[kind]()


def fixed_schedules(steps: int, sigma_min: float, sigma_max: float) -> dict[str, Tensor]:
    """Return the usual schedules of K steps, each float64 (K + 1,), by name.

    Those uniform in time are left out where no such time has these ends.

    Args:
        steps: K, >= 1.
        sigma_min: least noise level, > 0.
        sigma_max: greatest.
    """
    n = steps + 1
    found = {
        "polynomial 7": polynomial(n, sigma_min, sigma_max, 7.0),
        "log_snr": log_snr(n, sigma_min, sigma_max),
    }
    if has_vp_time(sigma_min, sigma_max):
        found["time_uniform 1"] = time_uniform(n, sigma_min, sigma_max, 1.0)
        found["time_uniform 2"] = time_uniform(n, sigma_min, sigma_max, 2.0)
    return found


def wide_search(sigma_min: float, sigma_max: float) -> dict[str, Any]:
    """Return the grids and metrics that ``coeff="auto"`` searches, for `warm_up`.

    Args:
        sigma_min: least noise level, > 0.
        sigma_max: greatest.
    """
    second = "time_uniform" if has_vp_time(sigma_min, sigma_max) else "log_snr"
    return {"grids": ("polynomial", second), "metrics": ("dev", "l2")}


@torch.no_grad()
def warm_up(
    denoiser: Denoiser,
    *,
    sigma_min: float,
    sigma_max: float,
    shape: Sequence[int],
    grids: Sequence[Grid] = ("polynomial",),
    metrics: Sequence[Metric] = ("dev",),
    points: int = 61,
    rho: float = 7.0,
    teacher: str = "ipndm",
    teacher_order: int | None = 4,
    samples: int = 256,
    held_out: int = 128,
    batch: int = 64,
    seed: int = 0,
    like: Tensor | None = None,
    clean: Tensor | None = None,
) -> WarmUp:
    """Run the teacher once on every grid and keep what all schedules need.

    Args:
        denoiser: the model.
        sigma_min: least noise level, > 0.
        sigma_max: greatest noise level.
        shape: of a sample.
        grids: kinds of grid, see `make_grid`.
        metrics: of the costs.
        points: N of each grid, >= 2.
        rho: of the polynomial grid.
        teacher: its solver.
        teacher_order: its order.
        samples: of the warm-up, >= 1.
        held_out: further samples that judge candidates; 0 leaves that out.
        batch: samples at once; results do not depend on it.
        seed: of the latents.
        like: dtype and device of the states; float32 on the CPU if not given.
        clean: samples that the noise is added to, shape (M, ...), for schedules that begin part of
            the way, as image-to-image does; None begins from noise alone.

    Raises:
        ValueError: a number out of range, or the model gives NaN or infinity.
    """
    if samples < 1 or held_out < 0 or batch < 1:
        raise ValueError(
            f"samples and batch must be >= 1 and held_out >= 0, got {samples}, {batch}, {held_out}"
        )
    like = torch.zeros(()) if like is None else like
    tables: dict[str, Tensor] = {
        kind: make_grid(kind, points, sigma_min, sigma_max, rho) for kind in grids
    }
    keys = [(kind, metric) for kind in grids for metric in metrics]
    costs: dict[tuple[str, str], Tensor] = {
        key: torch.zeros(points, points, dtype=torch.float64) for key in keys
    }
    for start in range(0, samples, batch):
        seeds = [mix_seeds(seed, 0, k) for k in range(start, min(start + batch, samples))]
        x = draw_latents(seeds, shape, sigma_max, like, clean)
        for kind, table in tables.items():
            states, slopes = trajectory(denoiser, x, table, solver=teacher, order=teacher_order)  # type: ignore[arg-type]
            for metric in metrics:
                part = cost_matrix(states, slopes, table, metric=metric)
                costs[kind, metric] += part * (len(seeds) / samples)
    fine = make_grid(grids[0], FINER * (points - 1) + 1, sigma_min, sigma_max, rho)
    seeds = [mix_seeds(seed, 1, k) for k in range(held_out)]
    latents = draw_latents(seeds, shape, sigma_max, like, clean) if held_out else like.new_zeros(0)
    ends = [
        sample(denoiser, part, fine, solver=teacher, order=teacher_order)  # type: ignore[arg-type]
        for part in (latents.split(batch) if held_out else ())
    ]
    middle = polynomial(61, sigma_min, sigma_max)[[20, 30]]  # whatever the grids, to compare
    about = {
        "teacher": teacher,
        "teacher_order": teacher_order,
        "rho": rho,
        "grid_points": points,
        "warmup": samples,
        "seed": seed,
        "fingerprint": fingerprint(denoiser, shape, middle, dtype=like.dtype, device=like.device),
    }
    return WarmUp(tables, costs, latents, torch.cat(ends) if ends else latents, about, clean)
