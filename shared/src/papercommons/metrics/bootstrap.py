"""Confidence intervals by resampling, vectorised."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import torch
from torch import Tensor


def bootstrap_interval(
    values: Tensor, *, level: float = 0.95, draws: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Return the percentile bootstrap interval of the mean of `values`.

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
    values = values.detach().double().cpu()
    if not torch.isfinite(values).all():
        raise ValueError("values must be finite")
    generator = torch.Generator().manual_seed(seed)
    count = len(values)
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
    numbers = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    count = len(numbers)
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(count, (draws, count), generator=generator)
    times = torch.zeros(draws, count).scatter_add_(1, drawn, torch.ones(draws, count))
    return times[:, torch.tensor([numbers[group] for group in groups])]
