"""Losses per node and per level, with labels that are partly unknown (specification 3.4)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from semforge.heads import Head
from semforge.inference import UNKNOWN, LogProbabilities

Loss = Literal["bce", "fidelity", "nll"]


def node_bce(log_probabilities: LogProbabilities, labels: Tensor) -> Tensor:
    """Return the masked cross-entropy of each node, from exact logs of p and 1 - p.

    The mean divides by B, not by the number of known labels, as in the paper's code.

    Args:
        log_probabilities: of the nodes, float, shape (B, n) each.
        labels: 0, 1 or 2 = unknown, shape (B, n).

    Returns:
        >= 0, shape (n,).
    """
    chosen = torch.where(labels == 1, *log_probabilities)
    return -torch.where(labels == UNKNOWN, 0.0, chosen).mean(0)


def node_bce_reference(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy of each node as the paper's code computes it.

    It sees p as float32, which is 1 from about 1 - 3e-8 on, and holds logs at -100.

    Args:
        probabilities: in [0, 1], float, shape (B, n).
        labels: 0, 1 or 2 = unknown, shape (B, n).

    Returns:
        float32, >= 0, shape (n,).
    """
    with torch.autocast(probabilities.device.type, enabled=False):
        target = (labels == 1).float()
        bce = F.binary_cross_entropy(probabilities.float(), target, reduction="none")
    return torch.where(labels == UNKNOWN, 0.0, bce).mean(0)


def node_fidelity(log_probabilities: LogProbabilities, labels: Tensor) -> Tensor:
    """Return the masked fidelity loss of each node, the follow-up's.

    ``1 - sqrt(p y + 1e-8) - sqrt((1 - p)(1 - y) + 1e-8)``, whose constants make it slightly
    negative where p = y.

    Args:
        log_probabilities: of the nodes, float, shape (B, n) each.
        labels: 0, 1 or 2 = unknown, shape (B, n).

    Returns:
        In (-0.0002, 1), shape (n,).
    """
    on, off = (log_p.exp() for log_p in log_probabilities)
    y = (labels == 1).to(on.dtype)
    fidelity = 1 - (on * y + 1e-8).sqrt() - (off * (1 - y) + 1e-8).sqrt()
    return torch.where(labels == UNKNOWN, 0.0, fidelity).mean(0)


def task_losses(
    head: Head, scores: Tensor, labels: Tensor, *, loss: Loss = "bce", reference: bool = False
) -> Tensor:
    """Return the loss of each level of the graph: L1, L2, L3 of the paper.

    Args:
        head: what the scores mean.
        scores: float, shape (B, n) with the nodes of the head.
        labels: 0, 1 or 2 = unknown, shape (B, N) with N >= n nodes of the graph.
        loss: ``bce`` (the paper's), ``fidelity`` (the follow-up's), or ``nll``, minus the mean
            log-likelihood of all known labels of an image together, which is one loss.
        reference: with ``bce``, take the rounding of the paper's code (`node_bce_reference`).

    Returns:
        At least float32, shape (levels,), for ``nll`` (1,).

    Raises:
        ValueError: shapes do not match, another loss, or reference without ``bce``.
    """
    labels = labels[:, : len(head.nodes)]
    if scores.shape != labels.shape or scores.ndim != 2 or scores.shape[1] != len(head.nodes):
        raise ValueError(
            f"scores must be (B, {len(head.nodes)}) and labels as many, got {tuple(scores.shape)} "
            f"and {tuple(labels.shape)}"
        )
    if loss not in ("bce", "fidelity", "nll"):
        raise ValueError(f"loss must be bce, fidelity or nll, got {loss}")
    if reference and loss != "bce":
        raise ValueError(f"reference is a form of bce, not of {loss}")
    if loss == "nll":
        return -head.log_likelihood(scores, labels).mean(0, keepdim=True)
    if reference:
        of_nodes = node_bce_reference(head.probabilities(scores), labels)
    else:
        of_node = node_bce if loss == "bce" else node_fidelity
        of_nodes = of_node(head.log_probabilities(scores), labels)
    return (head.level_weights.to(of_nodes.dtype) * of_nodes).sum(1)
