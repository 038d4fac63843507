"""FastSiam: SimSiam towards the mean of several views (Pototzky et al. 2022; section 3.3)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ssl_hv.objectives.checks import check_same_shape
from ssl_hv.objectives.joint_embedding import spread
from ssl_hv.objectives.precision import in_float32
from ssl_hv.objectives.simsiam import SimSiam, negative_cosine


@in_float32
def fastsiam_loss(p: Tensor, z: Tensor) -> Tensor:
    """Return the mean over views of ``D(p_i, mean_{j != i} z_j)``, D the negative cosine.

    Args:
        p: predictions from V views, any float dtype, shape (V, N, D), V >= 2.
        z: projections of the same views; no gradient reaches them.

    Returns:
        Scalar in [-1, 1], float32 (float64 for float64).

    Raises:
        ValueError: the shapes differ or V < 2.
    """
    check_same_shape(p, z, ndim=3)
    if len(p) < 2:
        raise ValueError(f"FastSiam needs 2 views or more, got {len(p)}")
    return negative_cosine(p, (z.sum(0) - z) / (len(z) - 1))


class FastSiam(SimSiam):
    """FastSiam, with the projector and predictor of `SimSiam` and four views."""

    views = 4

    def forward(self, views: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return "loss" and "spread" of four views, each (N, C, H, W)."""
        self.check(views)
        embeddings = [self.encoder(view) for view in views]
        projections = [self.projector(h) for h in embeddings]
        predictions = [self.predictor(z) for z in projections]
        loss = fastsiam_loss(torch.stack(predictions), torch.stack(projections))
        return {"loss": loss, "spread": spread(embeddings[0])}
