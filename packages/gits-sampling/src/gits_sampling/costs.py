"""What one Euler jump between any two points of a teacher's grid costs (specification, 3.5).

With the teacher's states X_i and slopes d_i = (X_i - D(X_i; t_i)) / t_i at the noise levels
t_0 > ... > t_{N-1}, a jump from i to j > i lands at ``X_i + (t_j - t_i) d_i``. It is judged against
the trajectory itself. No array of N x N x B x d numbers is made.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from papercommons.errors import nearest
from torch import Tensor

Metric = Literal["dev", "l1", "l2"]
METRICS: tuple[Metric, ...] = get_args(Metric)

_ELEMENTS = 1 << 18  # numbers worked on at a time: 2 MiB in float64, which caches hold


@torch.no_grad()
def cost_matrix(
    states: Tensor,
    slopes: Tensor,
    sigmas: Tensor,
    *,
    metric: Metric = "dev",
    chunk: int | None = None,
) -> Tensor:
    """Return the cost of a jump from grid point i to grid point j, for all i < j.

    - ``dev``: the mean over samples of the distance of the landing point to the line through the
      sample's first and last state, minus the same mean for the teacher's own state X_j (0 at the
      last point). Signed: a jump may land nearer to the line than the teacher does.
    - ``l2``, ``l1``: the mean over samples of the norm of the landing point minus X_j.

    Means over samples: matrices of several batches average to that of all, weighted by B.

    Args:
        states: X, any float dtype, shape (N, B, ...) with N >= 2 and B >= 1.
        slopes: d at the start of each step, shape (N - 1, B, ...), on the same device.
        sigmas: t, strictly decreasing, shape (N,).
        metric: ``dev`` (paper), ``l1`` or ``l2``.
        chunk: samples at a time; None chooses so that work stays in the processor's cache.

    Returns:
        float64 on the CPU, shape (N, N); 0 on and below the diagonal.

    Raises:
        ValueError: shapes do not match, sigmas do not decrease, the metric is unknown, states or
            slopes are not finite, or (``dev``) a sample ends where it starts.
    """
    t = _check(states, slopes, sigmas, metric)
    n, batch = states.shape[:2]
    x, d = states.reshape(n, batch, -1), slopes.reshape(n - 1, batch, -1)
    if chunk is None:
        chunk = max(1, _ELEMENTS // (n * max(n, x.shape[2])))
    if chunk < 1:
        raise ValueError(f"chunk must be >= 1, got {chunk}")
    jump = t - t[:-1, None]  # (N - 1, N): t_j - t_i
    summed = {"dev": _sum_dev, "l1": _sum_l1, "l2": _sum_l2}[metric]
    total = torch.zeros(n - 1, n, dtype=torch.float64, device=x.device)
    for start in range(0, batch, chunk):
        part = slice(start, start + chunk)
        state, slope = (v[:, part].transpose(0, 1).to(torch.float64) for v in (x, d))
        total += summed(state, slope, t, jump)  # (b, N, d) and (b, N - 1, d)
    cost = torch.zeros(n, n, dtype=torch.float64)
    cost[:-1] = (total / batch).cpu()
    cost = cost.triu(1)
    if not cost.isfinite().all():
        raise ValueError(_why_not_finite(states, slopes))
    return cost


def _check(states: Tensor, slopes: Tensor, sigmas: Tensor, metric: str) -> Tensor:
    """Return the sigmas in float64 on the states' device."""
    if metric not in METRICS:
        raise ValueError(
            f"metric must be {', '.join(METRICS)}, got {metric!r}{nearest(metric, METRICS)}"
        )
    shape = tuple(states.shape)
    if states.ndim < 2 or shape[0] < 2 or 0 in shape:
        raise ValueError(f"states must be (N, B, ...) with N >= 2 and B >= 1, got {shape}")
    if tuple(slopes.shape) != (shape[0] - 1, *shape[1:]):
        raise ValueError(
            f"slopes must be {(shape[0] - 1, *shape[1:])} for states {shape}, "
            f"got {tuple(slopes.shape)}"
        )
    t = torch.as_tensor(sigmas, dtype=torch.float64).to(states.device)
    if t.shape != shape[:1]:
        raise ValueError(f"sigmas must be ({shape[0]},) for states {shape}, got {tuple(t.shape)}")
    if not (t.diff() < 0).all() or not t.isfinite().all():
        raise ValueError(f"sigmas must be finite and strictly decreasing, got {t.tolist()}")
    return t


def _sum_dev(x: Tensor, d: Tensor, t: Tensor, jump: Tensor) -> Tensor:
    """Return the sum over samples of dist(landing, line) - dist(X_j, line), shape (N - 1, N).

    Across the chord, jumps from i move along a straight line with speed |g_i|; from the jump
    nearest to the chord and its distance follow those of all others, by Pythagoras.
    """
    y = x - x[:, -1:]
    axis = y[:, :1] / torch.linalg.vector_norm(y[:, :1], dim=-1, keepdim=True)
    y = torch.baddbmm(y, y @ axis.mT, axis, alpha=-1)
    g = torch.baddbmm(d, d @ axis.mT, axis, alpha=-1)
    own = torch.linalg.vector_norm(y, dim=-1).sum(0)
    y = y[:, :-1]
    speed = torch.linalg.vector_norm(g, dim=-1)
    inner = torch.einsum("bid,bid->bi", y, g)
    best = torch.where(speed > 1e-150, -inner / speed.square(), 0.0)
    least = torch.linalg.vector_norm(torch.addcmul(y, best[..., None], g), dim=-1)
    along = (jump - best[..., None]).mul_(speed[..., None])
    return along.square_().add_(least.square()[..., None]).sqrt_().sum(0) - own


def _sum_l1(x: Tensor, d: Tensor, t: Tensor, jump: Tensor) -> Tensor:
    """Return the sum over samples of |landing - X_j|_1 for j > i, shape (N - 1, N)."""
    total = torch.zeros_like(jump)
    for i in range(len(jump)):
        miss = torch.addcmul(x[:, i : i + 1], jump[i, i + 1 :, None], d[:, i : i + 1])
        total[i, i + 1 :] = miss.sub_(x[:, i + 1 :]).abs_().sum(2).sum(0)
    return total


def _sum_l2(x: Tensor, d: Tensor, t: Tensor, jump: Tensor) -> Tensor:
    """Return the sum over samples of |landing - X_j| for j > i, shape (N - 1, N).

    The even motion along the chord is also an Euler jump; without it (y, g) no landing error
    changes, but numbers are small. Then ``|y_i + D g_i - y_j|^2`` comes from inner products; the
    entries where these cancel, again directly.
    """
    slope = (x[:, :1] - x[:, -1:]) / (t[0] - t[-1])
    y = torch.addcmul(x - x[:, -1:], (t - t[-1])[:, None], slope, value=-1)
    g = d - slope
    own = y.square().sum(-1)
    drift = g.square().sum(-1, keepdim=True)
    across = g @ y.mT  # g_i . y_j
    first = across.diagonal(dim1=1, dim2=2)[..., None]
    terms = torch.addcmul(own[:, None], jump.square(), drift).add_(own[:, :-1, None])
    square = torch.addcmul(y[:, :-1] @ y.mT, jump, across).mul_(-2).add_(terms)
    square.addcmul_(jump, first, value=2)
    cancelled = (square < terms.mul_(_CANCELLED)).triu_(1)
    miss = square.clamp_(min=0).sqrt_()
    of, start, end = cancelled.nonzero(as_tuple=True)
    step = max(1, _ELEMENTS // y.shape[2])
    for b, i, j in zip(of.split(step), start.split(step), end.split(step), strict=True):
        landing = torch.addcmul(y[b, i], jump[i, j, None], g[b, i])
        miss[b, i, j] = torch.linalg.vector_norm(landing - y[b, j], dim=-1)
    return miss.sum(0)


_CANCELLED = 1e-6  # a square this much below its terms keeps fewer than ten digits


def _why_not_finite(states: Tensor, slopes: Tensor) -> str:
    for name, values in (("states", states), ("slopes", slopes)):
        bad = (~values.isfinite()).flatten(2).any(2) if values.ndim > 2 else ~values.isfinite()
        if bad.any():
            point, sample = bad.nonzero()[0].tolist()
            return f"{name} must be finite, got NaN or infinity at point {point}, sample {sample}"
    same = (states[0] == states[-1]).reshape(states.shape[1], -1).all(1)
    if same.any():
        return (
            "metric dev needs trajectories that end elsewhere than they start, "
            f"got equal ends in sample {same.nonzero()[0].item()}; l1 and l2 do not need it"
        )
    return "states and slopes must be small enough to square in float64, got larger ones"
