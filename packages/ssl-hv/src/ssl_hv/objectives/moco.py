"""MoCo v2: negatives from a queue of a slowly moving encoder's keys (Chen et al. 2020)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_hv.gather import gather
from ssl_hv.objectives.checks import check_same_shape, check_temperature
from ssl_hv.objectives.joint_embedding import JointEmbedding, spread
from ssl_hv.objectives.momentum import momentum_copy, update_momentum
from ssl_hv.objectives.precision import in_float32
from ssl_hv.objectives.projection import projection_head


@in_float32
def info_nce_loss(query: Tensor, key: Tensor, bank: Tensor, *, temperature: float = 0.1) -> Tensor:
    """Return InfoNCE: cross-entropy with logits ``[q . k+, q . K-] / tau`` and target 0.

    Args:
        query: projections, any float dtype, shape (N, D), no zero rows; made unit rows here.
        key: projections of the other views, the same shape; made unit rows here.
        bank: negatives, unit rows, shape (K, D).
        temperature: tau > 0. Paper: 0.1.

    Returns:
        Scalar > 0, float32 (float64 for float64).

    Raises:
        ValueError: the shapes do not match or tau <= 0.

    Example:
        >>> info_nce_loss(torch.eye(2), torch.eye(2), torch.eye(2), temperature=1.0)
        tensor(0.8620)
    """
    check_same_shape(query, key)
    check_temperature(temperature)
    if bank.ndim != 2 or bank.shape[1] != query.shape[1]:
        raise ValueError(f"bank must be (K, {query.shape[1]}), got {tuple(bank.shape)}")
    query = F.normalize(query, dim=1) / temperature
    positive = (query * F.normalize(key, dim=1)).sum(1, keepdim=True)
    logits = torch.cat([positive, query @ bank.T], 1)
    return F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long, device=logits.device))


class MoCo(JointEmbedding):
    """MoCo v2. Its projector has no batch norm, as in the official and lightly's code.

    Keys are encoded in random parts of the batch (shuffling with split batch norm), so that no
    statistic tells which key belongs to a query.

    Args:
        encoder: see `JointEmbedding`.
        hidden_dim: width of the projector's hidden layer.
        projection_dim: width of queries and keys.
        temperature: tau > 0.
        momentum: m in [0, 1] of the key encoder.
        queue_size: keys kept as negatives, >= 1; first in, first out, unit random rows at first.
        splits: parts of the batch that share batch statistics, >= 1; fewer where a part would have
            less than two images.
    """

    queue: Tensor
    pointer: Tensor

    def __init__(
        self,
        encoder: nn.Module,
        *,
        hidden_dim: int = 512,
        projection_dim: int = 128,
        temperature: float = 0.1,
        momentum: float = 0.99,
        queue_size: int = 4096,
        splits: int = 8,
    ):
        super().__init__(encoder)
        check_temperature(temperature)
        if queue_size < 1 or splits < 1:
            raise ValueError(f"queue_size and splits must be >= 1, got {queue_size} and {splits}")
        self.projector = projection_head(self.dim, hidden_dim, projection_dim, norm=False)
        self.key_encoder = momentum_copy(self.encoder)
        self.key_projector = momentum_copy(self.projector)
        self.register_buffer("queue", F.normalize(torch.randn(queue_size, projection_dim), dim=1))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.long))
        self.temperature, self.momentum, self.splits = temperature, momentum, splits

    def forward(self, views: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return "loss" and "spread" of two views, each (N, C, H, W): queries, then keys.

        In training the keys of all processes then enter the queue.
        """
        self.check(views)
        h = self.encoder(views[0])
        keys = self.keys(views[1])
        bank = self.queue.clone()  # backward needs it as it was
        loss = info_nce_loss(self.projector(h), keys, bank, temperature=self.temperature)
        if self.training:
            self.enqueue(gather(keys))
        return {"loss": loss, "spread": spread(h)}

    @torch.no_grad()
    def keys(self, images: Tensor) -> Tensor:
        """Return unit keys (N, D), in the order of the images, encoded in random parts."""
        order = torch.randperm(len(images), device=images.device)
        parts = images[order].tensor_split(max(1, min(self.splits, len(images) // 2)))
        keys = torch.cat([self.key_projector(self.key_encoder(part)) for part in parts])
        return F.normalize(keys.to(self.queue.dtype), dim=1)[order.argsort()]

    @torch.no_grad()
    def enqueue(self, keys: Tensor) -> None:
        """Put keys (N, D) over the oldest ones; of more than the queue holds, the last stay."""
        keys = keys[-len(self.queue) :]
        places = (self.pointer + torch.arange(len(keys), device=keys.device)) % len(self.queue)
        self.queue.index_copy_(0, places, keys)
        self.pointer.copy_((self.pointer + len(keys)) % len(self.queue))

    def update(self, progress: float) -> None:
        """Let the key encoder follow."""
        update_momentum(self.key_encoder, self.encoder, self.momentum)
        update_momentum(self.key_projector, self.projector, self.momentum)
