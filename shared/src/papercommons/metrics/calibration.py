"""Log-likelihood ratios of two hypotheses (same source or not) and how good they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike


def check_scores(scores: ArrayLike, same: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Return scores as float64 and same as bool, both of shape (P,).

    Raises:
        ValueError: shapes do not match, no pairs, a score is NaN, or same is not 0 or 1.
    """
    scores, same = np.asarray(scores, np.float64), np.asarray(same)
    if scores.ndim != 1 or scores.shape != same.shape or not len(scores):
        raise ValueError(f"scores and same must be (P,), P >= 1, got {scores.shape}, {same.shape}")
    if np.isnan(scores).any():
        raise ValueError(f"scores must not be NaN, got one at {int(np.isnan(scores).argmax())}")
    if not np.isin(same, (0, 1)).all():
        raise ValueError(f"same must be 0 or 1, got {same[~np.isin(same, (0, 1))][0]}")
    return scores, same.astype(bool)


@dataclass(frozen=True)
class Calibration:
    """An affine map from scores to log-likelihood ratios.

    Attributes:
        slope: >= 0.
        intercept: of the log-likelihood ratio.
    """

    slope: float
    intercept: float

    def llr(self, scores: ArrayLike) -> np.ndarray:
        """Return natural-log likelihood ratios (> 0 speaks for one source), float64, same shape."""
        return self.slope * np.asarray(scores, np.float64) + self.intercept


def fit_calibration(scores: ArrayLike, same: ArrayLike) -> Calibration:
    """Fit a calibration by logistic regression in which both classes weigh the same.

    Labels are softened to (n + 1) / (n + 2) (Platt 1999), so that scores without any error do not
    give evidence without bound. Scores that order the classes wrongly give slope 0: no evidence.

    Args:
        scores: higher = more alike, finite, shape (P,).
        same: 1 or 0, shape (P,).

    Raises:
        ValueError: shapes do not match, scores are not finite, or only one class is there.
    """
    scores, same = check_scores(scores, same)
    if not np.isfinite(scores).all() or same.all() or not same.any():
        raise ValueError("calibration needs finite scores of pairs of one writer and of two")
    spread = scores.std()
    if spread == 0:
        return Calibration(0.0, 0.0)
    counts = np.where(same, same.sum(), (~same).sum())
    target = np.where(same, counts + 1, 1) / (counts + 2)
    features = np.stack([(scores - scores.mean()) / spread, np.ones_like(scores)])
    slope, intercept = _newton(features, target, 0.5 / counts)
    if slope <= 0:
        return Calibration(0.0, 0.0)
    slope /= spread
    return Calibration(float(slope), float(intercept - slope * scores.mean()))


def _newton(features: np.ndarray, target: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Minimise the weighted cross-entropy of features (K, P), by Newton's method with halving."""

    def loss(at: np.ndarray) -> float:
        logits = at @ features
        return float(weight @ (np.logaddexp(0, logits) - target * logits))

    theta = np.zeros(len(features))
    for _ in range(100):
        p = _sigmoid(theta @ features)
        gradient = features @ (weight * (p - target))
        hessian = (features * (weight * p * (1 - p))) @ features.T
        step = np.linalg.solve(hessian + 1e-12 * np.eye(len(theta)), gradient)
        if np.abs(step).max() < 1e-10:
            break
        while loss(theta - step) > loss(theta) and np.abs(step).max() > 1e-12:
            step = step / 2
        theta = theta - step
    return theta


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return np.exp(-np.logaddexp(0, -logits))


def cllr_losses(llr: np.ndarray, same: np.ndarray) -> np.ndarray:
    """Return what each pair costs in bits: log2(1 + 1/LR) of same, log2(1 + LR) of others."""
    return np.logaddexp(0, np.where(same, -llr, llr)) / np.log(2)


def cllr(llr: ArrayLike, same: ArrayLike) -> float:
    """Return the cost of log-likelihood ratios in bits (Brümmer and du Preez 2006).

    Mean of both classes; 0 is perfect, 1 is what LLR = 0 for every pair costs, above is harm.

    Args:
        llr: natural-log likelihood ratios, infinities allowed, shape (P,).
        same: 1 or 0, shape (P,).

    Returns:
        bits >= 0; NaN if only one class is there.

    Raises:
        ValueError: shapes do not match, or a value is NaN.

    Example:
        >>> cllr([0.0, 0.0], [1, 0])
        1.0
    """
    llr, same = check_scores(llr, same)
    if same.all() or not same.any():
        return float("nan")
    losses = cllr_losses(llr, same)
    return float(losses[same].mean() + losses[~same].mean()) / 2


def min_cllr(scores: ArrayLike, same: ArrayLike) -> float:
    """Return the Cllr of the best monotone calibration of these very scores.

    That is how well they discriminate; Cllr minus it is the loss through bad calibration.

    Args:
        scores: higher = more alike, shape (P,).
        same: 1 or 0, shape (P,).

    Returns:
        bits in [0, 1]; NaN if only one class is there.

    Raises:
        ValueError: shapes do not match, or a value is NaN.
    """
    scores, same = check_scores(scores, same)
    level = np.unique(scores, return_inverse=True)[1]
    return min_cllr_of_levels(np.bincount(level, same), np.bincount(level, ~same))


def min_cllr_of_levels(same: np.ndarray, different: np.ndarray) -> float:
    """Return min-Cllr from the weight of each class at each level of the score, ascending, (L,)."""
    if not (same.sum() > 0 and different.sum() > 0):
        return float("nan")
    s, d = pool_adjacent_violators(same / same.sum(), different / different.sum())
    with np.errstate(divide="ignore", invalid="ignore"):
        bits = np.nan_to_num(s * np.log2(1 + d / s)) + np.nan_to_num(d * np.log2(1 + s / d))
    return float(bits.sum()) / 2


def pool_adjacent_violators(
    same: np.ndarray, different: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the weights of both classes in blocks of ascending same : different.

    All neighbours that do not ascend are pooled at once, again and again: any order of pooling
    ends in the same blocks.

    Args:
        same: weight of one class at each level of the score, ascending, >= 0, shape (L,).
        different: of the other.
    """
    some = same + different > 0
    same, different = same[some], different[some]
    while len(same) > 1:
        ascends = same[1:] * different[:-1] > same[:-1] * different[1:]
        if ascends.all():
            break
        starts = np.flatnonzero(np.concatenate([[True], ascends]))
        same, different = np.add.reduceat(same, starts), np.add.reduceat(different, starts)
    return same, different


def brier(probabilities: ArrayLike, same: ArrayLike) -> float:
    """Return the mean squared difference of probabilities, in [0, 1], shape (P,), and outcome.

    Raises:
        ValueError: shapes do not match, or a probability is not in [0, 1].
    """
    probabilities, same = _check_probabilities(probabilities, same)
    return float(np.square(probabilities - same).mean())


def ece(
    probabilities: ArrayLike, same: ArrayLike, *, bins: int = 15, balanced: bool = False
) -> float:
    """Return the expected calibration error: mean |probability - frequency| over equal bins.

    Args:
        probabilities: of same, in [0, 1], shape (P,).
        same: 1 or 0, shape (P,).
        bins: of equal width, >= 1; each weighs as many pairs as it holds.
        balanced: both classes weigh the same, as they do for probabilities at even prior odds.

    Returns:
        a number in [0, 1]; NaN if balanced and a class is missing.

    Raises:
        ValueError: shapes do not match, or a probability is not in [0, 1].
    """
    probabilities, same = _check_probabilities(probabilities, same)
    weights = np.ones(len(same))
    if balanced:
        if same.all() or not same.any():
            return float("nan")
        weights = np.where(same, 1 / same.sum(), 1 / (~same).sum())
    return float(weighted_ece(probabilities, same, weights[None], bins=bins)[0])


def weighted_ece(
    probabilities: ArrayLike, same: ArrayLike, weights: ArrayLike, *, bins: int = 15
) -> np.ndarray:
    """Return the expected calibration error for each row of weights.

    Args:
        probabilities: see `ece`.
        same: see `ece`.
        weights: >= 0, one row per estimate (of a bootstrap), shape (R, P).
        bins: see `ece`.

    Returns:
        float64, shape (R,); NaN where a row weighs nothing.

    Raises:
        ValueError: see `ece`, or weights of another shape.
    """
    probabilities, same = _check_probabilities(probabilities, same)
    weights = np.asarray(weights, np.float64)
    if weights.ndim != 2 or weights.shape[1] != len(same):
        raise ValueError(f"weights must be (R, {len(same)}), got {weights.shape}")
    bin_, error = probability_bins(probabilities, bins), probabilities - same
    gaps = np.stack([weights @ np.where(bin_ == n, error, 0) for n in range(bins)])
    total = weights.sum(1)
    return np.abs(gaps).sum(0) / np.where(total > 0, total, np.nan)


def probability_bins(probabilities: np.ndarray, bins: int) -> np.ndarray:
    """Return the number of the bin, of `bins` equal ones, that each probability falls into."""
    return np.minimum((probabilities * bins).astype(np.int64), bins - 1)


def _check_probabilities(
    probabilities: ArrayLike, same: ArrayLike
) -> tuple[np.ndarray, np.ndarray]:
    probabilities, same = check_scores(probabilities, same)
    if probabilities.min() < 0 or probabilities.max() > 1:
        raise ValueError("probabilities must be in [0, 1]; turn logits into probabilities first")
    return probabilities, same


class Tippett(NamedTuple):
    """Curves of a Tippett plot.

    Attributes:
        llr: natural-log likelihood ratios, ascending, shape (L,).
        same: share of the same-source pairs with at least this ratio, shape (L,).
        different: share of the others with at least this ratio, shape (L,).
    """

    llr: np.ndarray
    same: np.ndarray
    different: np.ndarray


def tippett(llr: ArrayLike, same: ArrayLike) -> Tippett:
    """Return the curves of a Tippett plot; a class that is not there gives NaN.

    Args:
        llr: natural-log likelihood ratios, shape (P,).
        same: 1 or 0, shape (P,).

    Raises:
        ValueError: shapes do not match, or a value is NaN.
    """
    llr, same = check_scores(llr, same)
    levels, level = np.unique(llr, return_inverse=True)
    curves = []
    for of_class in (same, ~same):
        above = np.bincount(level, of_class)[::-1].cumsum()[::-1]
        curves.append(above / (of_class.sum() or np.nan))
    return Tippett(levels, *curves)
