"""How well scores tell pairs of one source from others, over the batches of an epoch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from papercommons.metrics.roc import binary_auc
from papercommons.metrics.verification import equal_error_rate


class PairScores(Metric):
    """Area under the ROC curve and equal error rate over all batches, of all processes."""

    full_state_update = False
    scores: Any
    same: Any

    def __init__(self) -> None:
        super().__init__()
        self.add_state("scores", default=[], dist_reduce_fx="cat")
        self.add_state("same", default=[], dist_reduce_fx="cat")

    def update(self, scores: Tensor, same: Tensor) -> None:
        """Add a batch.

        Args:
            scores: higher for pairs of one source, float, shape (N,).
            same: 1 or 0, shape (N,).
        """
        self.scores.append(scores.detach().float())
        self.same.append(same.float())

    def compute(self) -> dict[str, float]:
        """Return ``auc`` and ``eer``; NaN for scores that are not finite."""
        scores = dim_zero_cat(self.scores).double().cpu()
        same = dim_zero_cat(self.same).long().cpu().numpy()
        if not torch.isfinite(scores).all():
            return {"auc": float("nan"), "eer": float("nan")}
        numbers = scores.numpy()
        return {
            "auc": binary_auc(numbers, same),
            "eer": float(equal_error_rate(numbers, same)[0]),
        }
