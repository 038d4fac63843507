"""Verification (same writer or not?) judged by its scores, with intervals over writers."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from papercommons.metrics.bootstrap import Estimate, estimate
from papercommons.metrics.calibration import (
    Calibration,
    brier,
    check_scores,
    cllr,
    cllr_losses,
    ece,
    fit_calibration,
    min_cllr,
    min_cllr_of_levels,
    probability_bins,
    tippett,
)

__all__ = [
    "Calibration",
    "accuracy_threshold",
    "brier",
    "cllr",
    "ece",
    "embedding_spread",
    "equal_error_rate",
    "fit_calibration",
    "min_cllr",
    "pair_weights",
    "tippett",
    "verification_metrics",
]

_BINS = 15
_CHUNK = 2_000_000  # weights at a time: some ten arrays of 16 MB


def _weighted_auc(scores: np.ndarray, same: np.ndarray, weights: np.ndarray) -> np.ndarray:
    import torch

    from papercommons.metrics.roc import weighted_auc

    arrays = (torch.from_numpy(array) for array in (scores, same, weights))
    return weighted_auc(*arrays).numpy()


def _cuts(levels: np.ndarray) -> np.ndarray:
    """Return the thresholds between ascending `levels` (L,): at or below, midway, above; (L + 1,).

    A score >= threshold is accepted: the first accepts all, the last nothing.
    """
    middle = levels[:-1] + np.diff(levels) / 2
    middle = np.where(middle > levels[:-1], middle, levels[1:])
    return np.concatenate([levels[:1], middle, np.nextafter(levels[-1:], np.inf)])


class _Levels:
    """Weights of both classes at each level of the score."""

    def __init__(self, scores: np.ndarray, same: np.ndarray) -> None:
        self.order = np.argsort(scores, kind="stable")
        levels, self.starts = np.unique(scores[self.order], return_index=True)
        self.cuts, self.same = _cuts(levels), same[self.order]

    def masses(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the weight of same and of different pairs, (R, L), from pair weights (R, P)."""
        ordered = weights[:, self.order].astype(np.float64)
        of_same = np.add.reduceat(np.where(self.same, ordered, 0), self.starts, axis=1)
        return of_same, np.add.reduceat(ordered, self.starts, axis=1) - of_same


def _below(masses: np.ndarray) -> np.ndarray:
    """Return the weight below each cut, (R, L + 1), from that at each level, (R, L)."""
    return np.concatenate([np.zeros((len(masses), 1)), masses.cumsum(1)], axis=1)


def accuracy_threshold(scores: ArrayLike, same: ArrayLike) -> float:
    """Return the threshold of greatest accuracy: midway between two scores, the lowest such.

    Args:
        scores: higher = more alike, finite, shape (P,); a score >= threshold is accepted.
        same: 1 or 0, shape (P,).

    Raises:
        ValueError: shapes do not match, or a score is NaN.

    Example:
        >>> accuracy_threshold([0.0, 1.0, 2.0], [0, 0, 1])
        1.5
    """
    scores, same = check_scores(scores, same)
    levels = _Levels(scores, same)
    of_same, of_different = levels.masses(np.ones((1, len(same))))
    correct = _below(of_different) - _below(of_same)  # but for a constant
    return float(levels.cuts[correct[0].argmax()])


def equal_error_rate(scores: ArrayLike, same: ArrayLike) -> tuple[float, float]:
    """Return the rate at which false matches and false non-matches are equal, and its threshold.

    Between two thresholds both are interpolated.

    Args:
        scores: higher = more alike, finite, shape (P,).
        same: 1 or 0, shape (P,).

    Returns:
        rate in [0, 1] and threshold; NaN if only one class is there.

    Raises:
        ValueError: shapes do not match, or a score is NaN.

    Example:
        >>> equal_error_rate([0.0, 1.0], [0, 1])
        (0.0, 0.5)
    """
    scores, same = check_scores(scores, same)
    levels = _Levels(scores, same)
    rate, cut, part = _equal_errors(*levels.masses(np.ones((1, len(same)))))
    if np.isnan(rate[0]):
        return float("nan"), float("nan")
    low, high = levels.cuts[cut[0] - 1], levels.cuts[cut[0]]
    return float(rate[0]), float(high if part[0] == 1 else low + part[0] * (high - low))


def _equal_errors(
    of_same: np.ndarray, of_different: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return of each row the rate, and the cut before which and how far towards which it lies."""
    rows = np.arange(len(of_same))
    missed, refused = _below(of_same), _below(of_different)
    with np.errstate(divide="ignore", invalid="ignore"):
        missed /= missed[:, -1:]
        gap = missed + refused / refused[:, -1:] - 1  # false non-matches - false matches
    cut = np.maximum(1, (gap >= 0).argmax(1))
    before, after = gap[rows, cut - 1], gap[rows, cut]
    part = -before / (after - before)
    rate = missed[rows, cut - 1] + part * (missed[rows, cut] - missed[rows, cut - 1])
    return rate, cut, part


def pair_weights(
    left_writers: Sequence[Hashable],
    right_writers: Sequence[Hashable],
    *,
    draws: int = 1000,
    seed: int = 0,
) -> np.ndarray:
    """Return how often each pair counts in each resample of writers.

    Writers are drawn with replacement; a pair's weight is the product of how often its writers were
    drawn. A pair of one writer has one: its square would count such pairs twice as often as the
    data do, and the intervals of accuracy and precision would miss their values.

    Args:
        left_writers: of each pair, P >= 1.
        right_writers: of each pair.
        draws: resamples R, >= 1.
        seed: of the resampling.

    Returns:
        float32, shape (R, P), whole numbers.

    Raises:
        ValueError: lengths differ, no pairs, or draws < 1.
    """
    times, left, right = _writer_draws(left_writers, right_writers, draws, seed)
    return _products(times, left, right)


def _writer_draws(
    left_writers: Sequence[Hashable], right_writers: Sequence[Hashable], draws: int, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return how often each writer is drawn, (R, W), and the numbers of both writers, (P,)."""
    from papercommons.metrics.bootstrap import group_weights

    if len(left_writers) != len(right_writers):
        raise ValueError(f"{len(left_writers)} left writers, but {len(right_writers)} right ones")
    both = [*left_writers, *right_writers]
    number = {writer: n for n, writer in enumerate(dict.fromkeys(both))}
    times = group_weights(list(number), draws=draws, seed=seed).numpy()
    left, right = np.array([number[writer] for writer in both]).reshape(2, -1)
    return times, left, right


def _products(times: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return times[:, left] * np.where(left == right, 1, times[:, right])


def verification_metrics(
    scores: ArrayLike,
    llr: ArrayLike,
    same: ArrayLike,
    left_writers: Sequence[Hashable],
    right_writers: Sequence[Hashable],
    *,
    threshold: float,
    draws: int = 1000,
    seed: int = 0,
) -> dict[str, Estimate]:
    """Return all measures with 95 % intervals over writers (`pair_weights`).

    ``accuracy, precision, recall, f1, false_match_rate, false_non_match_rate`` at the threshold;
    ``auc, eer, min_cllr`` of the scores; ``accuracy_at_half, brier, ece, cllr`` of the
    log-likelihood ratios, where a probability is that of same writer at even prior odds.

    Args:
        scores: higher = more alike, finite, shape (P,).
        llr: natural-log likelihood ratios, finite, shape (P,).
        same: 1 or 0, shape (P,).
        left_writers: of each pair.
        right_writers: of each pair.
        threshold: a score >= threshold is accepted; choose it on other pairs than these.
        draws: resamples of writers, >= 1.
        seed: of the resampling.

    Returns:
        `Estimate` by name; NaN where a class is missing.

    Raises:
        ValueError: shapes do not match, values are not finite, or threshold is NaN.
    """
    scores, same = check_scores(scores, same)
    llr = check_scores(llr, same)[0]
    if not np.isfinite(scores).all() or not np.isfinite(llr).all() or np.isnan(threshold):
        raise ValueError("scores and llr must be finite, and threshold not NaN")
    if len(left_writers) != len(same):
        raise ValueError(f"{len(same)} pairs, but writers of {len(left_writers)}")
    measures = _measures_of(scores, llr, same, threshold)
    values = measures(np.ones((1, len(same))))
    times, left, right = _writer_draws(left_writers, right_writers, draws, seed)
    chunk = max(1, _CHUNK // len(same))
    drawn = [
        measures(_products(times[start : start + chunk], left, right))
        for start in range(0, draws, chunk)
    ]
    return {
        name: estimate(float(value[0]), np.concatenate([part[name] for part in drawn]))
        for name, value in values.items()
    }


_Measures = Callable[[np.ndarray], dict[str, np.ndarray]]


def _measures_of(
    scores: np.ndarray, llr: np.ndarray, same: np.ndarray, threshold: float
) -> _Measures:
    """Return the function from pair weights, (R, P), to every measure, (R,)."""
    accepted = scores >= threshold
    probability = 1 / (1 + np.exp(-np.clip(llr, -700, 700)))
    error = probability - same
    loss = cllr_losses(llr, same)
    in_bin = probability_bins(probability, _BINS)[:, None] == np.arange(_BINS)
    counted = [same & accepted, same & ~accepted, ~same & accepted, ~same & ~accepted]
    summed = [(llr >= 0) == same, error**2, loss * same, loss * ~same]
    columns = np.column_stack([*counted, *summed, in_bin * error[:, None]]).astype(np.float64)
    levels = _Levels(scores, same)

    def measures(weights: np.ndarray) -> dict[str, np.ndarray]:
        sums = weights @ columns
        tp, fn, fp, tn, correct, squares, loss_same, loss_different = sums[:, :8].T
        total = tp + fn + fp + tn
        of_same, of_different = levels.masses(weights)
        rows = zip(of_same, of_different, strict=True)
        with np.errstate(invalid="ignore", divide="ignore"):
            return {
                "accuracy": (tp + tn) / total,
                "precision": tp / (tp + fp),
                "recall": tp / (tp + fn),
                "f1": 2 * tp / (2 * tp + fp + fn),
                "false_match_rate": fp / (fp + tn),
                "false_non_match_rate": fn / (tp + fn),
                "auc": _weighted_auc(scores, same, weights),
                "eer": _equal_errors(of_same, of_different)[0],
                "min_cllr": np.array([min_cllr_of_levels(*row) for row in rows]),
                "accuracy_at_half": correct / total,
                "brier": squares / total,
                "ece": np.abs(sums[:, 8:]).sum(1) / total,
                "cllr": (loss_same / (tp + fn) + loss_different / (fp + tn)) / 2,
            }

    return measures


def embedding_spread(embeddings: ArrayLike, writers: Sequence[Hashable]) -> dict[str, float]:
    """Return the mean cosine inside and between writers, without self-pairs.

    Sums per writer stand for the N x N matrix of cosines.

    Args:
        embeddings: finite, shape (N, D); a row of zeros has cosine 0 with all.
        writers: of each row.

    Returns:
        ``intra_pairs`` and ``inter_pairs``, means over pairs; ``intra_writers`` and
        ``inter_writers``, means over writers and over pairs of writers, of their own means; and
        ``gap_pairs``, ``gap_writers``, intra minus inter. NaN where there are no such pairs.

    Raises:
        ValueError: shapes do not match, or embeddings are not finite.
    """
    rows = np.asarray(embeddings, np.float64)
    if rows.ndim != 2 or len(rows) != len(writers):
        raise ValueError(
            f"embeddings must be (N, D) of N writers, got {rows.shape}, {len(writers)}"
        )
    if not np.isfinite(rows).all():
        raise ValueError("embeddings must be finite")
    numbers = {writer: number for number, writer in enumerate(dict.fromkeys(writers))}
    number = np.array([numbers[writer] for writer in writers], np.int64)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    rows = rows / np.where(norms > 0, norms, 1)
    count = np.bincount(number).astype(np.float64)
    sums = np.zeros((len(count), rows.shape[1]))
    np.add.at(sums, number, rows)
    means = sums / count[:, None]
    own = np.bincount(number, np.square(rows).sum(1))
    inside, pairs = (np.square(sums).sum(1) - own) / 2, count * (count - 1) / 2
    every = (np.square(sums.sum(0)).sum() - own.sum()) / 2
    several = pairs > 0
    found = {
        "intra_pairs": _ratio(inside.sum(), pairs.sum()),
        "inter_pairs": _ratio(every - inside.sum(), len(rows) * (len(rows) - 1) / 2 - pairs.sum()),
        "intra_writers": _ratio((inside[several] / pairs[several]).sum(), several.sum()),
        "inter_writers": _ratio(
            np.square(means.sum(0)).sum() - np.square(means).sum(), len(count) * (len(count) - 1)
        ),
    }
    return found | {
        f"gap_{over}": found[f"intra_{over}"] - found[f"inter_{over}"]
        for over in ("pairs", "writers")
    }


def _ratio(total: float, count: float) -> float:
    return float(total / count) if count else float("nan")
