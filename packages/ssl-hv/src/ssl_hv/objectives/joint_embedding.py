"""What the eight joint-embedding objectives have in common."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn
from torch.nn import functional as F

from ssl_hv.objectives.checks import check_views


class JointEmbedding(nn.Module):
    """An encoder that learns from several views of the same image.

    Call it with `views` + `local_views` tensors (N, C, H, W), float in [0, 1], N >= 2; it returns
    the scalar "loss" and, without gradients, "spread" (see `spread`) and the parts of the loss.

    Args:
        encoder: network from (N, C, H, W) to (N, D) with the attribute ``dim`` = D. It stays
            `encoder`, what is kept after pre-training.
    """

    views: int = 2
    local_views: int = 0

    def __init__(self, encoder: nn.Module):
        super().__init__()
        self.encoder = encoder

    @property
    def dim(self) -> int:
        """Width of the encoder's output."""
        return cast(int, self.encoder.dim)

    def update(self, progress: float) -> None:
        """Follow an optimizer step; call it after each.

        Args:
            progress: share of all steps that is done, in [0, 1].
        """

    def check(self, views: Sequence[Tensor]) -> None:
        """Raise ValueError unless the number and shapes of the views are right."""
        check_views(views, self.views + self.local_views)


def spread(embedding: Tensor) -> Tensor:
    """Return how far unit rows spread: sqrt(D) times the mean deviation of a dimension.

    About 1 for rows in all directions, 0 when all images have the same embedding: the collapse
    alarm of SimSiam (Chen, He 2021, fig. 2).

    Args:
        embedding: float, shape (N, D), N >= 2.

    Returns:
        float32 scalar >= 0, without gradient.
    """
    unit = F.normalize(embedding.detach().float(), dim=1)
    return unit.std(0).mean() * math.sqrt(unit.shape[1])
