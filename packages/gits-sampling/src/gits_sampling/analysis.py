"""The geometry of sampling trajectories: statistics and low-dimensional views (section 3.2).

Trajectories are (N, B, ...): N points from sigma_max down, B samples. Deviations are under 0.5 % of
the chord, so everything is computed in float64, and distances to the chord from the explicit
perpendicular component.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from gits_sampling.curvature import curvature_torsion as curvature_torsion
from gits_sampling.models import Denoiser

_CHUNK = 2**24  # values of a block of trajectories at once: 128 MiB
_TINY = 1e-300  # keeps 0 / 0 at 0


class Curve(NamedTuple):
    """A statistic over the samples at each noise level: float64, all of one length."""

    sigmas: Tensor
    mean: Tensor
    std: Tensor


@dataclass(frozen=True)
class TrajectoryStatistics:
    """What `trajectory_statistics` measures: float64, per point and sample.

    Attributes:
        sigmas: noise levels t, shape (N,).
        magnitude_state: norm of x_t, (N, B).
        magnitude_denoised: norm of D(x_t), (N - 1, B).
        magnitude_slope: norm of (x_t - D(x_t)) / t, (N - 1, B).
        deviation_state: distance of interior points to the chord, (N - 2, B).
        deviation_denoised: the same for D(x_t) and the chord of its own, (N - 3, B).
        distance_state: norm of x_t - x_last, (N, B).
        distance_denoised: norm of D(x_t) - D(x_last), (N - 1, B).
        cosine: of the slope with x_t - x_last, (N - 1, B).
    """

    sigmas: Tensor
    magnitude_state: Tensor
    magnitude_denoised: Tensor
    magnitude_slope: Tensor
    deviation_state: Tensor
    deviation_denoised: Tensor
    distance_state: Tensor
    distance_denoised: Tensor
    cosine: Tensor

    def curves(self) -> dict[str, Curve]:
        """Return each statistic's mean and population standard deviation against sigma."""
        result = {}
        for name in (field.name for field in fields(self) if field.name != "sigmas"):
            values: Tensor = getattr(self, name)
            first = 1 if name.startswith("deviation") else 0  # the ends of a chord have none
            sigmas = self.sigmas[first : first + len(values)]
            result[name] = Curve(sigmas, values.mean(1), values.std(1, correction=0))
        return result


@dataclass(frozen=True)
class OptimalityGap:
    """How far a model and its trajectory are from the optimal ones; float64.

    Attributes:
        state: norm of x_t - x*_t, (N, B).
        denoised: norm of D(x_t) - D*(x*_t), (N - 1, B).
        on_own: norm of D(x_t) - D*(x_t), (N - 1, B).
        on_optimal: norm of D(x*_t) - D*(x*_t), (N - 1, B).
    """

    state: Tensor
    denoised: Tensor
    on_own: Tensor
    on_optimal: Tensor


@dataclass(frozen=True)
class ChordFrame:
    """A trajectory in its own axes: the chord, then principal directions across it; float64.

    Attributes:
        origin: the end point, (B, d).
        axes: orthonormal rows, (B, 1 + k, d): from the end towards the start, then the PCs.
        coordinates: of the points, (N, B, 1 + k); PCs positive at the middle point.
        energy: cumulative share of the part across the chord in the PCs, (B, k), in [0, 1].
    """

    origin: Tensor
    axes: Tensor
    coordinates: Tensor
    energy: Tensor


@dataclass(frozen=True)
class Reconstruction:
    """How well few directions rebuild each trajectory; float64, (B, k).

    Attributes:
        energy: cumulative share of the variance in the first 1..k PCs of the centred points.
        error: Frobenius norm of what 1..k PCs leave, relative to that of the centred points.
        chord_error: the same error of the chord with 1..k PCs across it, from the end point.
    """

    energy: Tensor
    error: Tensor
    chord_error: Tensor


def trajectory_statistics(states: Tensor, denoised: Tensor, sigmas: Tensor) -> TrajectoryStatistics:
    """Return magnitude, deviation, distance and cosine of each sample's trajectory.

    Args:
        states: x at each noise level, float, shape (N, B, ...), N >= 4.
        denoised: D(x; sigma) at all but the last, shape (N - 1, B, ...).
        sigmas: noise levels, strictly decreasing, > 0, shape (N,).

    Raises:
        ValueError: shapes or noise levels that do not fit, or a chord of length zero.
    """
    if states.ndim < 3 or len(states) < 4 or denoised.shape != (len(states) - 1, *states.shape[1:]):
        raise ValueError(
            "states must be (N, B, ...) with N >= 4 and denoised (N - 1, B, ...), "
            f"got {tuple(states.shape)} and {tuple(denoised.shape)}"
        )
    t = _check_sigmas(sigmas, len(states)).to(states.device)
    _check_chords(states)
    blocks = zip(_by_samples(states), _by_samples(denoised, len(states)), strict=True)
    parts = [_statistics(x, d, t[:-1, None, None]) for x, d in blocks]
    return TrajectoryStatistics(t, *(torch.cat(part, 1) for part in zip(*parts, strict=True)))


def _statistics(x: Tensor, denoised: Tensor, t: Tensor) -> tuple[Tensor, ...]:
    """Return the fields after sigmas, of states (N, B, d) and denoised (N - 1, B, d)."""
    slope, to_end = (x[:-1] - denoised) / t, x - x[-1]
    speed, distance = slope.norm(dim=2), to_end.norm(dim=2)
    product = (speed * distance[:-1]).clamp(min=_TINY)
    return (
        x.norm(dim=2),
        denoised.norm(dim=2),
        speed,
        _across_chord(x)[1:-1].norm(dim=2),
        _across_chord(denoised)[1:-1].norm(dim=2),
        distance,
        (denoised - denoised[-1]).norm(dim=2),
        (slope * to_end[:-1]).sum(2) / product,
    )


@torch.no_grad()
def optimality_gap(
    denoiser: Denoiser, optimal: Denoiser, states: Tensor, optimal_states: Tensor, sigmas: Tensor
) -> OptimalityGap:
    """Return the gaps between a model and the optimal denoiser of its training set.

    Args:
        denoiser: the model D.
        optimal: D*, for example `EmpiricalDenoiser`.
        states: the model's trajectory x, float, shape (N, B, ...), N >= 2.
        optimal_states: the optimal trajectory x* from the same latents, the same shape.
        sigmas: noise levels, strictly decreasing, > 0, shape (N,).

    Raises:
        ValueError: shapes or noise levels that do not fit.
    """
    if states.ndim < 3 or len(states) < 2 or states.shape != optimal_states.shape:
        raise ValueError(
            "states and optimal_states must both be (N, B, ...) with N >= 2, "
            f"got {tuple(states.shape)} and {tuple(optimal_states.shape)}"
        )
    t = _check_sigmas(sigmas, len(states))
    apart = [_distance(x, best) for x, best in zip(states, optimal_states, strict=True)]
    gaps = []
    for x, best, level in zip(states[:-1], optimal_states[:-1], t[:-1], strict=True):
        own, ideal = denoiser(x, level), optimal(best, level)
        on_own, on_optimal = optimal(x, level), denoiser(best, level)
        pairs = (own, ideal), (own, on_own), (on_optimal, ideal)
        gaps.append(torch.stack([_distance(a, b) for a, b in pairs]))
    return OptimalityGap(torch.stack(apart), *torch.stack(gaps, 1))


def chord_frame(states: Tensor, *, components: int = 2) -> ChordFrame:
    """Return each trajectory in the axes of its chord and the PCs of what lies across it.

    The principal directions are those of the perpendicular parts themselves, which vanish at both
    ends, without centring. Signs: the chord's coordinate is positive towards the start, a PC's at
    the middle point.

    Args:
        states: float, shape (N, B, ...), N >= 3.
        components: k, 1 to min(N, d).

    Raises:
        ValueError: components out of range, fewer than three points or a chord of length zero.
    """
    _check_components(states, components)
    _check_chords(states)
    parts = [_frame(x, components) for x in _by_samples(states)]
    origin, axes, coordinates, energy = zip(*parts, strict=True)
    return ChordFrame(
        torch.cat(origin), torch.cat(axes), torch.cat(coordinates, 1), torch.cat(energy)
    )


def _frame(x: Tensor, components: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the fields of `ChordFrame` for states (N, B, d)."""
    across = _across_chord(x).transpose(0, 1)  # (B, N, d)
    _, singular, directions = torch.linalg.svd(across, full_matrices=False)
    directions = directions[:, :components]
    middle = across[:, len(x) // 2, None] @ directions.mT  # (B, 1, k)
    directions = torch.where(middle.mT < 0, -directions, directions)
    chord = F.normalize(x[0] - x[-1], dim=1, eps=_TINY)
    axes = torch.cat([chord[:, None], directions], 1)
    coordinates = torch.einsum("nbd,bkd->nbk", x - x[-1], axes)
    return x[-1], axes, coordinates, _cumulative(singular, components)


def pca_reconstruction(states: Tensor, *, components: int = 5) -> Reconstruction:
    """Return how much of each trajectory 1..k principal directions hold.

    Args:
        states: float, shape (N, B, ...), N >= 3.
        components: k, 1 to min(N, d).

    Raises:
        ValueError: components out of range, fewer than three points or a chord of length zero.
    """
    _check_components(states, components)
    _check_chords(states)
    parts = []
    for x in _by_samples(states):
        centred = torch.linalg.svdvals((x - x.mean(0)).transpose(0, 1))
        across = torch.linalg.svdvals(_across_chord(x).transpose(0, 1))
        size = centred.norm(dim=1, keepdim=True)
        parts.append(
            (
                _cumulative(centred, components),
                _left(centred, components) / size,
                _left(across, components) / size,
            )
        )
    return Reconstruction(*(torch.cat(part) for part in zip(*parts, strict=True)))


def central_trajectories(coordinates: Tensor, *, keep: float = 0.8) -> Tensor:
    """Return which trajectories to draw: the middle ones by ``sum(PC1^2 + 10 PC2^2)``.

    Args:
        coordinates: of `chord_frame` with two PCs, shape (N, B, 3).
        keep: share of the samples, in (0, 1].

    Returns:
        Sample indices, ascending, int64; at least one.

    Raises:
        ValueError: another shape, or keep out of range.
    """
    if coordinates.ndim != 3 or coordinates.shape[2] != 3:
        raise ValueError(f"coordinates must be (N, B, 3), got {tuple(coordinates.shape)}")
    if not 0 < keep <= 1:
        raise ValueError(f"keep must be in (0, 1], got {keep}")
    size = (coordinates[..., 1].square() + 10 * coordinates[..., 2].square()).sum(0)
    count = max(1, round(keep * len(size)))
    first = (len(size) - count) // 2
    return size.argsort(stable=True)[first : first + count].sort().values


def _across_chord(x: Tensor) -> Tensor:
    """Return each point's part across its trajectory's chord, seen from the end, (N, B, d)."""
    from_end = x - x[-1]
    chord = F.normalize(from_end[0], dim=1, eps=_TINY)
    return from_end - (from_end * chord).sum(2, keepdim=True) * chord


def _cumulative(singular: Tensor, components: int) -> Tensor:
    """Return the share of the energy in the first 1..k singular values (B, r); 1 if all are 0."""
    energy = singular.square().cumsum(1)
    total = energy[:, -1:]
    return torch.where(total > 0, energy / total, 1.0)[:, :components]


def _left(singular: Tensor, components: int) -> Tensor:
    """Return the norm of the singular values (B, r) after the first 1..k."""
    tail = singular.square().flip(1).cumsum(1).flip(1).sqrt()
    return F.pad(tail, (0, 1))[:, 1 : components + 1]


def _distance(a: Tensor, b: Tensor) -> Tensor:
    return (a.double() - b.double()).flatten(1).norm(dim=1)


def _by_samples(x: Tensor, points: int | None = None) -> Iterator[Tensor]:
    """Yield (N, b, d) in float64, a bounded number of samples at once."""
    flat = x.flatten(2)
    size = max(1, _CHUNK // ((points or len(x)) * max(1, flat.shape[2])))
    return (part.double() for part in flat.split(size, dim=1))


def _check_sigmas(sigmas: Tensor, points: int) -> Tensor:
    t = sigmas.detach().double()
    if t.shape != (points,):
        raise ValueError(f"sigmas must be ({points},), one per state, got {tuple(t.shape)}")
    if not t.isfinite().all() or (t.diff() >= 0).any() or t[-1] < 0:
        raise ValueError(f"sigmas must be finite, > 0 and strictly decreasing, got {t.tolist()}")
    return t


def _check_chords(states: Tensor) -> None:
    length = _distance(states[0], states[-1])
    wrong = ~(length.isfinite() & (length > 0))
    if wrong.any():
        first = int(wrong.nonzero()[0])
        raise ValueError(
            f"a trajectory must end elsewhere than it starts, got length {length[first]:g} "
            f"for sample {first}"
        )


def _check_components(states: Tensor, components: int) -> None:
    if states.ndim < 3 or len(states) < 3:
        raise ValueError(f"states must be (N, B, ...) with N >= 3, got {tuple(states.shape)}")
    most = min(len(states), states[0, 0].numel())
    if not 1 <= components <= most:
        raise ValueError(f"components must be 1 to {most}, got {components}")
