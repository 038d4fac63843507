"""The slowly moving copy of a network that MoCo, BYOL and DINO learn from."""

from __future__ import annotations

import copy
import math

from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


def momentum_copy(network: nn.Module) -> nn.Module:
    """Return a copy of the network whose parameters take no gradients."""
    return copy.deepcopy(network).requires_grad_(False)


def update_momentum(target: nn.Module, source: nn.Module, momentum: float) -> None:
    """Move every parameter of `target` in place: target <- m * target + (1 - m) * source.

    Buffers stay: the batch norms of the copy keep statistics of their own.

    Args:
        target: made by `momentum_copy`.
        source: the trained network.
        momentum: m in [0, 1].
    """
    if not 0 <= momentum <= 1:
        raise ValueError(f"momentum must be in [0, 1], got {momentum}")
    move = get_ema_multi_avg_fn(momentum)
    move(list(target.parameters()), list(source.parameters()), None)


def cosine_schedule(progress: float, start: float, end: float) -> float:
    """Return the value on half a cosine from `start` to `end`.

    Args:
        progress: share of the training that is done, in [0, 1].
        start: value at 0.
        end: value at 1.
    """
    if not 0 <= progress <= 1:
        raise ValueError(f"progress must be in [0, 1], got {progress}")
    return end - (end - start) * (1 + math.cos(math.pi * progress)) / 2
