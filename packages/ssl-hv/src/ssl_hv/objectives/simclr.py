"""SimCLR: each image finds its other view among the batch (Chen et al. 2020; spec section 3.3)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_hv.gather import gather
from ssl_hv.objectives.checks import check_batch, check_same_shape, check_temperature
from ssl_hv.objectives.joint_embedding import JointEmbedding, spread
from ssl_hv.objectives.precision import in_float32
from ssl_hv.objectives.projection import projection_head


@in_float32
def nt_xent_loss(za: Tensor, zb: Tensor, *, temperature: float = 0.5) -> Tensor:
    """Return NT-Xent: cross-entropy of each of the 2N unit rows against the 2N - 1 others.

    The positive of a row is its other view, the 2N - 2 other rows are negatives; logits are cosines
    over tau.

    Args:
        za: projections of the first views, any float dtype, shape (N, D), N >= 2, no zero rows.
        zb: those of the second views, the same shape and order.
        temperature: tau > 0. Paper: 0.5.

    Returns:
        Scalar > 0, float32 (float64 for float64); log(2N - 1) where all rows are the same.

    Raises:
        ValueError: the shapes differ, N < 2 or tau <= 0.

    Example:
        >>> nt_xent_loss(torch.ones(4, 8), torch.ones(4, 8))
        tensor(1.9459)
    """
    check_same_shape(za, zb)
    check_batch(za)
    check_temperature(temperature)
    rows = F.normalize(torch.cat([za, zb]), dim=1)
    logits = (rows / temperature @ rows.T).fill_diagonal_(-torch.inf)
    return F.cross_entropy(logits, torch.arange(len(rows), device=za.device).roll(len(za)))


class SimCLR(JointEmbedding):
    """SimCLR with batch norm in its projector.

    Args:
        encoder: see `JointEmbedding`.
        hidden_dim: width of the projector's hidden layer.
        projection_dim: width of the projections.
        temperature: tau > 0.
    """

    def __init__(
        self,
        encoder: nn.Module,
        *,
        hidden_dim: int = 512,
        projection_dim: int = 128,
        temperature: float = 0.5,
    ):
        super().__init__(encoder)
        check_temperature(temperature)
        self.projector = projection_head(self.dim, hidden_dim, projection_dim)
        self.temperature = temperature

    def forward(self, views: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return "loss" and "spread" of two views, each (N, C, H, W)."""
        self.check(views)
        ha, hb = self.encoder(views[0]), self.encoder(views[1])
        za, zb = gather(self.projector(ha)), gather(self.projector(hb))
        loss = nt_xent_loss(za, zb, temperature=self.temperature)
        return {"loss": loss, "spread": spread(ha)}
