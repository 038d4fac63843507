"""Deterministic solvers of the probability-flow ODE dx/dsigma = (x - D(x; sigma)) / sigma.

All of the specification's section 3.4, on any decreasing sigmas, for any model in the
variance-exploding frame (x = x0 + sigma noise). The weights of a run are tables made beforehand
(`multistep`, `unipc`), so that a step costs a few additions beside the network call.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gits_sampling.multistep import Prediction
from gits_sampling.stepping import TWO_CALLS, Denoiser, Options, Run, Sigmas, Solver, check_solver
from gits_sampling.unipc import Variant


def sample(
    denoiser: Denoiser,
    x: Tensor,
    sigmas: Sigmas,
    *,
    solver: Solver = "ipndm",
    order: int | None = None,
    afs: bool = False,
    denoise_to_zero: bool = False,
    prediction: Prediction = "data",
    thresholding: bool = False,
    lower_order_final: bool = True,
    variant: Variant = "bh2",
    r: float = 0.5,
) -> Tensor:
    """Solve the ODE from sigmas[0] to sigmas[-1] and return the end state.

    Gradients are recorded only where `x` or `sigmas` requires them, so never for a model's
    parameters alone. A last sigma of 0 makes the last step an Euler step, which ends at D.

    Args:
        denoiser: ``D(x, sigma) -> x0``, sigma a float64 scalar tensor on x's device.
        x: start states, that is sigmas[0] times standard normal noise; float, shape (B, ...).
            Its dtype is the run's; float32 or float64 is advised.
        sigmas: noise levels, shape (N,), N >= 2, strictly decreasing, finite, > 0 but for a last 0.
        solver: "euler" (DDIM), "heun", "dpm" (DPM-Solver-2), "ipndm", "ipndm_v" (variable-step
            Adams-Bashforth), "deis" (tAB), "dpmpp" (DPM-Solver++ multistep), "unipc".
        order: largest order; None: the solver's highest (ipndm, ipndm_v, deis: 4; dpmpp, unipc: 3).
        afs: analytical first step: the first slope is x / sqrt(1 + sigma^2), without a call.
        denoise_to_zero: return D at the end state, one more call.
        prediction: of dpmpp and unipc: "data" (the paper's for pixels), "noise" (for latents).
        thresholding: of dpmpp and unipc with "data": dynamic thresholding of D, per sample, for
            data in [-1, 1] only. The reference always applies it.
        lower_order_final: of dpmpp and unipc: lower orders in the last steps.
        variant: of unipc: "bh1" or "bh2".
        r: of dpm: where the second call lies between ln sigma_i (0) and ln sigma_i+1 (1).

    Returns:
        States at sigmas[-1], x's dtype and shape.

    Raises:
        ValueError: an argument is outside its range, or the model's output has the wrong shape or
            is NaN or infinite (the message names the step and sigma).

    Example:
        >>> sample(lambda x, sigma: torch.zeros_like(x), torch.tensor([[8.0]]), [8.0, 4.0, 1.0])
        tensor([[1.]])
    """
    options = Options(solver, order, afs, prediction, thresholding, lower_order_final, variant, r)
    run = Run(denoiser, x, sigmas, options)
    if denoise_to_zero and run.values[-1] == 0:
        raise ValueError("denoise_to_zero must be off for sigmas that end at 0, got both")
    with torch.set_grad_enabled(run.needs_grad):
        end = run.solve()
        if denoise_to_zero:
            end = run.denoise(end, run.at[-1], run.steps, run.values[-1])
    run.report_not_finite()
    return end


def trajectory(
    denoiser: Denoiser,
    x: Tensor,
    sigmas: Sigmas,
    *,
    solver: Solver = "ipndm",
    order: int | None = None,
    afs: bool = False,
    prediction: Prediction = "data",
    thresholding: bool = False,
    lower_order_final: bool = True,
    variant: Variant = "bh2",
    r: float = 0.5,
) -> tuple[Tensor, Tensor]:
    """Solve as `sample` does and return all states and slopes.

    Args:
        denoiser: see `sample`, as all below.
        x: shape (B, ...).
        sigmas: shape (N,).
        solver: the solver's name.
        order: largest order; None: the solver's highest.
        afs: analytical first step.
        prediction: of dpmpp and unipc.
        thresholding: of dpmpp and unipc; the slopes are of the model's D before thresholding.
        lower_order_final: of dpmpp and unipc.
        variant: of unipc.
        r: of dpm.

    Returns:
        states: at each sigma, x's dtype, shape (N, B, ...); states[0] is x.
        slopes: ``(x - D) / sigma`` at the start of each step, shape (N - 1, B, ...). With unipc
            they belong to the predicted states, the states returned are the corrected ones.

    Raises:
        ValueError: as `sample`.
    """
    options = Options(solver, order, afs, prediction, thresholding, lower_order_final, variant, r)
    run = Run(denoiser, x, sigmas, options)
    with torch.set_grad_enabled(run.needs_grad):
        states = x.new_empty(run.steps + 1, *x.shape)
        slopes = x.new_empty(run.steps, *x.shape)
        states[-1] = run.solve(states, slopes)
    run.report_not_finite()
    return states, slopes


def network_calls(
    solver: Solver,
    steps: int,
    afs: bool = False,
    denoise_to_zero: bool = False,
    *,
    ends_at_zero: bool = False,
) -> int:
    """Return how often `sample` calls the denoiser.

    Args:
        solver: the solver's name.
        steps: number of steps, one less than sigmas, >= 1.
        afs: as for `sample`.
        denoise_to_zero: as for `sample`.
        ends_at_zero: the last sigma is 0 (two-call solvers then make one call in the last step).

    Raises:
        ValueError: unknown solver, or too few steps.

    Example:
        >>> network_calls("heun", 3), network_calls("ipndm", 6, afs=True)
        (6, 5)
    """
    check_solver(solver)
    if steps < 1 + afs:
        raise ValueError(f"steps must be at least {1 + afs}{' with afs' * afs}, got {steps}")
    calls = 2 * steps - ends_at_zero if solver in TWO_CALLS else steps
    return calls - afs + denoise_to_zero


def steps_for(solver: Solver, nfe: int, afs: bool = False, denoise_to_zero: bool = False) -> int:
    """Return the number of steps that cost exactly `nfe` network calls, for a last sigma > 0.

    Args:
        solver: the solver's name.
        nfe: number of network calls, >= 1.
        afs: as for `sample`.
        denoise_to_zero: as for `sample`.

    Raises:
        ValueError: unknown solver, too few calls, or a number that two-call solvers cannot make.

    Example:
        >>> steps_for("heun", 6), steps_for("euler", 6)
        (3, 6)
    """
    check_solver(solver)
    per_step = 2 if solver in TWO_CALLS else 1
    least = network_calls(solver, 1 + afs, afs, denoise_to_zero)
    calls = nfe + afs - denoise_to_zero
    if nfe < least:
        raise ValueError(f"nfe must be at least {least} for {solver}, got {nfe}")
    if calls % per_step:
        near = f"{nfe - 1} or {nfe + 1}" if nfe > least else f"{nfe + 1}"
        raise ValueError(f"nfe must suit {solver}, two calls a step: expected {near}, got {nfe}")
    return calls // per_step
