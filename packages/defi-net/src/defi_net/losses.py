"""Losses of DeFI-Net: the structure loss of the mask and the boundary loss of the edge (3.6).

Both know two forms of the binary cross-entropy: ``official``, the plain mean that the published
code computes, and ``weighted`` by nearness to the boundary, which its formula intends.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

BCE = Literal["official", "weighted"]


def boundary_weights(masks: Tensor, *, window: int = 31, gain: float = 5.0) -> Tensor:
    """Return omega = 1 + gain |mean of the window - mask|: high where the mask changes nearby.

    Zeros outside of the image count in the mean, so a mask that touches the border weighs more
    there.

    Args:
        masks: float in [0, 1], shape (N, 1, H, W).
        window: side of the square mean, odd. Paper: 31.
        gain: 0 gives ones. Paper: 5.

    Returns:
        float in [1, 1 + gain], the shape of `masks`.
    """
    half = window // 2  # the sum over a square is one over columns, then over rows
    sums = F.avg_pool2d(masks, (window, 1), stride=1, padding=(half, 0), divisor_override=1)
    sums = F.avg_pool2d(sums, (1, window), stride=1, padding=(0, half), divisor_override=1)
    return 1 + gain * (sums / window**2 - masks).abs()


def structure_loss(logits: Tensor, masks: Tensor, *, bce: BCE = "official") -> Tensor:
    """Return the loss of the mask: mean over images of BCE + 1 - weighted IoU.

    The IoU is (sum w p m + 1) / (sum w (p + m) - sum w p m + 1) with p = sigmoid(logits) and w of
    `boundary_weights`.

    Args:
        logits: of "inpainted", any float dtype, shape (N, 1, H, W).
        masks: truth in [0, 1], 1 is inpainted, the shape of `logits`.
        bce: ``official`` is the mean over all pixels, ``weighted`` is sum w BCE / sum w per image.

    Returns:
        Scalar >= 0; float32 for half-precision logits.

    Raises:
        ValueError: shapes differ, or an unknown `bce`.

    Example:
        >>> structure_loss(torch.full((1, 1, 8, 8), -20.0), torch.zeros(1, 1, 8, 8)).round()
        tensor(0.)
    """
    logits, masks = _checked(logits, masks, bce)
    weights = boundary_weights(masks)
    weighted = weights * logits.sigmoid()
    overlap = (weighted * masks).sum((1, 2, 3))
    union = weighted.sum((1, 2, 3)) + (weights * masks).sum((1, 2, 3)) - overlap
    iou = (overlap + 1) / (union + 1)
    return _cross_entropy(logits, masks, weights if bce == "weighted" else None) + (1 - iou).mean()


def boundary_loss(logits: Tensor, edges: Tensor, *, bce: BCE = "official") -> Tensor:
    """Return the loss of the edge: its binary cross-entropy.

    Args:
        logits: of "edge", any float dtype, shape (N, 1, H, W).
        edges: truth in [0, 1] (`defi_net.edges.edge_label`), the shape of `logits`.
        bce: see `structure_loss`; the weights are those of the edge map.

    Returns:
        Scalar >= 0; float32 for half-precision logits.

    Raises:
        ValueError: see `structure_loss`.
    """
    logits, edges = _checked(logits, edges, bce)
    return _cross_entropy(logits, edges, boundary_weights(edges) if bce == "weighted" else None)


def _cross_entropy(logits: Tensor, truth: Tensor, weights: Tensor | None) -> Tensor:
    if weights is None:
        return F.binary_cross_entropy_with_logits(logits, truth)
    pixels = F.binary_cross_entropy_with_logits(logits, truth, weights, reduction="none")
    return (pixels.sum((1, 2, 3)) / weights.sum((1, 2, 3))).mean()


def _checked(logits: Tensor, truth: Tensor, bce: BCE) -> tuple[Tensor, Tensor]:
    if logits.ndim != 4 or logits.shape != truth.shape:
        raise ValueError(
            "logits and truth must both be (N, 1, H, W), got "
            f"{tuple(logits.shape)} and {tuple(truth.shape)}"
        )
    if bce not in get_args(BCE):
        raise ValueError(f"bce must be official or weighted, got {bce}")
    precise = torch.promote_types(logits.dtype, torch.float32)
    return logits.to(precise), truth.to(precise)
