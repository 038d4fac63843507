"""How well scores tell fake from real, for many sets of weights at once: intervals by resampling.

Sources (videos, identities) are drawn with replacement, so that images of one video, which are much
alike, do not count as independent.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import torch
from papercommons.metrics.bootstrap import Estimate, with_intervals
from torch import Tensor

FALSE_ALARMS = 0.01


def detection_measures(
    scores: Tensor, fake: Tensor, weights: Tensor | None = None, *, threshold: float = 0.0
) -> dict[str, Tensor]:
    """Return how well scores tell fake from real, for each row of weights.

    An item is called fake at a score >= a threshold. ``tpr_at_1_fpr`` is the highest share of fakes
    called so while at most 1 % of the real ones are; ``ap`` the mean precision over the fakes;
    ``eer`` the rate at which false alarms and misses are equal, interpolated between thresholds.

    Args:
        scores: higher = more fake, any real dtype, finite, shape (N,), N >= 1.
        fake: bool, shape (N,).
        weights: >= 0, shape (R, N); None is one row of ones.
        threshold: of ``accuracy`` and ``balanced_accuracy``.

    Returns:
        ``auc, ap, eer, tpr_at_1_fpr, accuracy, balanced_accuracy``: float64, shape (R,); NaN where
        a class that is needed weighs nothing.

    Raises:
        ValueError: shapes do not match, or scores are not finite.
    """
    weights = torch.ones(1, len(scores)) if weights is None else weights
    if scores.ndim != 1 or fake.shape != scores.shape or weights.shape[1:] != scores.shape:
        raise ValueError(
            f"scores and fake must be (N,) and weights (R, N), got {tuple(scores.shape)}, "
            f"{tuple(fake.shape)} and {tuple(weights.shape)}"
        )
    if not len(scores) or not torch.isfinite(scores).all():
        raise ValueError("scores must be finite, and at least one")
    levels, level = scores.unique(return_inverse=True)
    weights, level = weights.double(), level.expand(len(weights), -1)
    zeros = weights.new_zeros(len(weights), len(levels))
    fakes = zeros.scatter_add(1, level, weights * fake)
    reals = zeros.scatter_add(1, level, weights * ~fake)
    of_fakes, of_reals = fakes.sum(1, keepdim=True), reals.sum(1, keepdim=True)
    fakes, reals = (
        part / torch.where(whole > 0, whole, torch.nan)
        for part, whole in ((fakes, of_fakes), (reals, of_reals))
    )
    hits, alarms = (part.flip(1).cumsum(1).flip(1) for part in (fakes, reals))
    precision = hits * of_fakes / (hits * of_fakes + alarms * of_reals)
    called = levels >= threshold
    hit, alarm = fakes @ called.double(), reals @ called.double()
    of_fakes, of_reals = of_fakes[:, 0], of_reals[:, 0]
    right = torch.where(of_fakes > 0, hit, 0) * of_fakes
    right = right + torch.where(of_reals > 0, 1 - alarm, 0) * of_reals
    allowed = torch.where(alarms <= FALSE_ALARMS + 1e-12, hits, hits * 0)
    return {
        "auc": (fakes * (reals.cumsum(1) - reals / 2)).sum(1),
        "ap": (fakes * torch.where(fakes > 0, precision, 0)).sum(1) + 0 * alarm,
        "eer": _equal_errors(fakes, reals),
        "tpr_at_1_fpr": allowed.amax(1) + 0 * alarm,
        "accuracy": right / (of_fakes + of_reals),
        "balanced_accuracy": (hit + 1 - alarm) / 2,
    }


def _equal_errors(fakes: Tensor, reals: Tensor) -> Tensor:
    """Return the equal error rate from shares at ascending levels, (R, L) each."""
    start = fakes.new_zeros(len(fakes), 1)
    missed = torch.cat([start, fakes.cumsum(1)], 1)
    gap = missed + torch.cat([start, reals.cumsum(1)], 1) - 1  # misses - false alarms
    after = (gap >= -1e-12).int().argmax(1, keepdim=True).clamp(min=1)
    g0, g1 = gap.gather(1, after - 1), gap.gather(1, after)
    m0, m1 = missed.gather(1, after - 1), missed.gather(1, after)
    return (m0 - g0 / (g1 - g0) * (m1 - m0))[:, 0]


def detection_intervals(
    scores: Tensor,
    fake: Tensor,
    sources: Sequence[Hashable],
    *,
    threshold: float = 0.0,
    draws: int = 1000,
    seed: int = 0,
) -> dict[str, Estimate]:
    """Return `detection_measures` with 95 % intervals over resampled sources.

    Args:
        scores: see `detection_measures`.
        fake: see `detection_measures`.
        sources: what is drawn, one per item, such as its video.
        threshold: see `detection_measures`.
        draws: resamples, >= 1.
        seed: of the resampling.

    Raises:
        ValueError: see `detection_measures`; or draws < 1.
    """
    return with_intervals(
        lambda weights: detection_measures(scores, fake, weights, threshold=threshold),
        sources,
        draws=draws,
        seed=seed,
    )
