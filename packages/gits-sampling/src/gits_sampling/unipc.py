"""UniPC as a table of weights: a predictor and, from the same calls, a corrector.

Specification, section 3.4 (Zhao et al. 2023). With m the stored model outputs, h the step in
lambda = -ln sigma, r_k = (lambda_-k - lambda_0) / h and D_k = (m_-k - m_0) / r_k::

    predictor = base - S B sum_k rho_k D_k
    corrector = base - S B (sum_k rho_k D_k + rho_last (m_new - m_0))
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from gits_sampling.multistep import Prediction, Table, by_order, ramp

Variant = Literal["bh1", "bh2"]


def unipc(
    sigmas: Tensor,
    order: int = 3,
    prediction: Prediction = "data",
    variant: Variant = "bh2",
    *,
    orders: Sequence[int] | None = None,
) -> Table:
    """Return UniPC's table, with correctors for all steps (the last one is not for use).

    Args:
        sigmas: float64, shape (S + 1,), strictly decreasing, > 0.
        order: 1 to 3.
        prediction: "data" (pixels), "noise" (latents).
        variant: B = hh ("bh1") or expm1(hh) ("bh2"), hh the signed step in lambda = -ln sigma.
        orders: order of each step; None: ``ramp(S, order, lower_order_final=True)``.
    """
    orders = ramp(len(sigmas) - 1, order, lower_order_final=True) if orders is None else orders
    width = max(orders)

    def both(points: Tensor) -> Tensor:
        made = _weights(points, prediction, variant)
        predictor, corrector = made.split([made.shape[1] // 2, made.shape[1] // 2 + 1], dim=1)
        empty = predictor.new_zeros(len(points), width - predictor.shape[1])
        return torch.cat([predictor, empty, corrector, empty], 1)

    table = by_order(sigmas, orders, both, 2 * width + 1)
    scale = sigmas[1:] / sigmas[:-1] if prediction == "data" else torch.ones_like(sigmas[1:])
    return Table(prediction, tuple(orders), scale, table[:, :width], table[:, width:])


def _weights(points: Tensor, prediction: Prediction, variant: Variant) -> Tensor:
    """Return [predictor | corrector] for steps of one order k: shape (M, k + (k + 1))."""
    k = points.shape[1] - 1
    after, now = points[:, 0], points[:, 1]
    step = (now / after).log()
    hh, scale = (-step, torch.ones_like(step)) if prediction == "data" else (step, after)
    b_h = hh if variant == "bh1" else torch.expm1(hh)
    past = (now[:, None] / points[:, 2:]).log() / step[:, None]  # r of the history, negative
    r = torch.cat([past, torch.ones_like(now)[:, None]], 1)

    phi, right, factorial = torch.expm1(hh) / hh - 1, [], 1
    for power in range(1, k + 1):
        factorial *= power
        right.append(phi * factorial / b_h)
        phi = phi / hh - 1 / (factorial * (power + 1))
    b = torch.stack(right, 1)
    rows = torch.stack([r**power for power in range(k)], 1)
    half = torch.full_like(b[:, :1], 0.5)
    rho_p = half[:, :0] if k == 1 else half
    if k > 2:
        rho_p = torch.linalg.solve(rows[:, :-1, :-1], b[:, :-1])
    rho_c = half if k == 1 else torch.linalg.solve(rows, b)

    base, factor = -scale * torch.expm1(hh), -scale * b_h
    predictor = factor[:, None] * rho_p / past
    corrector = factor[:, None] * rho_c[:, :-1] / past
    new = factor * rho_c[:, -1]
    return torch.cat(
        [
            (base - predictor.sum(1))[:, None],
            predictor,
            new[:, None],
            (base - corrector.sum(1) - new)[:, None],
            corrector,
        ],
        dim=1,
    )
