"""Reverse edge attention: looks for edges where the mid-level features see no region (3.3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ReverseEdgeAttention(nn.Module):
    """Reverse edge attention module, REAM: fuses low and mid levels, and finds the edge.

    The edge head sees the fused map times 1 - sigmoid(attention of the mid level).

    Args:
        channels: K of all maps. Paper: 64.
    """

    def __init__(self, channels: int = 64) -> None:
        super().__init__()
        self.mid, self.low2, self.fused, self.low1 = (_normed_conv(channels) for _ in range(4))
        self.attention = nn.Conv2d(2, 1, 7, padding=3, bias=False)
        self.edge_head = nn.Sequential(
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, 1, 1),
        )

    def forward(self, low1: Tensor, low2: Tensor, mid: Tensor) -> tuple[Tensor, Tensor]:
        """Return the fused map (N, K, H, W), without attention, and the edge logits (N, 1, H, W).

        Args:
            low1: the finest map, shape (N, K, H, W).
            low2: shape (N, K, H / 2, W / 2).
            mid: shape (N, K, H / 4, W / 4).
        """
        fused = F.relu(resized(self.mid(mid), low2) + self.low2(low2))
        fused = F.relu(resized(self.fused(fused), low1) + self.low1(low1))
        reverse = resized(self.reverse_attention(mid), low1)
        return fused, self.edge_head(fused * reverse)

    def reverse_attention(self, mid: Tensor) -> Tensor:
        """Return 1 - sigmoid(conv [mean, max over channels]), in (0, 1), shape (N, 1, H, W).

        Args:
            mid: shape (N, K, H, W).
        """
        pooled = torch.cat([mid.mean(1, keepdim=True), mid.amax(1, keepdim=True)], dim=1)
        return torch.sigmoid(-self.attention(pooled))


def resized(x: Tensor, like: Tensor) -> Tensor:
    """Return `x` at the size of `like`, bilinear.

    Args:
        x: shape (N, C, h, w).
        like: shape (..., H, W).
    """
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)


def _normed_conv(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels))
