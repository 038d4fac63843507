"""The area under the ROC curve with ties and weights, for many sets of weights at once."""

from __future__ import annotations

import torch
from torch import Tensor


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
        >>> weighted_auc(torch.tensor([0.1, 0.4, 0.4]), torch.tensor([False, False, True]))
        tensor([0.7500], dtype=torch.float64)
    """
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
