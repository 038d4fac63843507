"""Where in a face the network looks: a map by covering parts of it, and one by its gradient.

Both are about the log odds of one node. They show what the answer of the network depends on, which
need not be what was altered.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

LogOdds = Callable[[Tensor], Tensor]


@torch.no_grad()
def occlusion_map(
    log_odds: LogOdds, image: Tensor, *, patch: int, stride: int, batch_size: int = 32
) -> Tensor:
    """Return how much the log odds fall where a square is covered with the face's mean colour.

    Squares slide over the face in steps; a pixel's value is the mean over the squares that cover
    it. Above 0: what is there speaks for the node.

    Args:
        log_odds: maps RGB in [0, 1], (N, 3, S, S), to (N,).
        image: RGB in [0, 1], float32, shape (3, S, S).
        patch: side of the square in pixels, in [1, S].
        stride: steps in pixels, in [1, patch].
        batch_size: covered faces computed at once.

    Returns:
        float32, shape (S, S).

    Raises:
        ValueError: patch or stride out of range.
    """
    size = image.shape[-1]
    if not 1 <= patch <= size or not 1 <= stride <= patch:
        raise ValueError(
            f"patch must be in [1, {size}] and stride in [1, patch], got {patch} and {stride}"
        )
    starts = torch.arange(0, size - patch + stride, stride).clamp(max=size - patch)
    tops, lefts = (each.flatten() for each in torch.meshgrid(starts, starts, indexing="ij"))
    place = torch.arange(size)
    rows = (place >= tops[:, None]) & (place < tops[:, None] + patch)
    columns = (place >= lefts[:, None]) & (place < lefts[:, None] + patch)
    masks = (rows[:, :, None] & columns[:, None, :]).to(image.device)
    mean = image.mean((1, 2), keepdim=True)
    whole = log_odds(image[None]).float()
    falls = [
        whole - log_odds(torch.where(some[:, None], mean, image)).float()
        for some in masks.split(batch_size)
    ]
    covered = masks.float()
    total = (torch.cat(falls).to(covered.device)[:, None, None] * covered).sum(0)
    return total / covered.sum(0)


def gradient_map(log_odds: LogOdds, image: Tensor, *, smooth: int = 5) -> Tensor:
    """Return how strongly the log odds react to each pixel: the gradient's largest channel.

    Args:
        log_odds: differentiable, maps RGB in [0, 1], (N, 3, S, S), to (N,).
        image: RGB in [0, 1], float32, shape (3, S, S).
        smooth: side of the square over which the mean is taken, odd.

    Returns:
        float32, >= 0, shape (S, S).

    Raises:
        ValueError: smooth is even or below 1.
    """
    if smooth < 1 or smooth % 2 == 0:
        raise ValueError(f"smooth must be odd and >= 1, got {smooth}")
    seen = image.detach().clone().requires_grad_()
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(log_odds(seen[None]).sum(), seen)
    strength = gradient.abs().amax(0)[None, None]
    return F.avg_pool2d(strength, smooth, stride=1, padding=smooth // 2, count_include_pad=False)[
        0, 0
    ]
