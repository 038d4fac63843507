"""How well scores of clips tell fake from real (specification section 5)."""

from __future__ import annotations

from typing import Any

import numpy as np
from papercommons.metrics.roc import as_array, as_binary, score_levels, unchecked_auc

NAN = float("nan")


def clip_measures(scores: Any, labels: Any, *, threshold: float = 0.0) -> dict[str, float]:
    """Return the paper's and its code's measures of clips.

    ``auc, ap, eer`` judge the order of the scores; ``accuracy, balanced_accuracy, f1, real_recall,
    fake_recall, hter`` what is called fake above the threshold. ``eer`` is the rate of false alarms
    at the threshold where it and that of misses differ least, ``hter`` half the sum of both rates.

    Args:
        scores: higher = more fake, finite, shape (N,), N >= 1.
        labels: 0 real, 1 fake, shape (N,).
        threshold: choose it on other clips than these; 0 is even for the margin of two logits.

    Returns:
        numbers in [0, 1]; NaN where a class that is needed is missing.

    Raises:
        ValueError: shapes do not match, scores are not finite, or labels are not 0 and 1.

    Example:
        >>> clip_measures([-1.0, 2.0, 1.0], [0, 0, 1])["balanced_accuracy"]
        0.75
    """
    scores, fake = as_array(scores).astype(np.float64), as_binary(labels, "labels")
    if scores.ndim != 1 or scores.shape != fake.shape or not len(scores):
        raise ValueError(f"scores and labels must be (N,), got {scores.shape} and {fake.shape}")
    if not np.isfinite(scores).all():
        raise ValueError("scores must be finite")
    called = scores > threshold
    hits, alarms = int((called & fake).sum()), int((called & ~fake).sum())
    fakes, reals = int(fake.sum()), int((~fake).sum())
    fake_recall = hits / fakes if fakes else NAN
    real_recall = 1 - alarms / reals if reals else NAN
    balanced = (fake_recall + real_recall) / 2
    return {
        "auc": unchecked_auc(scores, fake),
        "ap": average_precision(scores, fake),
        "eer": nearest_error_rate(scores, fake),
        "accuracy": (hits + reals - alarms) / len(scores),
        "balanced_accuracy": balanced,
        "f1": 2 * hits / (hits + alarms + fakes) if hits + alarms + fakes else NAN,
        "real_recall": real_recall,
        "fake_recall": fake_recall,
        "hter": 1 - balanced,
    }


def average_precision(scores: np.ndarray, fake: np.ndarray) -> float:
    """Return the sum of precision times gain in recall, from the highest score down.

    Args:
        scores: finite, shape (N,).
        fake: bool, shape (N,).
    """
    _, positive, negative = score_levels(scores, fake)
    if not positive.sum():
        return NAN
    hits, alarms = positive[::-1].cumsum(), negative[::-1].cumsum()
    return float((positive[::-1] * hits / (hits + alarms)).sum() / hits[-1])


def nearest_error_rate(scores: np.ndarray, fake: np.ndarray) -> float:
    """Return the rate of false alarms where it is nearest to that of misses, not interpolated.

    Args:
        scores: finite, shape (N,).
        fake: bool, shape (N,).
    """
    _, positive, negative = score_levels(scores, fake)
    if not positive.sum() or not negative.sum():
        return NAN
    missed = 1 - np.append(0, positive[::-1].cumsum()) / positive.sum()
    alarms = np.append(0, negative[::-1].cumsum()) / negative.sum()
    return float(alarms[np.abs(missed - alarms).argmin()])
