"""What scores mean: the graph's legal states, independent nodes, or the root alone."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from semforge import inference
from semforge.graph import LabelGraph
from semforge.inference import UNKNOWN, LogProbabilities

HeadName = Literal["graph", "flat", "binary"]


class GraphHead(nn.Module):
    """Marginals over the legal states of a graph, the paper's head.

    Args:
        graph: its rules.

    Attributes:
        nodes: names of the scores.
        levels: names of the groups whose losses are averaged.
    """

    states: Tensor
    level_weights: Tensor

    def __init__(self, graph: LabelGraph) -> None:
        super().__init__()
        self.nodes, self.levels = graph.nodes, tuple(graph.levels)
        self.register_buffer(
            "states", graph.states.to(torch.get_default_device()), persistent=False
        )
        weights = graph.level_weights.to(torch.get_default_device())
        self.register_buffer("level_weights", weights, persistent=False)

    def probabilities(self, scores: Tensor) -> Tensor:
        """Return p(node = 1), at least float32, shape (B, n)."""
        return inference.marginals(scores, self.states)

    def log_probabilities(self, scores: Tensor) -> LogProbabilities:
        """Return log p(node = 1) and log p(node = 0), at least float32, shape (B, n)."""
        return inference.log_marginals(scores, self.states)

    def log_likelihood(self, scores: Tensor, labels: Tensor) -> Tensor:
        """Return log p(known labels), shape (B,); labels 0, 1 or 2 = unknown, shape (B, n)."""
        return inference.log_likelihood(scores, labels, self.states)

    def decode(self, scores: Tensor) -> Tensor:
        """Return the most probable labels, uint8, shape (B, n): always a legal state."""
        return inference.map_state(scores, self.states)


class FlatHead(nn.Module):
    """Independent nodes: a sigmoid each, with no rules.

    Args:
        graph: names and levels.
        nodes: how many of the first nodes are scored; None is all.

    Attributes:
        nodes: names of the scores.
        levels: names of the groups whose losses are averaged.
    """

    level_weights: Tensor

    def __init__(self, graph: LabelGraph, nodes: int | None = None) -> None:
        super().__init__()
        self.nodes = graph.nodes[:nodes]
        used = graph.level_weights[:, : len(self.nodes)]
        kept = used.sum(1) > 0
        names = zip(graph.levels, kept.tolist(), strict=True)
        self.levels = tuple(level for level, keep in names if keep)
        weights = used[kept].to(torch.get_default_device())
        self.register_buffer("level_weights", weights, persistent=False)

    def probabilities(self, scores: Tensor) -> Tensor:
        """Return p(node = 1), at least float32, shape (B, n)."""
        return _at_least_float32(scores).sigmoid()

    def log_probabilities(self, scores: Tensor) -> LogProbabilities:
        """Return log p(node = 1) and log p(node = 0), at least float32, shape (B, n)."""
        scores = _at_least_float32(scores)
        return LogProbabilities(F.logsigmoid(scores), F.logsigmoid(-scores))

    def log_likelihood(self, scores: Tensor, labels: Tensor) -> Tensor:
        """Return log p(known labels), shape (B,); labels 0, 1 or 2 = unknown, shape (B, n)."""
        on, off = self.log_probabilities(scores)
        of_node = torch.where(labels == 1, on, off)
        return torch.where(labels == UNKNOWN, 0.0, of_node).sum(1)

    def decode(self, scores: Tensor) -> Tensor:
        """Return the most probable labels, uint8, shape (B, n); they may break the rules."""
        return (scores > 0).to(torch.uint8)


class BinaryHead(FlatHead):
    """The root alone: real or fake, with no attributes.

    Args:
        graph: its first node is scored.
    """

    def __init__(self, graph: LabelGraph) -> None:
        super().__init__(graph, 1)


Head = GraphHead | FlatHead


def create_head(name: HeadName, graph: LabelGraph) -> Head:
    """Return a head by name.

    Args:
        name: ``graph``, ``flat`` or ``binary``.
        graph: the labels.

    Raises:
        ValueError: another name.
    """
    if name == "graph":
        return GraphHead(graph)
    if name == "flat":
        return FlatHead(graph)
    if name == "binary":
        return BinaryHead(graph)
    raise ValueError(f"head must be graph, flat or binary, got {name}")


def _at_least_float32(scores: Tensor) -> Tensor:
    return scores.to(torch.promote_types(scores.dtype, torch.float32))
