"""Barlow Twins: the cross-correlation of two views becomes the identity (Zbontar et al. 2021)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ssl_hv.gather import gather
from ssl_hv.objectives.checks import check_batch, check_same_shape
from ssl_hv.objectives.joint_embedding import JointEmbedding, spread
from ssl_hv.objectives.precision import in_float32
from ssl_hv.objectives.projection import projection_head
from ssl_hv.objectives.redundancy import off_diagonal_energy


@in_float32
def barlow_twins_loss(za: Tensor, zb: Tensor, *, weight: float = 5e-3) -> Tensor:
    """Return ``sum_i (C_ii - 1)^2 + lambda * sum_{i != j} C_ij^2`` with ``C = z_a^T z_b / N``.

    Every dimension is standardised over the batch first (biased variance, eps 1e-5).

    Args:
        za: projections of the first views, any float dtype, shape (N, D), N >= 2.
        zb: those of the second views, the same shape and order.
        weight: lambda >= 0. Paper: 5e-3.

    Returns:
        Scalar >= 0, float32 (float64 for float64).

    Raises:
        ValueError: the shapes differ or N < 2.

    Example:
        >>> z = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
        >>> barlow_twins_loss(z, z).round(decimals=4)
        tensor(0.)
    """
    check_same_shape(za, zb)
    check_batch(za)
    a, b = _standardize(za), _standardize(zb)
    invariance = ((a * b).mean(0) - 1).square().sum()
    return invariance + weight * off_diagonal_energy(a, b) / len(a) ** 2


def _standardize(z: Tensor) -> Tensor:
    var, mean = torch.var_mean(z, dim=0, correction=0)
    return (z - mean) * (var + 1e-5).rsqrt()


class BarlowTwins(JointEmbedding):
    """Barlow Twins.

    Args:
        encoder: see `JointEmbedding`.
        projection_dim: width of the projector's three layers.
        weight: lambda >= 0.
    """

    def __init__(self, encoder: nn.Module, *, projection_dim: int = 2048, weight: float = 5e-3):
        super().__init__(encoder)
        self.projector = projection_head(self.dim, *[projection_dim] * 3)
        self.weight = weight

    def forward(self, views: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return "loss" and "spread" of two views, each (N, C, H, W)."""
        self.check(views)
        ha, hb = self.encoder(views[0]), self.encoder(views[1])
        za, zb = gather(self.projector(ha)), gather(self.projector(hb))
        return {"loss": barlow_twins_loss(za, zb, weight=self.weight), "spread": spread(ha)}
