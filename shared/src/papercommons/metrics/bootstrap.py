"""Confidence intervals by resampling, vectorised."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

_AT_ONCE = 5_000_000  # weights at a time: some eight arrays of 40 MB


class Estimate(NamedTuple):
    """A number and its interval; NaN where it is not defined.

    Attributes:
        value: on the items themselves.
        low: 2.5th percentile over resamples.
        high: 97.5th percentile.
    """

    value: float
    low: float
    high: float


def estimate(value: float, drawn: Any) -> Estimate:
    """Return a number with the percentiles of its resamples.

    Args:
        value: on the items themselves.
        drawn: on each resample, NaN where it is not defined there; shape (R,).
    """
    defined = np.asarray(drawn, np.float64)
    defined = defined[~np.isnan(defined)]
    if math.isnan(value) or not len(defined):
        return Estimate(float(value), math.nan, math.nan)
    low, high = np.quantile(defined, [0.025, 0.975])
    return Estimate(float(value), float(low), float(high))


def with_intervals(
    measures: Callable[[Tensor], Mapping[str, Any]],
    groups: Sequence[Hashable],
    *,
    draws: int = 1000,
    seed: int = 0,
) -> dict[str, Estimate]:
    """Return measures of items, with 95 % intervals over resamples of whole groups.

    One group tells nothing of others: its intervals are NaN.

    Args:
        measures: from weights of the items, float64, shape (R, N), to name -> values, shape (R,),
            NaN where a measure is not defined. A weight of 2 is the same as an item twice.
        groups: of each item, N >= 1: its source, patient or speaker; a group's items are drawn
            together.
        draws: resamples, >= 1.
        seed: of the resampling.

    Raises:
        ValueError: no items, or draws < 1.
    """
    import torch

    if not groups or draws < 1:
        raise ValueError(f"needs items and draws >= 1, got {len(groups)} items, {draws} draws")
    values = measures(torch.ones(1, len(groups), dtype=torch.double))
    if len(set(groups)) == 1:
        return {name: estimate(float(value[0]), []) for name, value in values.items()}
    chunk = max(1, _AT_ONCE // len(groups))
    drawn = [
        measures(group_weights(groups, draws=min(chunk, draws - start), seed=seed + turn).double())
        for turn, start in enumerate(range(0, draws, chunk))
    ]
    return {
        name: estimate(float(value[0]), np.concatenate([part[name] for part in drawn]))
        for name, value in values.items()
    }


def bootstrap_interval(
    values: Tensor, *, level: float = 0.95, draws: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Return the percentile bootstrap interval of the mean of `values`; NaN for a single one.

    Args:
        values: one finite number per independent item, any real dtype, shape (N,), N >= 1.
        level: share of the interval, in (0, 1).
        draws: resamples, >= 1.
        seed: of the resampling.

    Raises:
        ValueError: `values` is not (N,), empty or not finite, or level or draws is out of range.
    """
    if values.ndim != 1 or len(values) == 0:
        raise ValueError(f"values must be (N,) with N >= 1, got {tuple(values.shape)}")
    if not 0 < level < 1:
        raise ValueError(f"level must be in (0, 1), got {level}")
    if draws < 1:
        raise ValueError(f"draws must be >= 1, got {draws}")
    import torch

    values = values.detach().double().cpu()
    if not torch.isfinite(values).all():
        raise ValueError("values must be finite")
    generator = torch.Generator().manual_seed(seed)
    count = len(values)
    if count == 1:
        return math.nan, math.nan
    per_chunk = max(1, 10_000_000 // count)
    means = [
        values[
            torch.randint(count, (min(per_chunk, draws - start), count), generator=generator)
        ].mean(dim=1)
        for start in range(0, draws, per_chunk)
    ]
    tail = (1 - level) / 2
    low, high = torch.quantile(torch.cat(means), torch.tensor([tail, 1 - tail], dtype=torch.double))
    return float(low), float(high)


def group_weights(groups: Sequence[Hashable], *, draws: int = 2000, seed: int = 0) -> Tensor:
    """Return how often each item counts in each resample of whole groups (patients, speakers).

    Args:
        groups: of each item, N >= 1; a group's items are drawn together.
        draws: resamples, >= 1.
        seed: of the resampling.

    Returns:
        float32, shape (draws, N), whole numbers.

    Raises:
        ValueError: no items, or draws < 1.
    """
    if not groups or draws < 1:
        raise ValueError(f"needs items and draws >= 1, got {len(groups)} items, {draws} draws")
    import torch

    numbers = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    count = len(numbers)
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(count, (draws, count), generator=generator)
    times = torch.zeros(draws, count).scatter_add_(1, drawn, torch.ones(draws, count))
    return times[:, torch.tensor([numbers[group] for group in groups])]
