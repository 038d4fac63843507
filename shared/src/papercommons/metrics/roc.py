"""The area under the ROC curve, ties included: of many pixels, of a batch, and with weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

NAN = float("nan")


def binary_auc(scores: Any, truth: Any) -> float:
    """Return the area under the ROC curve: P(score of a positive > of a negative) + P(equal) / 2.

    8-bit scores are counted, others sorted; both ways are exact, ties included.

    Args:
        scores: real and finite, any shape; uint8 is the fastest.
        truth: 0 and 1, bool or any real dtype, of that shape.

    Returns:
        a number in [0, 1]; NaN where only one class is there.

    Raises:
        ValueError: shapes differ, scores are not finite, or truth is not 0 and 1.

    Example:
        >>> binary_auc([0.1, 0.4, 0.4], [0, 0, 1])
        0.75
    """
    scores, truth = as_array(scores), as_binary(truth, "truth")
    if scores.shape != truth.shape:
        raise ValueError(f"truth must be {scores.shape} as scores are, got {truth.shape}")
    if scores.dtype.kind == "f" and not np.isfinite(scores).all():
        raise ValueError("scores must be finite")
    return unchecked_auc(scores, truth)


def unchecked_auc(scores: np.ndarray, truth: np.ndarray) -> float:
    """Return what `binary_auc` does, for arrays of one shape, finite and bool.

    Args:
        scores: finite.
        truth: bool, of that shape.
    """
    if scores.dtype == np.uint8:
        return _auc_of_counts(*_histograms(scores, truth))
    positive, negative = np.sort(scores[truth]), np.sort(scores[~truth])
    if len(positive) > len(negative):
        return 1 - _share_in_order(negative, positive)
    return _share_in_order(positive, negative)


def _share_in_order(few: np.ndarray, many: np.ndarray) -> float:
    """Return the share of pairs in which `few` is above `many`, both ascending; equal is half."""
    if len(few) == 0:
        return NAN
    above = np.searchsorted(many, few, "left").sum() + np.searchsorted(many, few, "right").sum()
    return float(above) / 2 / (len(few) * len(many))


def _auc_of_counts(positive: np.ndarray, negative: np.ndarray) -> float:
    """Return the AUC from the numbers of positives and negatives at ascending scores."""
    pairs = float(positive.sum()) * float(negative.sum())
    below = negative.cumsum() - negative / 2
    return float((positive * below).sum()) / pairs if pairs else NAN


def _histograms(scores: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return how many positives and how many negatives have each of the 256 values."""
    all_ = np.bincount(scores.ravel(), minlength=256)
    positive = np.bincount(scores[truth], minlength=256)
    return positive, all_ - positive


def score_levels(
    scores: np.ndarray, truth: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the probabilities that occur, ascending, and how many of each kind have them.

    Args:
        scores: float, or uint8, read as 255ths; any shape.
        truth: bool, of that shape.

    Returns:
        probabilities, numbers of positives and numbers of negatives, each of shape (L,).
    """
    if scores.dtype == np.uint8:
        positive, negative = _histograms(scores, truth)
        there = np.flatnonzero(positive + negative)
        return there / 255, positive[there], negative[there]
    order = scores.argsort(axis=None)
    ranked, truth = scores.ravel()[order], truth.ravel()[order]
    ends = np.flatnonzero(np.append(ranked[1:] > ranked[:-1], True))
    up_to = truth.cumsum()[ends]
    positive = np.diff(up_to, prepend=0)
    return ranked[ends], positive, np.diff(ends, prepend=-1) - positive


def weighted_auc(scores: Tensor, positive: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return the area under the ROC curve: P(score of a positive > of a negative) + P(equal) / 2.

    Args:
        scores: any real dtype, shape (N,), finite.
        positive: bool, shape (N,).
        weights: of the items, >= 0, one row per estimate (of a bootstrap), shape (R, N); None is
            one row of ones.

    Returns:
        float64, shape (R,); NaN where positives or negatives weigh nothing.

    Raises:
        ValueError: shapes do not match, or scores are not finite.

    Example:
        >>> import torch
        >>> weighted_auc(torch.tensor([0.1, 0.4, 0.4]), torch.tensor([False, False, True]))
        tensor([0.7500], dtype=torch.float64)
    """
    import torch

    if scores.ndim != 1 or positive.shape != scores.shape:
        raise ValueError(
            f"scores and positive must be (N,), got {tuple(scores.shape)}, {tuple(positive.shape)}"
        )
    weights = torch.ones(1, len(scores)) if weights is None else weights
    if weights.ndim != 2 or weights.shape[1] != len(scores):
        raise ValueError(f"weights must be (R, {len(scores)}), got {tuple(weights.shape)}")
    if not torch.isfinite(scores).all():
        raise ValueError("scores must be finite")
    levels, level = scores.detach().cpu().unique(return_inverse=True)
    weights, positive = weights.double().cpu(), positive.cpu()
    nothing = torch.zeros(len(weights), len(levels), dtype=torch.double)
    level = level.expand_as(weights)
    of_positive = nothing.scatter_add(1, level, weights * positive)
    of_negative = nothing.scatter_add(1, level, weights * ~positive)
    below = of_negative.cumsum(1) - of_negative / 2
    pairs = of_positive.sum(1) * of_negative.sum(1)
    return (of_positive * below).sum(1) / torch.where(pairs > 0, pairs, torch.nan)


def batch_auc(scores: Tensor, truth: Tensor, *, levels: int = 1024) -> Tensor:
    """Return the AUC of each row, on its device and without waiting for it.

    Args:
        scores: in [0, 1], float, shape (N, P); rounded to the nearest of `levels` values.
        truth: bool, shape (N, P).
        levels: >= 2; 256 is exact for what came from 8 bits.

    Returns:
        float32, shape (N,); NaN where only one class is there.
    """
    import torch

    bins = (scores.float().clamp(0, 1) * (levels - 1)).round().long() + levels * truth
    counts = torch.zeros(len(bins), 2 * levels, dtype=torch.long, device=bins.device)
    counts.scatter_add_(1, bins, torch.ones_like(bins))
    negative, positive = counts.unflatten(1, (2, levels)).unbind(1)
    below = (negative.cumsum(1) - negative / 2) / negative.sum(1, keepdim=True)
    return (positive / positive.sum(1, keepdim=True) * below).sum(1)


def as_array(values: Any) -> np.ndarray:
    """Return an array or a tensor, on any device, as an array.

    Args:
        values: what NumPy takes, or a tensor; bfloat16 becomes float32.
    """
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        values = (values.float() if str(values.dtype) == "torch.bfloat16" else values).numpy()
    return np.asarray(values)


def as_binary(values: Any, name: str) -> np.ndarray:
    """Return 0 and 1 as bool.

    Args:
        values: an array or a tensor.
        name: of them, for the message.

    Raises:
        ValueError: there are other values.
    """
    values = as_array(values)
    if values.dtype != bool:
        odd = values[(values != 0) & (values != 1)]
        if odd.size:
            raise ValueError(f"{name} must hold 0 and 1 only, got {odd[0]:g}; binarise it first")
        values = values.astype(bool)
    return values
