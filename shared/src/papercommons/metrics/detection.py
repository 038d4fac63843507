"""Is there anything altered in an image at all? Image-level measures and false alarms."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from papercommons.metrics.bootstrap import Estimate, with_intervals
from papercommons.metrics.roc import as_array, as_binary

if TYPE_CHECKING:
    from torch import Tensor

Score = Literal["max", "top1"]


def image_score(probability: Any, how: Score = "max") -> float:
    """Return one number for an image from its map of probabilities.

    Args:
        probability: float in [0, 1], or uint8, read as 255ths, shape (H, W).
        how: ``max``, the published way, which one wrong pixel decides; ``top1``, the mean of the
            highest 1 % of the pixels (at least one).

    Returns:
        a number in [0, 1].

    Raises:
        ValueError: an empty map, or an unknown way.
    """
    scores = as_array(probability)
    if scores.size == 0 or how not in ("max", "top1"):
        raise ValueError(f"needs a map with pixels, and max or top1, got {scores.shape}, {how!r}")
    white = 255 if scores.dtype == np.uint8 else 1
    if how == "max":
        return float(scores.max()) / white
    most = max(1, scores.size // 100)
    return float(np.partition(scores, -most, axis=None)[-most:].mean(dtype=np.float64)) / white


def image_metrics(
    scores: Any,
    altered: Any,
    *,
    threshold: float = 0.5,
    sources: Sequence[Hashable] | None = None,
    draws: int = 2000,
    seed: int = 0,
) -> dict[str, Estimate]:
    """Return how well scores tell altered images from authentic ones.

    Args:
        scores: of the images, finite, shape (N,), N >= 1.
        altered: 1 or 0, shape (N,).
        threshold: an image is called altered above it.
        sources: what the interval resamples, one per image; None is the images.
        draws: resamples, >= 1.
        seed: of the resampling.

    Returns:
        ``auc, balanced_accuracy, f1, accuracy, false_alarm_rate, detection_rate`` with 95 %
        intervals; NaN where a class that is needed is missing.

    Raises:
        ValueError: shapes do not match, no images, or scores that are not finite.
    """
    score, truth = as_array(scores).astype(np.float64), as_binary(altered, "altered")
    names = range(len(score)) if sources is None else sources
    if score.ndim != 1 or not score.shape == truth.shape == (len(names),):
        raise ValueError(
            "scores, altered and sources must be (N,), "
            f"got {score.shape}, {truth.shape}, {len(names)}"
        )
    return with_intervals(
        lambda weights: _measures(score, truth, weights, threshold), names, draws=draws, seed=seed
    )


def _measures(
    score: np.ndarray, truth: np.ndarray, weights: Tensor, threshold: float
) -> dict[str, Tensor]:
    """Return every measure for each row of weights, (R, N)."""
    import torch

    from papercommons.metrics.roc import weighted_auc

    altered = torch.from_numpy(truth)
    called = torch.from_numpy(score > threshold)
    tp, fn, fp, tn = (
        weights @ (kind & said).double()
        for kind in (altered, ~altered)
        for said in (called, ~called)
    )
    hit, alarm = tp / (tp + fn), fp / (fp + tn)
    return {
        "auc": weighted_auc(torch.from_numpy(score), altered, weights),
        "balanced_accuracy": (hit + 1 - alarm) / 2,
        "f1": torch.where(tp + fn > 0, 2 * tp / (2 * tp + fp + fn), torch.nan),
        "accuracy": (tp + tn) / weights.sum(1),
        "false_alarm_rate": alarm,
        "detection_rate": hit,
    }


def false_alarm_threshold(authentic: Any, rate: float) -> float:
    """Return the lowest threshold above which at most a share of authentic images lies.

    Take the scores from other images than those judged with it. With fewer than 1 / rate of them
    the threshold is the highest score.

    Args:
        authentic: scores of authentic images, finite, shape (N,), N >= 1.
        rate: the share, in [0, 1).

    Raises:
        ValueError: no scores, scores that are not finite, or a rate out of range.

    Example:
        >>> false_alarm_threshold([0.1, 0.2, 0.3, 0.4], 0.25)
        0.3
    """
    scores = np.sort(as_array(authentic).astype(np.float64).ravel())
    if not len(scores) or not np.isfinite(scores).all():
        raise ValueError(f"needs finite scores of authentic images, got {len(scores)}")
    if not 0 <= rate < 1:
        raise ValueError(f"rate must be in [0, 1), got {rate}")
    return float(scores[len(scores) - 1 - math.floor(rate * len(scores) + 1e-9)])
