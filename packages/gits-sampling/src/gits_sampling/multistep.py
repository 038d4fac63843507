"""One-call solvers as tables of weights: x' = a_i x + sum_j w_ij m_(i-j) (specification, 3.4).

m is the slope d = (x - D) / sigma or the data prediction D at the last points. The tables depend on
the sigmas alone, are made for all steps at once in float64, and are differentiable in the sigmas.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

Prediction = Literal["data", "noise"]

_ADAMS_BASHFORTH = {
    1: (1.0,),
    2: (3 / 2, -1 / 2),
    3: (23 / 12, -16 / 12, 5 / 12),
    4: (55 / 24, -59 / 24, 37 / 24, -9 / 24),
}
_VP_RANGE = (0.002, 80.0)  # the reference's, for sigmas that have no VP time of their own
_VP_START = 1e-3
_NODES = 32  # of Gauss-Legendre in ln sigma: error 1e-13 even for a step from 8 to 0.002


@dataclass(frozen=True)
class Table:
    """The weights of a one-call solver on S steps.

    Attributes:
        prediction: what m is: "noise" the slope, "data" the denoised x.
        orders: how many m step i uses, S integers.
        scale: a_i, float64, shape (S,).
        weights: w_ij, float64, shape (S, K), 0 where j >= orders[i].
        corrector: None, or float64, shape (S, K + 1): the weights of the m at the predicted point,
            then of m_i, m_(i-1), ..., with which x' is formed anew once that m is known.
    """

    prediction: Prediction
    orders: tuple[int, ...]
    scale: Tensor
    weights: Tensor
    corrector: Tensor | None = None


def ramp(steps: int, order: int, *, lower_order_final: bool = False) -> tuple[int, ...]:
    """Return the order of each step: 1, 2, ..., `order`, and with `lower_order_final` back to 1.

    Args:
        steps: number of steps, >= 1.
        order: largest order, >= 1.
        lower_order_final: the last step has order 1, the one before at most 2, and so on.

    Example:
        >>> ramp(6, 3, lower_order_final=True)
        (1, 2, 3, 3, 2, 1)
    """
    last = [steps - i if lower_order_final else order for i in range(steps)]
    # While the history fills, the reference does not lower the order; it matters for few steps.
    return tuple(i + 1 if i + 1 < order else min(order, last[i]) for i in range(steps))


def ipndm(sigmas: Tensor, order: int = 4) -> Table:
    """Return the improved pseudo-numerical method: Adams-Bashforth's fixed weights on any grid.

    Args:
        sigmas: float64, shape (S + 1,), strictly decreasing.
        order: 1 to 4.
    """
    orders = ramp(len(sigmas) - 1, order)
    fixed = [_ADAMS_BASHFORTH[k] + (0.0,) * (order - k) for k in orders]
    weights = sigmas.diff()[:, None] * sigmas.new_tensor(fixed)
    return Table("noise", orders, torch.ones_like(sigmas[1:]), weights)


def ipndm_v(sigmas: Tensor, order: int = 4) -> Table:
    """Return Adams-Bashforth for variable steps: the exact integral of the slopes' polynomial.

    Gauss-Legendre with two nodes is exact for the Lagrange polynomials of up to four points.

    Args:
        sigmas: float64, shape (S + 1,), strictly decreasing.
        order: 1 to 4.
    """

    def weights(points: Tensor) -> Tensor:
        unit, share = _gauss_legendre(2, points)
        step = points[:, :1] - points[:, 1:2]
        at = points[:, 1:2] + step * unit
        return step * (share * _lagrange(points[:, 1:], at)).sum(-1)

    return _slope_table(sigmas, order, weights)


def deis(sigmas: Tensor, order: int = 4) -> Table:
    """Return tAB-DEIS: the slopes' polynomial in variance-preserving time, integrated over sigma.

    The time is the one whose ends are the schedule's (1e-3 and 1); schedules without one (small
    sigma_max, large sigma_min) take the reference's, of 0.002 to 80. The polynomial in sigma
    itself (mode "rhoab" of the reference) is `ipndm_v`.

    Args:
        sigmas: float64, shape (S + 1,), strictly decreasing, > 0.
        order: 1 to 4.
    """
    low, high = sigmas[-1], sigmas[0]
    if torch.log1p(low**2) / _VP_START >= torch.log1p(high**2) * (2 - _VP_START):
        low, high = sigmas.new_tensor(_VP_RANGE)
    slope, offset = _vp_coefficients(low, high)

    def time(at: Tensor) -> Tensor:
        log_mean = torch.log1p(at**2)
        root = (offset**2 + 2 * slope * log_mean).sqrt()
        # Two forms of one root of slope / 2 tau^2 + offset tau = log_mean, against cancellation.
        return (root - offset) / slope if offset < 0 else 2 * log_mean / (offset + root)

    def weights(points: Tensor) -> Tensor:
        unit, share = _gauss_legendre(_NODES, points)
        start, step = points[:, 1:2].log(), (points[:, :1] / points[:, 1:2]).log()
        at = (start + step * unit).exp()
        return step * (share * at[:, None] * _lagrange(time(points[:, 1:]), time(at))).sum(-1)

    return _slope_table(sigmas, order, weights)


def dpmpp(
    sigmas: Tensor,
    order: int = 3,
    prediction: Prediction = "data",
    *,
    orders: Sequence[int] | None = None,
) -> Table:
    """Return DPM-Solver++ multistep, in lambda = -ln sigma.

    Args:
        sigmas: float64, shape (S + 1,), strictly decreasing, > 0.
        order: 1 to 3.
        prediction: "data" (pixels), "noise" (latents; Stable Diffusion).
        orders: order of each step; None: ``ramp(S, order, lower_order_final=True)``.
    """
    orders = ramp(len(sigmas) - 1, order, lower_order_final=True) if orders is None else orders

    def weights(points: Tensor) -> Tensor:
        after, now = points[:, 0], points[:, 1]
        step = (now / after).log()
        # With hh = -step for data both forms are -scale (psi_1 m_0 + psi_2 c_1 + psi_3 c_2).
        hh, scale = (-step, torch.ones_like(step)) if prediction == "data" else (step, after)
        psi_1 = torch.expm1(hh)
        rows = [psi_1]
        if points.shape[1] > 2:
            r_0 = (points[:, 2] / now).log() / step
        if points.shape[1] == 3:
            first = psi_1 / (2 * r_0)
            rows = [psi_1 + first, -first]
        elif points.shape[1] == 4:
            r_1 = (points[:, 3] / points[:, 2]).log() / step
            psi_2 = psi_1 / hh - 1
            bend = (psi_2 / hh - 0.5) / (r_0 + r_1)
            share = r_0 / (r_0 + r_1)
            first = (psi_2 * (1 + share) + bend) / r_0  # of m_0 - m_-1
            second = -(psi_2 * share + bend) / r_1  # of m_-1 - m_-2
            rows = [psi_1 + first, second - first, -second]
        return -scale[:, None] * torch.stack(rows, 1)

    scale = sigmas[1:] / sigmas[:-1] if prediction == "data" else torch.ones_like(sigmas[1:])
    return Table(prediction, tuple(orders), scale, by_order(sigmas, orders, weights))


def by_order(
    sigmas: Tensor, orders: Sequence[int], weights: Callable[[Tensor], Tensor], width: int = 0
) -> Tensor:
    """Return the weights of all steps, from a function of the points of steps of one order.

    Args:
        sigmas: float64, shape (S + 1,).
        orders: order k of each step, S integers.
        weights: takes sigma_(i+1), sigma_i, ..., sigma_(i-k+1), shape (M, k + 1); returns the
            weights of those M steps, shape (M, w) with any w.
        width: columns of the result; 0: the largest order.

    Returns:
        float64, shape (S, width), zeros where a step has fewer.
    """
    width = width or max(orders)
    rows: list[Tensor] = [sigmas[:0]] * len(orders)
    for order in sorted(set(orders)):
        steps = torch.tensor([i for i, k in enumerate(orders) if k == order], device=sigmas.device)
        points = sigmas[steps[:, None] + 1 - torch.arange(order + 1, device=sigmas.device)]
        made = weights(points)
        made = F.pad(made, (0, width - made.shape[1]))
        for step, row in zip(steps.tolist(), made.unbind(), strict=True):
            rows[step] = row
    return torch.stack(rows)


def _slope_table(sigmas: Tensor, order: int, weights: Callable[[Tensor], Tensor]) -> Table:
    orders = ramp(len(sigmas) - 1, order)
    return Table("noise", orders, torch.ones_like(sigmas[1:]), by_order(sigmas, orders, weights))


def _lagrange(nodes: Tensor, at: Tensor) -> Tensor:
    """Return L_j(at_q) for nodes (M, k) and at (M, q): shape (M, k, q)."""
    k = nodes.shape[1]
    rows = []
    for j in range(k):
        others = nodes[:, [m for m in range(k) if m != j], None]
        rows.append(((at[:, None] - others) / (nodes[:, j, None, None] - others)).prod(1))
    return torch.stack(rows, 1)


@cache
def _unit_nodes(n: int) -> tuple[list[float], list[float]]:
    nodes, weights = np.polynomial.legendre.leggauss(n)
    return ((nodes + 1) / 2).tolist(), (weights / 2).tolist()


def _gauss_legendre(n: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return n nodes and weights on [0, 1]."""
    nodes, weights = _unit_nodes(n)
    return like.new_tensor(nodes), like.new_tensor(weights)


def _vp_coefficients(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Return (slope, offset): ln(1 + sigma^2) = slope / 2 tau^2 + offset tau, tau in [1e-3, 1]."""
    a, b = torch.log1p(low**2) / _VP_START, torch.log1p(high**2)
    slope = 2 * (a - b) / (_VP_START - 1)
    return slope, b - slope / 2
