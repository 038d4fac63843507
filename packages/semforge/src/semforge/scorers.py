"""From images to one score per node: a linear layer, or similarity with texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from semforge.backbones import Channels, clip_image_size, clip_normalization


class LinearScorer(nn.Module):
    """Features, dropout and a linear layer (specification 3.6).

    Args:
        backbone: maps normalised images to features; has ``dim``, and may have ``image_size``,
            ``mean`` and ``std``.
        nodes: n, number of scores.
        prior: what the first score's bias begins higher by.
        dropout: of the features, in [0, 1).

    Raises:
        ValueError: the backbone has no ``dim``, or dropout is out of range.
    """

    def __init__(
        self, backbone: Any, nodes: int, *, prior: float = 0.0, dropout: float = 0.0
    ) -> None:
        super().__init__()
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {dropout}")
        if not isinstance(getattr(backbone, "dim", None), int):
            raise ValueError(
                f"backbone {type(backbone).__name__} has no attribute dim, its number of features"
            )
        self.backbone = backbone
        self.image_size: int = getattr(backbone, "image_size", 224)
        self.mean: Channels = getattr(backbone, "mean", (0.5, 0.5, 0.5))
        self.std: Channels = getattr(backbone, "std", (0.5, 0.5, 0.5))
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(backbone.dim, nodes)
        with torch.no_grad():
            self.classifier.bias[0] += prior

    def forward(self, images: Tensor) -> Tensor:
        """Return scores, float, shape (N, n)."""
        scores: Tensor = self.classifier(self.dropout(self.backbone(images)))
        return scores


class TextScorer(nn.Module):
    """The follow-up's joint embedding: scale * cos(image, text of the node).

    Both towers and the scale are trained.

    Args:
        clip: has ``encode_image``, ``encode_text``, ``logit_scale`` (a log) and ``visual``, as
            networks of open_clip do.
        tokenize: maps texts to tokens, int64, shape (n, context).
        texts: one per node.
        prior: what is added to the first score at the beginning; not 0 makes a trained bias of
            all scores.
    """

    tokens: Tensor

    def __init__(
        self,
        clip: Any,
        tokenize: Callable[[list[str]], Tensor],
        texts: Sequence[str],
        *,
        prior: float = 0.0,
    ) -> None:
        super().__init__()
        self.clip = clip
        self.image_size = clip_image_size(clip)
        self.mean, self.std = clip_normalization(clip)
        self.register_buffer("tokens", tokenize(list(texts)), persistent=False)
        self.bias: nn.Parameter | None = None
        if prior:
            self.bias = nn.Parameter(torch.zeros(len(texts)).index_fill(0, torch.tensor(0), prior))

    def forward(self, images: Tensor) -> Tensor:
        """Return scores, float32, shape (N, n)."""
        image = F.normalize(self.clip.encode_image(images).float(), dim=-1)
        text = F.normalize(self.clip.encode_text(self.tokens).float(), dim=-1)
        with torch.autocast(images.device.type, enabled=False):  # the scale is near 100
            scores = self.clip.logit_scale.float().exp() * (image @ text.T)
        return scores if self.bias is None else scores + self.bias
