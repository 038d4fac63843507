"""BYOL: one view predicts what a slowly moving copy makes of the other (Grill et al. 2020)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ssl_hv.objectives.joint_embedding import JointEmbedding, spread
from ssl_hv.objectives.momentum import cosine_schedule, momentum_copy, update_momentum
from ssl_hv.objectives.projection import projection_head
from ssl_hv.objectives.simsiam import negative_cosine


def byol_loss(pa: Tensor, pb: Tensor, ta: Tensor, tb: Tensor) -> Tensor:
    """Return ``(D(p_a, t_b) + D(p_b, t_a)) / 2``, D the negative cosine.

    BYOL's eq. 2, ``||p - t||^2`` of unit rows for both orders, is 4 + 4 times this.

    Args:
        pa: the online network's predictions from the first views, any float dtype, shape (N, D).
        pb: those from the second views.
        ta: the target network's projections of the first views; no gradient reaches them.
        tb: those of the second views.

    Returns:
        Scalar in [-1, 1].

    Raises:
        ValueError: the shapes differ.
    """
    return (negative_cosine(pa, tb) + negative_cosine(pb, ta)) / 2


class BYOL(JointEmbedding):
    """BYOL.

    Args:
        encoder: see `JointEmbedding`.
        hidden_dim: width of the hidden layers of projector and predictor.
        projection_dim: width of projections and predictions.
        momentum: m in [0, 1] of the target network at the start; it goes to 1 on half a cosine.
    """

    def __init__(
        self,
        encoder: nn.Module,
        *,
        hidden_dim: int = 1024,
        projection_dim: int = 256,
        momentum: float = 0.996,
    ):
        super().__init__(encoder)
        self.projector = projection_head(self.dim, hidden_dim, projection_dim)
        self.predictor = projection_head(projection_dim, hidden_dim, projection_dim)
        self.target_encoder = momentum_copy(self.encoder)
        self.target_projector = momentum_copy(self.projector)
        self.momentum = momentum

    def forward(self, views: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return "loss" and "spread" of two views, each (N, C, H, W)."""
        self.check(views)
        embeddings = [self.encoder(view) for view in views]
        predictions = [self.predictor(self.projector(h)) for h in embeddings]
        with torch.no_grad():
            targets = [self.target_projector(self.target_encoder(view)) for view in views]
        loss = byol_loss(*predictions, *targets)
        return {"loss": loss, "spread": spread(embeddings[0])}

    def update(self, progress: float) -> None:
        """Let the target network follow, the less the further the training is."""
        momentum = cosine_schedule(progress, self.momentum, 1.0)
        update_momentum(self.target_encoder, self.encoder, momentum)
        update_momentum(self.target_projector, self.projector, momentum)
