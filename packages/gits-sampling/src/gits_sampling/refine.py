"""Moving a schedule's sigmas off the grid, against the error at the end of the actual solver.

The paper's costs are local, of single Euler jumps; what counts is where the student's own solver
ends. As in LD3 (arXiv 2405.15506) the error is differentiated through the solver, here with respect
to the shares of ln sigma that each step takes, so that ends and order stay. The result is kept only
where it wins, beyond noise, on latents that it was not trained on.
"""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from gits_sampling.end_points import (
    EndPoints,
    distances,
    end_errors,
    held_out,
    paired_gain,
    training_points,
)
from gits_sampling.models import Denoiser
from gits_sampling.schedule import Schedule
from gits_sampling.solvers import sample
from gits_sampling.warming import WarmUp

Method = Literal["auto", "gradient", "search"]


def refine(
    denoiser: Denoiser,
    warm: WarmUp,
    schedule: Schedule,
    *,
    train: EndPoints | None = None,
    samples: int = 256,
    method: Method = "auto",
    iterations: int = 60,
    rate: float = 0.05,
    noise: float = 1.64,
    batch: int = 64,
    **options: Any,
) -> Schedule:
    """Return the schedule with better sigmas, or the same one where that gains nothing.

    Costs `training_points` (once, if `train` is kept), then for ``gradient`` about
    3 x iterations x samples x nfe network calls.

    Args:
        denoiser: the model.
        warm: of the model, with held-out samples: these alone decide.
        schedule: where to start; its ends stay. The last sigma must be above 0.
        train: what to train on; `training_points` of the warm-up if not given.
        samples: how many of these, if not given.
        method: ``gradient`` (Adam), ``search`` (one sigma after another, for models that give no
            gradient), or ``auto``: the first where the model gives one.
        iterations: of Adam, or sweeps of the search, >= 1.
        rate: Adam's, > 0.
        noise: by how many standard errors of the paired difference the new one must win, >= 0;
            1.64 is a one-sided test at 5 %. More held-out samples make it keener.
        batch: samples at once; the gradient's memory grows with it and with nfe.
        **options: further ones of `gits_sampling.sample`, e.g. prediction.

    Returns:
        A schedule with method ``refined`` and ``details["refinement"]``, which holds the errors
        before and after on training and held-out samples; or the given sigmas with those details
        and result ``no gain``.

    Raises:
        ValueError: an argument out of range, other ends than the warm-up's, or the model gives NaN.
    """
    if method not in get_args(Method):
        raise ValueError(f"method must be one of {', '.join(get_args(Method))}, got {method!r}")
    if iterations < 1 or rate <= 0 or noise < 0 or batch < 1:
        raise ValueError(
            "iterations and batch must be >= 1, rate > 0 and noise >= 0, "
            f"got {iterations}, {batch}, {rate} and {noise}"
        )
    check_ends(warm, schedule)
    judge = held_out(warm)
    if train is None:
        train = training_points(denoiser, warm, samples, batch=batch)
    solver = schedule.solver_options | options | {"batch": batch}
    del solver["denoise_to_zero"]
    if method == "auto":
        method = "gradient" if gives_gradient(denoiser, train, schedule.sigmas) else "search"
    if schedule.steps == 1:
        sigmas, evaluations = schedule.sigmas, 0  # nothing to move
    elif method == "gradient":
        sigmas, evaluations = descend(
            denoiser, train, schedule.sigmas, iterations=iterations, rate=rate, **solver
        )
    else:
        sigmas, evaluations = search(denoiser, train, schedule.sigmas, sweeps=iterations, **solver)
    gain = paired_gain(
        end_errors(denoiser, judge, schedule.sigmas, **solver),
        end_errors(denoiser, judge, sigmas, **solver),
    )
    on_train = paired_gain(
        end_errors(denoiser, train, schedule.sigmas, **solver),
        end_errors(denoiser, train, sigmas, **solver),
    )
    won = gain.beyond(noise)
    about: dict[str, Any] = {
        "result": "gain" if won else "no gain",
        "held_out": asdict(gain),
        "train": asdict(on_train),
        "method": method,
        "evaluations": evaluations,
        "samples": len(train.latents),
    }
    if not won:
        return replace(schedule, details={**schedule.details, "refinement": about})
    origin = {k: getattr(schedule, k) for k in ("method", "coeff", "metric", "grid")}
    about["from"] = origin | {"sigmas": schedule.sigmas.tolist()}
    off_grid = dict.fromkeys(("indices", "coeff", "metric", "cost", "grid"))
    return replace(
        schedule,
        sigmas=sigmas,
        method="refined",
        details={**schedule.details, "refinement": about},
        **off_grid,  # type: ignore[arg-type]
    )


def check_ends(warm: WarmUp, schedule: Schedule) -> None:
    """Check that a schedule begins and ends where the warm-up's samples do.

    Args:
        warm: of `warm_up`.
        schedule: fitted with it.

    Raises:
        ValueError: it does not.
    """
    grid = next(iter(warm.grids.values()))
    ends, given = grid[[0, -1]], schedule.sigmas[[0, -1]]
    if not torch.allclose(ends, given, rtol=1e-9, atol=0.0):
        raise ValueError(
            f"the schedule must run from the warm-up's sigma {ends[0]:g} to {ends[1]:g}, "
            f"got {given[0]:g} to {given[1]:g}"
        )


def to_shares(sigmas: Tensor) -> Tensor:
    """Return the logarithms of the shares of ln sigma that the steps take, shape (K,).

    Args:
        sigmas: strictly decreasing, > 0, shape (K + 1,).
    """
    gaps = -sigmas.log().diff()
    return (gaps / gaps.sum()).log()


def from_shares(logits: Tensor, sigma_min: float, sigma_max: float) -> Tensor:
    """Return sigmas whose steps take the shares softmax(logits), float64; the ends are exact.

    The inverse of `to_shares`; strictly decreasing for finite logits (of moderate size) and
    differentiable.

    Args:
        logits: float64, shape (K,).
        sigma_min: last sigma, > 0.
        sigma_max: first sigma.
    """
    share = logits.softmax(0).cumsum(0)[:-1]
    inner = math.log(sigma_max) + share * (math.log(sigma_min) - math.log(sigma_max))
    ends = logits.new_tensor([sigma_max, sigma_min])
    return torch.cat([ends[:1], inner.exp(), ends[1:]])


def descend(
    denoiser: Denoiser,
    train: EndPoints,
    sigmas: Tensor,
    *,
    iterations: int = 60,
    rate: float = 0.05,
    batch: int = 64,
    **solver: Any,
) -> tuple[Tensor, int]:
    """Return the best sigmas that Adam meets, and the number of runs of the solver over `train`.

    The learning rate falls to 0 along a cosine. Parameters of the model get no gradients.

    Args:
        denoiser: the model, differentiable in x.
        train: what to come near to.
        sigmas: where to start, shape (K + 1,).
        iterations: steps of Adam.
        rate: the first learning rate.
        batch: samples at once.
        **solver: of `gits_sampling.sample`.
    """
    high, low = float(sigmas[0]), float(sigmas[-1])
    logits = to_shares(sigmas).requires_grad_()
    adam = torch.optim.Adam([logits], lr=rate, betas=(0.9, 0.95))
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(adam, iterations)
    best, least = sigmas, math.inf
    for k in range(iterations + 1):
        total, grad = 0.0, torch.zeros_like(logits)
        pairs = zip(train.latents.split(batch), train.ends.split(batch), strict=True)
        for x, end in pairs:
            now = from_shares(logits, low, high)
            error = distances(sample(denoiser, x, now, **solver), end).sum() / len(train.ends)
            total += float(error.detach())
            if k < iterations:
                grad += torch.autograd.grad(error, logits)[0]
        if total < least:
            best, least = (sigmas if k == 0 else now.detach()), total
        if k < iterations:
            logits.grad = grad
            adam.step()
            decay.step()
    return best, iterations + 1


def search(
    denoiser: Denoiser, train: EndPoints, sigmas: Tensor, *, sweeps: int = 20, **solver: Any
) -> tuple[Tensor, int]:
    """Return better sigmas, moved one after another, and the number of runs over `train`.

    Each inner sigma tries a step either way, a share of the way (in ln sigma) to its neighbour;
    after a sweep without success the share is halved, and below 2 % the search ends.

    Args:
        denoiser: the model.
        train: what to come near to.
        sigmas: where to start, shape (K + 1,).
        sweeps: at most.
        **solver: of `end_errors`.
    """

    def error(logs: Tensor) -> float:
        tried = torch.cat([sigmas[:1], logs[1:-1].exp(), sigmas[-1:]])
        return float(end_errors(denoiser, train, tried, **solver).mean())

    logs, share, runs = sigmas.log(), 0.4, 1
    least = error(logs)
    for _ in range(sweeps):
        moved = False
        for i in range(1, len(logs) - 1):
            for side in (-1, 1):
                tried = logs.clone()
                tried[i] += share * (logs[i + side] - logs[i])
                found, runs = error(tried), runs + 1
                if found < least:
                    logs, least, moved = tried, found, True
                    break
        if not moved:
            share /= 2
            if share < 0.02:
                break
    return torch.cat([sigmas[:1], logs[1:-1].exp(), sigmas[-1:]]), runs


def gives_gradient(denoiser: Denoiser, points: EndPoints, sigmas: Tensor) -> bool:
    """Return whether the model's output follows its input in automatic differentiation.

    Args:
        denoiser: the model.
        points: with one start state or more.
        sigmas: noise levels, shape (K + 1,).
    """
    with torch.enable_grad():
        x = points.latents[:1].detach().clone().requires_grad_()
        return bool(denoiser(x, sigmas[0].to(x.device)).requires_grad)
