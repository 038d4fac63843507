"""The network: a scorer and what its scores mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from papercommons.errors import nearest
from torch import Tensor, nn

from semforge.backbones import create_backbone, create_open_clip
from semforge.graph import LabelGraph, RootPrior, as_graph
from semforge.heads import Head, HeadName, create_head
from semforge.inference import LogProbabilities
from semforge.scorers import LinearScorer, TextScorer

Embedding = Literal["linear", "joint"]


class SemForgeNet(nn.Module):
    """Scores and probabilities of a face being fake, and of what was altered.

    Args:
        backbone: a name for `create_backbone`, or a module with ``dim`` (and, if they differ from
            224 and 0.5, ``image_size``, ``mean`` and ``std``); for ``joint`` a module as
            `TextScorer` describes it.
        graph: a `LabelGraph`, ``ffsc``, ``ffpp``, a YAML file, or `LabelGraph.to_dict`.
        head: ``graph`` (the paper's), ``flat``, or ``binary``, which scores the root alone.
        embedding: ``linear``; or ``joint``, the follow-up's texts of the nodes, which needs
            ``open_clip:NAME``.
        root_prior: ``balanced`` begins with p(fake) = 1/2; ``none`` as the paper's code.
        dropout: before the linear layer; None is 0.5 for Xception, as the paper's code, else 0.
        image_size: see `create_backbone`.
        pretrained: see `create_backbone`.
        tokenize: for ``joint`` with a module.

    Attributes:
        graph: the label graph.
        nodes: names of the scores.
        image_size: S of the images it is meant for.
        config: what builds it again, plain types; None if the backbone is a module.

    Raises:
        ValueError: an unknown name, or parts that do not go together.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: nn.Module | str = "legacy_xception",
        graph: LabelGraph | Mapping[str, Any] | str = "ffsc",
        head: HeadName = "graph",
        *,
        embedding: Embedding = "linear",
        root_prior: RootPrior = "none",
        dropout: float | None = None,
        image_size: int | None = None,
        pretrained: bool | str = False,
        tokenize: Any = None,
    ) -> None:
        super().__init__()
        self.graph = as_graph(graph)
        self.head: Head = create_head(head, self.graph)
        self.nodes = self.head.nodes
        prior = self.graph.root_prior(root_prior) if head == "graph" else 0.0
        if embedding not in ("linear", "joint"):
            raise ValueError(f"embedding must be linear or joint, got {embedding}")
        if embedding == "joint":
            clip, tokenize = _both_towers(backbone, image_size, pretrained, tokenize)
            texts = self.graph.texts()[: len(self.nodes)]
            self.scorer: LinearScorer | TextScorer = TextScorer(clip, tokenize, texts, prior=prior)
        else:
            dropout = _usual_dropout(backbone) if dropout is None else dropout
            features: nn.Module = (
                create_backbone(backbone, image_size=image_size, pretrained=pretrained)
                if isinstance(backbone, str)
                else backbone
            )
            self.scorer = LinearScorer(features, len(self.nodes), prior=prior, dropout=dropout)
        self.image_size = image_size or self.scorer.image_size
        for name in ("mean", "std"):
            channels = torch.tensor(getattr(self.scorer, name)).view(3, 1, 1)
            self.register_buffer(name, channels, persistent=False)
        self.config: dict[str, Any] | None = None
        if isinstance(backbone, str):
            self.config = {
                "backbone": backbone,
                "graph": self.graph.to_dict(),
                "head": head,
                "embedding": embedding,
                "root_prior": root_prior,
                "dropout": dropout,
                "image_size": self.image_size,
            }

    def normalised(self, images: Tensor) -> Tensor:
        """Return images in [0, 1] as `forward` takes them.

        Args:
            images: RGB, float, shape (N, 3, H, W).
        """
        return (images - self.mean) / self.std

    def forward(self, images: Tensor) -> Tensor:
        """Return scores, float, shape (N, n).

        Args:
            images: from `normalised`, float, shape (N, 3, S, S).
        """
        scores: Tensor = self.scorer(images)
        return scores

    def probabilities(self, scores: Tensor) -> Tensor:
        """Return p(node = 1), at least float32, shape (N, n); column 0 is p(fake)."""
        return self.head.probabilities(scores)

    def log_probabilities(self, scores: Tensor) -> LogProbabilities:
        """Return log p(node = 1) and log p(node = 0), at least float32, shape (N, n)."""
        return self.head.log_probabilities(scores)

    def decode(self, scores: Tensor) -> Tensor:
        """Return the most probable labels, uint8, shape (N, n); legal ones with ``graph``."""
        return self.head.decode(scores)


def _usual_dropout(backbone: nn.Module | str) -> float:
    return 0.5 if isinstance(backbone, str) and "xception" in backbone else 0.0


def _both_towers(
    backbone: nn.Module | str, image_size: int | None, pretrained: bool | str, tokenize: Any
) -> tuple[Any, Any]:
    if not isinstance(backbone, str):
        if tokenize is None:
            raise ValueError("embedding joint with a module needs tokenize, its texts to tokens")
        return backbone, tokenize
    if not backbone.startswith("open_clip:"):
        known = nearest(backbone.replace("_", "-"), ["ViT-B-32-quickgelu", "ViT-B-32", "RN50"])
        raise ValueError(
            f"embedding joint needs both towers of CLIP, open_clip:NAME, got {backbone!r}{known}"
        )
    clip = create_open_clip(backbone, image_size=image_size, pretrained=pretrained)
    import open_clip

    return clip, open_clip.get_tokenizer(backbone.removeprefix("open_clip:"))
