"""`cmdfd.measures` with bootstrap intervals, all resamples at once."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import partial
from typing import Any

import torch
from papercommons.metrics.bootstrap import Estimate, with_intervals
from torch import Tensor

from cmdfd.measures import clip_measures


def measures_with_intervals(
    scores: Any,
    labels: Any,
    sources: Sequence[Hashable],
    *,
    threshold: float = 0.0,
    draws: int = 1000,
    seed: int = 0,
) -> dict[str, Estimate]:
    """Return `clip_measures` with 95 % intervals over resampled sources.

    Args:
        scores: see `clip_measures`.
        labels: see `clip_measures`.
        sources: what is drawn, one per clip: its person, or itself.
        threshold: see `clip_measures`.
        draws: resamples, >= 1.
        seed: of the resampling.

    Raises:
        ValueError: see `clip_measures`.
    """
    values = clip_measures(scores, labels, threshold=threshold)
    score = torch.as_tensor(scores).double().cpu()
    fake = torch.as_tensor(labels).cpu() == 1
    measures = partial(weighted_measures, score, fake, threshold=threshold)
    found = with_intervals(measures, sources, draws=draws, seed=seed)
    return {name: found[name]._replace(value=value) for name, value in values.items()}


def weighted_measures(
    scores: Tensor, fake: Tensor, weights: Tensor, *, threshold: float = 0.0
) -> dict[str, Tensor]:
    """Return the measures of `clip_measures` for each row of weights.

    A weight of 2 is the same as the clip being there twice.

    Args:
        scores: float64, finite, shape (N,).
        fake: bool, shape (N,).
        weights: >= 0, float64, shape (R, N).
        threshold: see `clip_measures`.

    Returns:
        float64, shape (R,) each; NaN where a class that is needed weighs nothing.
    """
    levels, level = scores.unique(return_inverse=True)
    place = (len(levels) - 1 - level).expand_as(weights)  # highest score first
    nothing = torch.zeros(len(weights), len(levels), dtype=torch.double)
    positive = nothing.scatter_add(1, place, weights * fake)
    negative = nothing.scatter_add(1, place, weights * ~fake)
    hits, alarms = positive.cumsum(1), negative.cumsum(1)
    fakes, reals = _or_nan(hits[:, -1]), _or_nan(alarms[:, -1])
    auc = (positive * (alarms[:, -1:] - alarms + negative / 2)).sum(1) / (fakes * reals)
    ap = (positive * hits / (hits + alarms).clamp(min=1e-12)).sum(1) / fakes
    start = nothing.new_zeros(len(weights), 1)
    missed = 1 - torch.cat([start, hits], 1) / fakes[:, None]
    false = torch.cat([start, alarms], 1) / reals[:, None]
    nearest = (missed - false).abs().nan_to_num(0).argmin(1, keepdim=True)
    eer = false.gather(1, nearest)[:, 0] + 0 * fakes
    called = (scores > threshold).double()
    tp, fp = (weights * fake) @ called, (weights * ~fake) @ called
    total = weights.sum(1)
    fake_recall, real_recall = tp / fakes, 1 - fp / reals
    balanced = (fake_recall + real_recall) / 2
    return {
        "auc": auc,
        "ap": ap,
        "eer": eer,
        "accuracy": (tp + alarms[:, -1] - fp) / _or_nan(total),
        "balanced_accuracy": balanced,
        "f1": 2 * tp / _or_nan(tp + fp + hits[:, -1]),
        "real_recall": real_recall,
        "fake_recall": fake_recall,
        "hter": 1 - balanced,
    }


def _or_nan(values: Tensor) -> Tensor:
    return torch.where(values > 0, values, torch.nan)
