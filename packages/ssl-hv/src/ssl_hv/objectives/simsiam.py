"""SimSiam: one view predicts the other, whose gradient is stopped (Chen, He 2021; section 3.3)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from ssl_hv.objectives.checks import check_same_shape
from ssl_hv.objectives.joint_embedding import JointEmbedding, spread
from ssl_hv.objectives.precision import in_float32
from ssl_hv.objectives.projection import projection_head


@in_float32
def negative_cosine(p: Tensor, z: Tensor) -> Tensor:
    """Return ``-mean cos(p, stopgrad(z))``.

    Args:
        p: predictions, any float dtype, shape (..., D), no zero rows.
        z: what they should point to, the same shape; gets no gradient.

    Returns:
        Scalar in [-1, 1], float32 (float64 for float64).

    Raises:
        ValueError: the shapes differ.

    Example:
        >>> import torch
        >>> negative_cosine(torch.tensor([[2.0, 0.0]]), torch.tensor([[3.0, 3.0]]))
        tensor(-0.7071)
    """
    check_same_shape(p, z, ndim=p.ndim)
    return -F.cosine_similarity(p, z.detach(), dim=-1).mean()


def simsiam_loss(pa: Tensor, pb: Tensor, za: Tensor, zb: Tensor) -> Tensor:
    """Return ``(D(p_a, z_b) + D(p_b, z_a)) / 2``, D the negative cosine; eq. 4 of SimSiam.

    Args:
        pa: predictions from the first views, any float dtype, shape (N, D).
        pb: those from the second views.
        za: projections of the first views; no gradient reaches them.
        zb: those of the second views.

    Returns:
        Scalar in [-1, 1]; -1 where every prediction has the direction of its target.

    Raises:
        ValueError: the shapes differ.
    """
    return (negative_cosine(pa, zb) + negative_cosine(pb, za)) / 2


class SimSiam(JointEmbedding):
    """SimSiam.

    Args:
        encoder: see `JointEmbedding`.
        hidden_dim: width of the projector's two hidden layers.
        projection_dim: width of projections and predictions.
        prediction_hidden_dim: width of the predictor's hidden layer.
    """

    def __init__(
        self,
        encoder: nn.Module,
        *,
        hidden_dim: int = 512,
        projection_dim: int = 128,
        prediction_hidden_dim: int = 64,
    ):
        super().__init__(encoder)
        self.projector = projection_head(
            self.dim, hidden_dim, hidden_dim, projection_dim, last_norm=True
        )
        self.predictor = projection_head(projection_dim, prediction_hidden_dim, projection_dim)

    def forward(self, views: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return "loss" and "spread" of two views, each (N, C, H, W)."""
        self.check(views)
        ha, hb = self.encoder(views[0]), self.encoder(views[1])
        za, zb = self.projector(ha), self.projector(hb)
        loss = simsiam_loss(self.predictor(za), self.predictor(zb), za, zb)
        return {"loss": loss, "spread": spread(ha)}
