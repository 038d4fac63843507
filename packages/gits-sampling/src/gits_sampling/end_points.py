"""Where samples should end, how far a schedule misses that, and whether a gain is more than noise.

Three sets of latents never mix: those of the teacher's trajectories (costs), those a schedule is
chosen or trained on, and those it is judged on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from papercommons.data.sampling import mix_seeds
from torch import Tensor

from gits_sampling.latents import draw_latents
from gits_sampling.models import Denoiser
from gits_sampling.solvers import sample
from gits_sampling.warming import FINER, WarmUp, make_grid

TRAINING = 2
"""Stream of seeds of the latents that `refine` and `add_first_step` choose on; `warm_up` uses 0
(costs) and 1 (held out)."""

LEAST = 1e-3
"""Share of the error below which a gain is none, however certain."""


@dataclass(frozen=True)
class EndPoints:
    """Start states and where a fine solution of the ODE ends.

    Attributes:
        latents: sigma_max times noise, float, shape (M, ...).
        ends: of these, shape (M, ...).
    """

    latents: Tensor
    ends: Tensor

    def __post_init__(self) -> None:
        if self.latents.shape != self.ends.shape or self.latents.ndim < 2 or not len(self.ends):
            raise ValueError(
                "latents and ends must both be (M, ...) with M >= 1, "
                f"got {tuple(self.latents.shape)} and {tuple(self.ends.shape)}"
            )


@dataclass(frozen=True)
class Gain:
    """How much smaller an error became, paired over latents.

    Attributes:
        before: mean error of the one.
        after: mean error of the other.
        noise: standard error of the mean difference; 0 for a single latent.
    """

    before: float
    after: float
    noise: float

    def beyond(self, times: float) -> bool:
        """Return whether `after` is smaller by more than `times` standard errors and `LEAST`."""
        return self.before - self.after > max(times * self.noise, LEAST * self.before)


def paired_gain(before: Tensor, after: Tensor) -> Gain:
    """Return the gain from errors on the same latents.

    Args:
        before: error of each latent, shape (M,), M >= 1.
        after: the same with another schedule.

    Raises:
        ValueError: shapes do not match.

    Example:
        >>> paired_gain(torch.tensor([2.0, 4.0]), torch.tensor([1.0, 2.0]))
        Gain(before=3.0, after=1.5, noise=0.5)
    """
    if before.ndim != 1 or before.shape != after.shape or not len(before):
        raise ValueError(f"errors must be (M,), got {tuple(before.shape)}, {tuple(after.shape)}")
    old, new = before.double(), after.double()
    noise = float((old - new).std()) / math.sqrt(len(old)) if len(old) > 1 else 0.0
    return Gain(float(old.mean()), float(new.mean()), noise)


@torch.no_grad()
def end_points(
    denoiser: Denoiser, latents: Tensor, sigmas: Tensor, *, batch: int = 64, **solver: Any
) -> EndPoints:
    """Return latents with the ends of a solution on many sigmas.

    Args:
        denoiser: the model.
        latents: start states at sigmas[0], shape (M, ...).
        sigmas: a fine grid.
        batch: samples at once; results do not depend on it.
        **solver: of `gits_sampling.sample`.
    """
    parts = [sample(denoiser, part, sigmas, **solver) for part in latents.split(batch)]
    return EndPoints(latents, torch.cat(parts))


@torch.no_grad()
def end_errors(
    denoiser: Denoiser, points: EndPoints, sigmas: Tensor, *, batch: int = 64, **solver: Any
) -> Tensor:
    """Return the L2 distance of every sample's end to where it should be, float64 (M,), CPU.

    Args:
        denoiser: the model.
        points: latents and their ends.
        sigmas: the schedule, from the latents' noise level.
        batch: samples at once.
        **solver: of `gits_sampling.sample`.
    """
    pairs = zip(points.latents.split(batch), points.ends.split(batch), strict=True)
    errors = [distances(sample(denoiser, x, sigmas, **solver), end) for x, end in pairs]
    return torch.cat(errors).cpu()


def distances(found: Tensor, wanted: Tensor) -> Tensor:
    """Return the L2 distance of each sample, shape (B,); float64, but float32 on MPS.

    Args:
        found: float, shape (B, ...).
        wanted: likewise.
    """
    difference = found - wanted
    wide = difference if difference.device.type == "mps" else difference.double()
    return wide.flatten(1).norm(dim=1)


def held_out(warm: WarmUp) -> EndPoints:
    """Return the warm-up's held-out samples.

    Raises:
        ValueError: it has none.
    """
    if warm.latents.ndim < 2:
        raise ValueError("the warm-up must have held-out samples, got held_out=0")
    return EndPoints(warm.latents, warm.ends)


def training_points(
    denoiser: Denoiser,
    warm: WarmUp,
    samples: int = 256,
    *,
    batch: int = 64,
    stream: int = TRAINING,
) -> EndPoints:
    """Return further samples like those held out, of other seeds.

    Args:
        denoiser: the model of the warm-up.
        warm: with held-out samples.
        samples: how many, >= 1.
        batch: samples at once.
        stream: of seeds, > 1; other streams give other latents.

    Raises:
        ValueError: samples < 1, stream < 2, or the warm-up has no held-out samples.
    """
    if samples < 1:
        raise ValueError(f"samples must be >= 1, got {samples}")
    if stream < 2:  # those of the warm-up itself
        raise ValueError(f"stream must be >= 2, got {stream}")
    like, about = held_out(warm).latents, warm.about
    kind, grid = next(iter(warm.grids.items()))
    low, high = float(grid[-1]), float(grid[0])
    seeds = [mix_seeds(about["seed"], stream, k) for k in range(samples)]
    latents = draw_latents(seeds, like.shape[1:], high, like, warm.clean)
    fine = make_grid(kind, FINER * (about["grid_points"] - 1) + 1, low, high, about["rho"])
    teacher = {"solver": about["teacher"], "order": about["teacher_order"]}
    return end_points(denoiser, latents, fine, batch=batch, **teacher)
