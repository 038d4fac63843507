"""One run of a solver: checked options, the model's calls, and the loops over steps."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gits_sampling.multistep import Prediction, Table, deis, dpmpp, ipndm, ipndm_v, ramp
from gits_sampling.unipc import Variant, unipc

Denoiser = Callable[[Tensor, Tensor], Tensor]
Solver = Literal["euler", "heun", "dpm", "ipndm", "ipndm_v", "deis", "dpmpp", "unipc"]
Sigmas = Tensor | NDArray[np.floating] | Sequence[float]
Number = float | Tensor  # floats are the fastest factors; scalar tensors where gradients are wanted

ORDERS: dict[Solver, tuple[int, int]] = {  # lowest and highest order; the highest is the default
    "euler": (1, 1),
    "heun": (2, 2),
    "dpm": (2, 2),
    "ipndm": (1, 4),
    "ipndm_v": (1, 4),
    "deis": (1, 4),
    "dpmpp": (1, 3),
    "unipc": (1, 3),
}
TWO_CALLS: tuple[Solver, ...] = ("heun", "dpm")


@dataclass(frozen=True)
class Options:
    """What `gits_sampling.solvers.sample` documents, checked; `order` None is the highest."""

    solver: Solver = "ipndm"
    order: int | None = None
    afs: bool = False
    prediction: Prediction = "data"
    thresholding: bool = False
    lower_order_final: bool = True
    variant: Variant = "bh2"
    r: float = 0.5

    def __post_init__(self) -> None:
        check_solver(self.solver)
        low, high = ORDERS[self.solver]
        if self.order is not None and not low <= self.order <= high:
            allowed = f"{low}" if low == high else f"{low} to {high}"
            raise ValueError(f"order of {self.solver} must be {allowed}, got {self.order}")
        if self.prediction not in get_args(Prediction):
            raise ValueError(f"prediction must be data or noise, got {self.prediction!r}")
        if self.variant not in get_args(Variant):
            raise ValueError(f"variant must be bh1 or bh2, got {self.variant!r}")
        if self.thresholding and self.solver not in ("dpmpp", "unipc"):
            raise ValueError(f"thresholding must be off but for dpmpp, unipc; got {self.solver}")
        if self.thresholding and self.prediction != "data":
            raise ValueError(f"thresholding needs prediction data, got {self.prediction}")
        if not 0 < self.r <= 1:
            raise ValueError(f"r must be in (0, 1], got {self.r}")


class Run:
    """One run.

    Attributes:
        steps: S, one less than sigmas.
        at: the sigmas as the model gets them, S + 1 float64 scalars on x's device.
        values: the sigmas as floats.
        needs_grad: whether x or the sigmas require gradients, and they are on.
    """

    def __init__(self, denoiser: Denoiser, x: Tensor, sigmas: Sigmas, options: Options):
        given = torch.as_tensor(sigmas, dtype=torch.float64)
        if x.ndim < 1 or not x.is_floating_point():
            raise ValueError(f"x must be float (B, ...), got {x.dtype} {tuple(x.shape)}")
        self.denoiser, self.x, self.options = denoiser, x, options
        self.values = _checked_sigmas(given)
        self.steps = len(self.values) - 1
        if options.afs and self.steps < 2:
            raise ValueError(f"steps must be at least 2 with afs, got {self.steps}")
        self.needs_grad = torch.is_grad_enabled() and (x.requires_grad or given.requires_grad)
        self.sigmas = given.cpu() if self.needs_grad else given.detach().cpu()
        self.at = self._placed(self.sigmas).unbind()
        self.levels: Sequence[Number] = self.at if self.needs_grad else self.values
        self._calls: list[tuple[int, float, Tensor]] = []

    def solve(self, states: Tensor | None = None, slopes: Tensor | None = None) -> Tensor:
        """Return the end state; write the states at the starts of steps, and the slopes, if given.

        Args:
            states: shape (>= S, B, ...).
            slopes: shape (S, B, ...).
        """
        if self.options.solver in TWO_CALLS:
            return self._two_calls(states, slopes)
        return self._one_call(self._table(), states, slopes)

    def denoise(self, x: Tensor, at: Tensor, step: int, value: float) -> Tensor:
        """Return D(x, at) in x's dtype; `step` and `value` are for the message if it is not finite.

        Raises:
            ValueError: wrong shape, or (CPU only; elsewhere see `report_not_finite`) not finite.
        """
        out = self.denoiser(x, at)
        if out.shape != x.shape:
            raise ValueError(
                f"denoiser must return x's shape {tuple(x.shape)}, got {tuple(out.shape)}"
            )
        out = out.to(x.dtype)
        total = out.detach().sum(dtype=torch.promote_types(out.dtype, torch.float32))
        self._calls.append((step, value, total))  # NaN and inf survive a sum
        if x.device.type == "cpu":  # elsewhere it would wait for the device
            self.report_not_finite()
        return out

    def report_not_finite(self) -> None:
        """Raise for the first call since the last time whose output was NaN or infinite.

        Raises:
            ValueError: there was one.
        """
        calls, self._calls = self._calls, []
        totals = [total for _, _, total in calls]
        good = torch.stack(totals).isfinite().tolist() if totals else []
        if not all(good):
            step, value, _ = calls[good.index(False)]
            raise ValueError(
                f"denoiser must return finite numbers, got NaN or inf at step {step} "
                f"(sigma {value:g})"
            )

    def _placed(self, weights: Tensor) -> Tensor:
        # MPS has no float64, but takes scalars of the CPU.
        return weights if self.x.device.type == "mps" else weights.to(self.x.device)

    def _numbers(self, weights: Tensor) -> list[list[Number]]:
        if not self.needs_grad:
            return weights.tolist()
        return [list(row.unbind()) for row in self._placed(weights).unbind()]

    def _table(self) -> Table:
        """Return the weights of all steps but a last one to sigma 0."""
        steps = self.steps - (self.values[-1] == 0)
        sigmas, solver = self.sigmas[: steps + 1], self.options.solver
        order = self.options.order or ORDERS[solver][1]
        if solver in ("dpmpp", "unipc"):
            final = self.options.lower_order_final
            orders = ramp(self.steps, order, lower_order_final=final)[:steps]
            if solver == "dpmpp":
                return dpmpp(sigmas, order, self.options.prediction, orders=orders)
            return unipc(
                sigmas, order, self.options.prediction, self.options.variant, orders=orders
            )
        if solver == "deis":
            return deis(sigmas, order)
        return ipndm_v(sigmas, order) if solver == "ipndm_v" else ipndm(sigmas, order)

    def _one_call(self, table: Table, states: Tensor | None, slopes: Tensor | None) -> Tensor:
        x, start = self.x, self.x
        scale = self._numbers(table.scale[:, None])
        weights = self._numbers(table.weights)
        corrector = None if table.corrector is None else self._numbers(table.corrector)
        history: list[Tensor] = []  # the m of the last steps, newest first
        noise = table.prediction == "noise"
        for i in range(self.steps):
            sigma = self.levels[i]
            if self.options.afs and i == 0:
                slope = x / (1 + sigma**2) ** 0.5
                model = slope if noise else x - sigma * slope
            else:
                model = self.denoise(x, self.at[i], i, self.values[i])
                if noise or slopes is not None:
                    slope = (x - model) / sigma
                model = slope if noise else model
            if slopes is not None:
                slopes[i] = slope
            if self.options.thresholding:
                model = dynamic_threshold(model)
            if corrector is not None and i > 0:
                used = [model, *history[: table.orders[i - 1]]]
                x = _combined(scale[i - 1][0], start, corrector[i - 1], used)
            if states is not None:
                states[i] = x
            if i == len(weights):  # Euler's step to sigma 0
                return x - sigma * model if noise else model
            history = [model, *history[: table.weights.shape[1] - 1]]
            start = x
            x = _combined(scale[i][0], start, weights[i], history[: table.orders[i]])
        return x

    def _two_calls(self, states: Tensor | None, slopes: Tensor | None) -> Tensor:
        """Run Heun's method, or DPM-Solver-2: the second call is at sigma_(i+1)^r sigma_i^(1-r)."""
        x, now = self.x, self.levels
        heun = self.options.solver == "heun"
        r = 1.0 if heun else self.options.r
        second = self.sigmas[1:] if heun else self.sigmas[1:] ** r * self.sigmas[:-1] ** (1 - r)
        second_at, second_values = self._placed(second).unbind(), second.tolist()
        second_levels: Sequence[Number] = second_at if self.needs_grad else second_values
        for i in range(self.steps):
            if self.options.afs and i == 0:
                slope = x / (1 + now[0] ** 2) ** 0.5
            else:
                slope = (x - self.denoise(x, self.at[i], i, self.values[i])) / now[i]
            if states is not None and slopes is not None:
                states[i], slopes[i] = x, slope
            if self.values[i + 1] == 0:  # no second call there
                return x - now[i] * slope
            guess = x + (second_levels[i] - now[i]) * slope
            denoised = self.denoise(guess, second_at[i], i, second_values[i])
            other = (guess - denoised) / second_levels[i]
            x = x + (now[i + 1] - now[i]) * (other / (2 * r) + (1 - 1 / (2 * r)) * slope)
        return x


def check_solver(solver: str) -> None:
    """Raise ValueError unless `solver` is a solver's name."""
    if solver not in ORDERS:
        raise ValueError(f"solver must be one of {', '.join(ORDERS)}; got {solver!r}")


def dynamic_threshold(x: Tensor, quantile: float = 0.995) -> Tensor:
    """Return x clipped to [-s, s] and divided by s = max(1, quantile of |x|), per sample.

    Args:
        x: denoised data meant to be in [-1, 1], float, shape (B, ...).
        quantile: in (0, 1], linearly interpolated.
    """
    size = x.abs().flatten(1) if x.ndim > 1 else x.abs()[:, None]
    position = quantile * (size.shape[1] - 1)
    below = math.floor(position)
    top = size.topk(size.shape[1] - below, dim=1).values  # torch.quantile has a limit on sizes
    s = top[:, -1]
    if top.shape[1] > 1:
        s = s + (position - below) * (top[:, -2] - s)
    s = s.clamp(min=1).view(-1, *[1] * (x.ndim - 1))
    return torch.minimum(torch.maximum(x, -s), s) / s


def _combined(
    scale: Number, x: Tensor, weights: Sequence[Number], models: Sequence[Tensor]
) -> Tensor:
    """Return scale x + sum_j weights_j models_j."""
    out = x if isinstance(scale, float) and scale == 1 else scale * x
    for weight, model in zip(weights, models, strict=False):
        if isinstance(weight, float):
            out = torch.add(out, model, alpha=weight)
        else:
            out = out + weight * model
    return out


def _checked_sigmas(sigmas: Tensor) -> list[float]:
    """Return the sigmas as floats.

    Raises:
        ValueError: not (N,) with N >= 2, strictly decreasing, finite and > 0 but for a last 0.
    """
    if sigmas.ndim != 1 or len(sigmas) < 2:
        raise ValueError(f"sigmas must be (N,) with N >= 2, got shape {tuple(sigmas.shape)}")
    values = sigmas.detach().tolist()
    for i, (now, after) in enumerate(itertools.pairwise(values)):
        if not math.inf > now > after >= 0:
            raise ValueError(
                f"sigmas must be finite, strictly decreasing and > 0 (the last may be 0), "
                f"got {now:g}, {after:g} at {i}"
            )
    return values
