"""Exact inference over the legal states of a label graph (specification 3.3).

The weight of a legal state y is ``exp(f . y)``, of any other 0; `states` are the rows y. Inside all
is float64 (float32 where the device has no other), which autocast leaves alone.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

UNKNOWN = 2


class LogProbabilities(NamedTuple):
    """Log-probabilities of each node, shape (B, n).

    Attributes:
        on: log p(y_i = 1).
        off: log p(y_i = 0), exact also where p is close to 1.
    """

    on: Tensor
    off: Tensor


def log_partition(scores: Tensor, states: Tensor) -> Tensor:
    """Return log Z(f), the log of the sum of all legal weights; its gradient is the marginals.

    Args:
        scores: f, any float dtype, shape (B, n).
        states: legal rows, 0 and 1, shape (M, n).

    Returns:
        Shape (B,), in the dtype of scores, at least float32.
    """
    return _energies(scores, states).logsumexp(1).to(_result_dtype(scores))


def marginals(scores: Tensor, states: Tensor) -> Tensor:
    """Return p(y_i = 1) of each node.

    Args:
        scores: f, any float dtype, shape (B, n); finite for any magnitude.
        states: legal rows, 0 and 1, shape (M, n).

    Returns:
        In [0, 1], shape (B, n), in the dtype of scores, at least float32.
    """
    weights = _weights(scores, states)
    p = (weights @ states.to(weights.dtype)) / weights.sum(1, keepdim=True)
    return p.clamp(max=1.0).to(_result_dtype(scores))


def log_marginals(scores: Tensor, states: Tensor) -> LogProbabilities:
    """Return the log-probabilities of each node being 1 and being 0.

    Both are sums of positive weights, so neither loses digits by cancellation. What lies below the
    least float64 can hold, about -680, stays there and has no gradient; so does a node that the
    rules never let be 1.

    Args:
        scores: f, any float dtype, shape (B, n).
        states: legal rows, 0 and 1, shape (M, n).

    Returns:
        Two tensors <= 0, shape (B, n), in the dtype of scores, at least float32.
    """
    weights = _weights(scores, states)
    matrix = states.to(weights.dtype)
    least = torch.finfo(weights.dtype).tiny * 2.0**40  # room for gradients and their scale
    log_z = weights.sum(1, keepdim=True).log()
    on, off = (
        ((weights @ rows).clamp(min=least).log() - log_z).clamp(max=0.0).to(_result_dtype(scores))
        for rows in (matrix, 1 - matrix)
    )
    return LogProbabilities(on, off)


def agreeing(labels: Tensor, states: Tensor) -> Tensor:
    """Return which legal states agree with the known labels.

    Args:
        labels: 0, 1 or 2 = unknown, shape (B, n).
        states: legal rows, 0 and 1, shape (M, n).

    Returns:
        bool, shape (B, M).
    """
    rows = states.float()
    conflicts = (labels == 1).float() @ (1 - rows).T + (labels == 0).float() @ rows.T
    return conflicts == 0


def log_likelihood(scores: Tensor, labels: Tensor, states: Tensor) -> Tensor:
    """Return the log-probability of partly known labels; the unknown nodes are summed out.

    Args:
        scores: f, any float dtype, shape (B, n).
        labels: 0, 1 or 2 = unknown, shape (B, n).
        states: legal rows, 0 and 1, shape (M, n).

    Returns:
        Shape (B,), <= 0, in the dtype of scores, at least float32; -inf (with no usable gradient)
        where no legal state agrees.
    """
    energies = _energies(scores, states)
    agree = energies.masked_fill(~agreeing(labels, states), -torch.inf).logsumexp(1)
    return (agree - energies.logsumexp(1)).to(_result_dtype(scores))


def map_state(scores: Tensor, states: Tensor) -> Tensor:
    """Return the most probable legal state; of equal ones the first in lexicographic order.

    Args:
        scores: f, any float dtype, shape (B, n).
        states: legal rows, 0 and 1, shape (M, n).

    Returns:
        In the dtype of states, shape (B, n).
    """
    return states[_energies(scores, states).argmax(1)]


def _energies(scores: Tensor, states: Tensor) -> Tensor:
    dtype = torch.float32 if scores.device.type == "mps" else torch.float64
    return scores.to(dtype) @ states.to(dtype).T


def _weights(scores: Tensor, states: Tensor) -> Tensor:
    """Return the weights of all states over the highest, shape (B, M), in [0, 1]."""
    energies = _energies(scores, states)
    return energies.sub_(energies.detach().amax(1, keepdim=True)).exp_()


def _result_dtype(scores: Tensor) -> torch.dtype:
    return torch.promote_types(scores.dtype, torch.float32)
