"""The cheapest way through a teacher's grid in a given number of jumps (specification, 3.5).

A path p_0 = 0 < p_1 < ... < p_K = N - 1 costs ``sum_a coeff^a c(p_a, p_{a+1})``. With V_1(i) =
c(i, N-1) and V_k(i) = min over j of c(i, j) + coeff V_{k-1}(j), one table holds the best paths of
all budgets up to K.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.float64]
Costs = Tensor | Array


def optimal_path(cost: Costs, steps: int, coeff: float) -> Tensor:
    """Return the cheapest path of exactly `steps` jumps from grid point 0 to N - 1.

    Args:
        cost: cost of the jump from i to j at [i, j], shape (N, N); entries with i >= j are not
            read. Finite, may be negative.
        steps: K, from 1 to N - 1.
        coeff: weight of a jump over that of the jump before it, > 0. Above 1 late jumps weigh more,
            so the path has more points at small sigmas. Paper: 1.15 for pixels, 1.20 for Stable
            Diffusion.

    Returns:
        Strictly increasing indices from 0 to N - 1, int64, shape (steps + 1,). Of equally cheap
        paths, that with the smallest next index at the first difference.

    Raises:
        ValueError: cost is not square, smaller than 2 x 2 or not finite; steps or coeff is out of
            range.

    Example:
        >>> cost = torch.tensor([[0.0, 1, 5, 9], [0, 0, 1, 4], [0, 0, 0, 1], [0, 0, 0, 0]])
        >>> optimal_path(cost, 2, 1.0)
        tensor([0, 1, 3])
    """
    c = _check(cost, steps, "steps")
    return torch.from_numpy(_trace(_best_next(c, steps, _check_coeffs([coeff])), steps)[0])


def optimal_paths(
    cost: Costs, max_steps: int, coeffs: Iterable[float] = (1.0,)
) -> dict[tuple[int, float], Tensor]:
    """Return `optimal_path` for every budget up to `max_steps` and every coefficient.

    Costs little more than the longest path alone.

    Args:
        cost: as for `optimal_path`.
        max_steps: from 1 to N - 1.
        coeffs: each > 0.

    Returns:
        The path for each (steps, coeff), by coefficient and then by steps from 1 on.

    Raises:
        ValueError: as for `optimal_path`, or there is no coefficient.
    """
    c = _check(cost, max_steps, "max_steps")
    given = _check_coeffs(coeffs)
    best = _best_next(c, max_steps, given)
    budgets = range(1, max_steps + 1)
    paths = {steps: torch.from_numpy(_trace(best, steps)) for steps in budgets}
    return {(steps, g): paths[steps][a] for a, g in enumerate(given) for steps in budgets}


def path_cost(cost: Costs, path: Tensor | Iterable[int], coeff: float = 1.0) -> float:
    """Return ``sum_a coeff^a c(p_a, p_{a+1})``, summed in float64.

    Args:
        cost: as for `optimal_path`.
        path: strictly increasing grid indices, at least two.
        coeff: weight of a jump over that of the jump before it, > 0.

    Raises:
        ValueError: the path does not increase or leaves the grid, or as for `optimal_path`.
    """
    c = _check(cost, 1, "steps")
    p = np.asarray([int(i) for i in path], dtype=np.int64)
    if len(p) < 2 or p[0] < 0 or p[-1] >= len(c) or (np.diff(p) < 1).any():
        raise ValueError(
            f"path must be at least two increasing indices from 0 to {len(c) - 1}, got {p.tolist()}"
        )
    weights = _check_coeffs([coeff])[0] ** np.arange(len(p) - 1)
    return float(weights @ c[p[:-1], p[1:]])


def _check(cost: Costs, steps: int, name: str) -> Array:
    """Return the costs with infinity on and below the diagonal."""
    c = np.asarray(cost.detach().cpu() if isinstance(cost, Tensor) else cost, dtype=np.float64)
    if c.ndim != 2 or c.shape[0] != c.shape[1] or len(c) < 2:
        raise ValueError(f"cost must be (N, N) with N >= 2, got {c.shape}")
    c = np.where(np.tri(len(c), dtype=bool), np.inf, c)
    if np.isfinite(c).sum() < len(c) * (len(c) - 1) // 2:
        raise ValueError("cost must be finite above the diagonal, got NaN or infinity")
    if isinstance(steps, bool) or not isinstance(steps, int | np.integer):
        raise ValueError(f"{name} must be an integer, got {steps!r}")
    if not 1 <= steps < len(c):
        raise ValueError(
            f"{name} must be from 1 to {len(c) - 1}, the intervals of a grid of {len(c)} points, "
            f"got {steps}"
        )
    return c


def _check_coeffs(coeffs: Iterable[float]) -> list[float]:
    given = [float(coeff) for coeff in coeffs]
    bad = [coeff for coeff in given if not (coeff > 0 and math.isfinite(coeff))]
    if bad or not given:
        raise ValueError(f"coeff must be a finite number > 0, got {bad[0] if bad else 'none'}")
    return given


def _best_next(c: Array, steps: int, coeffs: list[float]) -> list[NDArray[np.intp]]:
    """Return for k = 1..steps where to go from i with k jumps left, each of shape (G, N).

    The last one is of the first grid point alone: no other has all jumps left.
    """
    weight = np.asarray(coeffs)[:, None]
    value = np.broadcast_to(c[:, -1], (len(coeffs), len(c)))
    tables = [np.full(value.shape, len(c) - 1)]
    of, rows = np.arange(len(coeffs))[:, None], np.arange(len(c))
    with np.errstate(over="ignore"):
        for k in range(2, steps + 1):
            start = rows if k < steps else rows[:1]
            through = c[: len(start)] + (weight * value)[:, None]
            tables.append(through.argmin(2))  # the first of equal ones
            value = through[of, start, tables[-1]]
    if not np.isfinite(value[:, 0]).all():
        raise ValueError(f"coeff must be smaller for {steps} steps, got {max(coeffs)}: overflow")
    return tables


def _trace(tables: list[NDArray[np.intp]], steps: int) -> NDArray[np.int64]:
    """Return the paths of `steps` jumps, shape (G, steps + 1)."""
    rows = np.arange(len(tables[0]))
    path = [np.zeros_like(rows)]
    for table in reversed(tables[:steps]):
        path.append(table[rows, path[-1]])
    return np.stack(path, 1).astype(np.int64)
