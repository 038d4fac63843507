"""The 3-D residual attention module (Wang, Jiang, Qian et al. 2017, lifted from 2-D).

A trunk T(x) of residual units, a soft mask M(x) in (0, 1) of the same shape from a bottom-up,
top-down branch, and attention residual learning: H = (1 + M) * T.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nlran.normalization import Norm, norm_layer


class ResidualUnit3d(nn.Module):
    """Pre-activation bottleneck U(C): 1x1x1 to C/4, 3x3x3, 1x1x1 to C, plus the input; no bias.

    Where the shape changes, the shortcut is a 1x1x1 convolution of the first normalised and
    activated input.

    Args:
        channels: of the output, a multiple of 4.
        in_channels: of the input; the same if None.
        stride: of the 3x3x3 convolution.
        norm: see `norm_layer`.

    Raises:
        ValueError: channels is no multiple of 4.
    """

    def __init__(
        self,
        channels: int,
        *,
        in_channels: int | None = None,
        stride: int = 1,
        norm: Norm = "batch",
    ) -> None:
        super().__init__()
        if channels % 4:
            raise ValueError(f"channels must be a multiple of 4, got {channels}")
        came, inner, layer = in_channels or channels, channels // 4, norm_layer(norm)
        self.bn1, self.conv1 = layer(came), nn.Conv3d(came, inner, 1, bias=False)
        self.bn2 = layer(inner)
        self.conv2 = nn.Conv3d(inner, inner, 3, stride, padding=1, bias=False)
        self.bn3, self.conv3 = layer(inner), nn.Conv3d(inner, channels, 1, bias=False)
        changes = came != channels or stride != 1
        self.shortcut = nn.Conv3d(came, channels, 1, stride, bias=False) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        """Return U(x), shape (B, channels, ...), for float x of shape (B, in_channels, D, H, W)."""
        active = F.relu(self.bn1(x))
        kept = x if self.shortcut is None else self.shortcut(active)
        inner = self.conv2(F.relu(self.bn2(self.conv1(active))))
        return kept + self.conv3(F.relu(self.bn3(inner)))


class AttentionModule3d(nn.Module):
    """An attention module; its mask is what NL-RAN shows as a heat map.

    With pool = max-pool 3 stride 2 and up(a, b) = trilinear resize of a to b's grid (depth 3)::

        x = U(x)                 T = U(U(x))
        d1 = U(pool(x))          d2 = U(pool(d1))          d3 = U(U(pool(d2)))
        e2 = U(up(d3, d2) [+ d2] + U(d2))                  e1 = U(up(e2, d1) [+ d1] + U(d1))
        M = sigmoid(head(up(e1, x) [+ T]))                 out = U((1 + M) * T)

    Args:
        channels: C, a multiple of 4.
        depth: times the mask branch halves the grid: 1, 2 or more. Paper's parents: 3, 2, 1 in
            stages 1, 2, 3.
        decoder_sum: make the additions in brackets, as the 2-D reference does.
        residual: attention residual learning, (1 + M) * T; else M * T.
        norm: see `norm_layer`.

    Raises:
        ValueError: depth < 1, or channels is no multiple of 4.
    """

    def __init__(
        self,
        channels: int,
        depth: int = 1,
        *,
        decoder_sum: bool = True,
        residual: bool = True,
        norm: Norm = "batch",
    ) -> None:
        super().__init__()
        if depth < 1:
            raise ValueError(f"depth must be >= 1, got {depth}")

        def unit() -> ResidualUnit3d:
            return ResidualUnit3d(channels, norm=norm)

        self.depth, self.decoder_sum, self.residual = depth, decoder_sum, residual
        self.first = unit()
        self.trunk = nn.Sequential(unit(), unit())
        self.down = nn.ModuleList(unit() for _ in range(depth - 1))
        self.bottom = nn.Sequential(unit(), unit())
        self.skip = nn.ModuleList(unit() for _ in range(depth - 1))
        self.up = nn.ModuleList(unit() for _ in range(depth - 1))
        layer = norm_layer(norm)
        self.head = nn.Sequential(
            *(layer(channels), nn.ReLU(), nn.Conv3d(channels, channels, 1, bias=False)),
            *(layer(channels), nn.ReLU(), nn.Conv3d(channels, channels, 1, bias=False)),
        )
        self.last = unit()

    def forward(self, x: Tensor) -> Tensor:
        """Return the module's output.

        Args:
            x: float, shape (B, C, D, H, W); any size, sensibly each axis >= 2^depth.

        Returns:
            The same shape.
        """
        return self.merge(*self.branches(x))

    def branches(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mask M in (0, 1) and the trunk T, both (B, C, D, H, W).

        Args:
            x: float, shape (B, C, D, H, W).
        """
        x = self.first(x)
        trunk = self.trunk(x)
        fine, encoded = x, []
        for down in self.down:
            fine = down(_pool(fine))
            encoded.append(fine)
        mask = self.bottom(_pool(fine))
        for level in reversed(range(self.depth - 1)):
            at = encoded[level]
            mask = _resize(mask, at) + self.skip[level](at)
            mask = self.up[level](mask + at if self.decoder_sum else mask)
        mask = _resize(mask, x)
        return self.head(mask + trunk if self.decoder_sum else mask).sigmoid(), trunk

    def merge(self, mask: Tensor, trunk: Tensor) -> Tensor:
        """Return U((1 + M) * T), or U(M * T) without residual learning; shapes as in `branches`."""
        return self.last((1 + mask) * trunk if self.residual else mask * trunk)


def _pool(x: Tensor) -> Tensor:
    return F.max_pool3d(x, 3, stride=2, padding=1)


def _resize(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, size=like.shape[2:], mode="trilinear", align_corners=True)


class CBAM3d(nn.Module):
    """Convolutional block attention (Woo et al. 2018) in 3-D: a channel gate, then a spatial gate.

    Args:
        channels: C.
        reduction: of the channel gate's inner width.
        kernel: of the spatial gate, odd.

    Raises:
        ValueError: reduction is above the channels, or the kernel is even.
    """

    def __init__(self, channels: int, *, reduction: int = 16, kernel: int = 7) -> None:
        super().__init__()
        if not 1 <= reduction <= channels:
            raise ValueError(f"reduction must be in [1, {channels}], got {reduction}")
        if kernel % 2 == 0:
            raise ValueError(f"kernel must be odd, got {kernel}")
        inner = channels // reduction
        self.mlp = nn.Sequential(nn.Linear(channels, inner), nn.ReLU(), nn.Linear(inner, channels))
        self.conv = nn.Conv3d(2, 1, kernel, padding=kernel // 2, bias=False)
        self.norm = nn.BatchNorm3d(1, momentum=0.01)

    def forward(self, x: Tensor) -> Tensor:
        """Return x under both gates, the same shape (B, C, D, H, W)."""
        x = self.channel_gate(x)
        pooled = torch.stack([x.amax(1), x.mean(1)], dim=1)
        return x * self.norm(self.conv(pooled)).sigmoid()

    def channel_gate(self, x: Tensor) -> Tensor:
        """Return x times sigmoid(MLP(mean) + MLP(maximum)), both over positions."""
        gate = self.mlp(x.mean((2, 3, 4))) + self.mlp(x.amax((2, 3, 4)))
        return x * gate.sigmoid()[:, :, None, None, None]
