"""VICReg: views agree, dimensions keep their variance and share nothing (Bardes et al. 2022)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

from ssl_hv.gather import gather
from ssl_hv.objectives.checks import check_batch, check_same_shape
from ssl_hv.objectives.joint_embedding import JointEmbedding, spread
from ssl_hv.objectives.precision import in_float32
from ssl_hv.objectives.projection import projection_head
from ssl_hv.objectives.redundancy import off_diagonal_energy


class VICRegTerms(NamedTuple):
    """The three terms, before their weights; scalars >= 0.

    Attributes:
        invariance: mean squared difference of the views.
        variance: mean over both views of `variance_term`.
        covariance: sum over both views of `covariance_term`.
    """

    invariance: Tensor
    variance: Tensor
    covariance: Tensor

    def weighted(self, invariance: float, variance: float, covariance: float) -> Tensor:
        """Return the sum of the terms times their weights."""
        return (
            invariance * self.invariance + variance * self.variance + covariance * self.covariance
        )


def vicreg_loss(
    za: Tensor,
    zb: Tensor,
    *,
    invariance: float = 25.0,
    variance: float = 25.0,
    covariance: float = 1.0,
) -> Tensor:
    """Return ``25 mse(z_a, z_b) + 25 (v(z_a) + v(z_b)) / 2 + c(z_a) + c(z_b)``.

    Args:
        za: projections of the first views, any float dtype, shape (N, D), N >= 2.
        zb: those of the second views, the same shape and order.
        invariance: weight of the mean squared error, >= 0. Paper: 25.
        variance: weight of the variance term, >= 0. Paper: 25.
        covariance: weight of the covariance term, >= 0. Paper: 1.

    Returns:
        Scalar >= 0, float32 (float64 for float64).

    Raises:
        ValueError: the shapes differ or N < 2.

    Example:
        >>> import torch
        >>> z = torch.tensor([[2.0, 2.0], [2.0, -2.0], [-2.0, 2.0], [-2.0, -2.0]])
        >>> vicreg_loss(z, z)
        tensor(0.)
    """
    return vicreg_terms(za, zb).weighted(invariance, variance, covariance)


@in_float32
def vicreg_terms(za: Tensor, zb: Tensor) -> VICRegTerms:
    """Return the three terms; arguments and errors are those of `vicreg_loss`.

    Args:
        za: projections of the first views, shape (N, D).
        zb: of the second views, shape (N, D).

    Raises:
        ValueError: see `vicreg_loss`.
    """
    check_same_shape(za, zb)
    check_batch(za)
    return VICRegTerms(
        F.mse_loss(za, zb),
        (variance_term(za) + variance_term(zb)) / 2,
        covariance_term(za) + covariance_term(zb),
    )


@in_float32
def variance_term(z: Tensor) -> Tensor:
    """Return v, ``mean_j relu(1 - sqrt(var_j + 1e-4))``, var unbiased; z is (N, D), N >= 2."""
    return F.relu(1 - (z.var(0) + 1e-4).sqrt()).mean()


@in_float32
def covariance_term(z: Tensor) -> Tensor:
    """Return c, ``(1 / D) sum_{i != j} Cov_ij^2``, Cov over N - 1; z is (N, D), N >= 2."""
    rows, dim = z.shape
    centred = z - z.mean(0)
    return off_diagonal_energy(centred, centred) / ((rows - 1) ** 2 * dim)


class VICReg(JointEmbedding):
    """VICReg.

    Args:
        encoder: see `JointEmbedding`.
        projection_dim: width of the projector's layers.
        layers: their number, >= 1. Paper: 2.
        invariance: weight of the mean squared error, >= 0.
        variance: weight of the variance term, >= 0.
        covariance: weight of the covariance term, >= 0.
    """

    def __init__(
        self,
        encoder: nn.Module,
        *,
        projection_dim: int = 2048,
        layers: int = 2,
        invariance: float = 25.0,
        variance: float = 25.0,
        covariance: float = 1.0,
    ):
        super().__init__(encoder)
        self.projector = projection_head(self.dim, *[projection_dim] * layers)
        self.weights = (invariance, variance, covariance)

    def forward(self, views: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return "loss", its three terms and "spread" of two views, each (N, C, H, W)."""
        self.check(views)
        ha, hb = self.encoder(views[0]), self.encoder(views[1])
        terms = vicreg_terms(gather(self.projector(ha)), gather(self.projector(hb)))
        parts = {name: term.detach() for name, term in terms._asdict().items()}
        return {"loss": terms.weighted(*self.weights), **parts, "spread": spread(ha)}
