"""Necks: the dense feature pyramid of DeFI-Net (section 3.2), and plain FPN and U-Net beside it.

All take four maps, finest first, each half the size of the one before, and return four maps of one
width at the same sizes. Level i of the paper, 1 to 4, is index i - 1 here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Neck = Literal["dfpl", "fpn", "unet"]


class DenseFeaturePyramid(nn.Module):
    """Dense feature pyramid learning, DFPL: each node sees all adjacent nodes of the step before.

    Top-down, bottom-up, then an output step that joins the backbone's maps again.

    Args:
        in_channels: of the four maps.
        channels: K of the results. Paper: 64.
    """

    def __init__(self, in_channels: Sequence[int], channels: int = 64) -> None:
        super().__init__()
        self.top_down = TopDown(in_channels, channels)
        self.bottom_up = BottomUp(channels)
        self.output = nn.ModuleList(
            nn.Sequential(nn.Conv2d(c + channels, channels, 1), *_smooth(channels))
            for c in in_channels
        )

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Return F1 to F4, shapes (N, K, H / 2^i, W / 2^i).

        Args:
            maps: x1 to x4, shapes (N, in_channels[i], H / 2^i, W / 2^i), H and W divisible by 8.
        """
        fused = self.bottom_up(self.top_down(maps))
        return [
            output(torch.cat([x, b], dim=1))
            for output, x, b in zip(self.output, maps, fused, strict=True)
        ]


class TopDown(nn.Module):
    """Steps 1 and 2 of DFPL: one width for all maps, then from coarse to fine.

    Args:
        in_channels: of the four maps.
        channels: K.
    """

    def __init__(self, in_channels: Sequence[int], channels: int) -> None:
        super().__init__()
        self.reduce = nn.ModuleList(nn.Conv2d(c, channels, 1) for c in in_channels)
        self.mix = nn.ModuleList(nn.Conv2d(n * channels, channels, 1) for n in (3, 4, 4, 2))
        self.smooth = nn.ModuleList(nn.Sequential(*_smooth(channels)) for _ in range(4))

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Return T1 to T4, shapes (N, channels, H / 2^i, W / 2^i).

        Args:
            maps: x1 to x4, shapes (N, in_channels[i], H / 2^i, W / 2^i), H and W divisible by 8.
        """
        c1, c2, c3, c4 = (reduce(x) for reduce, x in zip(self.reduce, maps, strict=True))
        p1, p2, p3, p4 = self.mix
        t4 = mixed(p4, [_halved(c3), c4])
        t3 = mixed(p3, [_halved(c2), c3], [c4, t4])
        t2 = mixed(p2, [_halved(c1), c2], [c3, t3])
        t1 = mixed(p1, [c1], [c2, t2])
        return [smooth(t) for smooth, t in zip(self.smooth, (t1, t2, t3, t4), strict=True)]


class BottomUp(nn.Module):
    """Step 3 of DFPL: from fine to coarse.

    Args:
        channels: K.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mix = nn.ModuleList(nn.Conv2d(n * channels, channels, 1) for n in (2, 4, 4, 3))
        self.smooth = nn.ModuleList(nn.Sequential(*_smooth(channels)) for _ in range(4))

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Return B1 to B4, shapes as of `maps`.

        Args:
            maps: T1 to T4, shapes (N, K, H / 2^i, W / 2^i).
        """
        t1, t2, t3, t4 = maps
        q1, q2, q3, q4 = self.mix
        b1 = mixed(q1, [t1], [t2])
        b2 = mixed(q2, [_halved(b1), _halved(t1), t2], [t3])
        b3 = mixed(q3, [_halved(b2), _halved(t2), t3], [t4])
        b4 = mixed(q4, [_halved(b3), _halved(t3), t4])
        return [smooth(b) for smooth, b in zip(self.smooth, (b1, b2, b3, b4), strict=True)]


class FeaturePyramid(nn.Module):
    """Plain feature pyramid network (Lin et al. 2017): laterals, sums from coarse to fine.

    Args:
        in_channels: of the four maps.
        channels: of the results.
    """

    def __init__(self, in_channels: Sequence[int], channels: int = 64) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(c, channels, 1) for c in in_channels)
        self.smooth = nn.ModuleList(nn.Sequential(*_smooth(channels)) for _ in range(4))

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Return four maps, finest first, shapes (N, channels, H / 2^i, W / 2^i).

        Args:
            maps: x1 to x4, shapes (N, in_channels[i], H / 2^i, W / 2^i), H and W divisible by 8.
        """
        sums: list[Tensor] = []
        for lateral, x in zip(reversed(self.lateral), reversed(maps), strict=True):
            sums.append(lateral(x) + _doubled(sums[-1], x) if sums else lateral(x))
        return [smooth(x) for smooth, x in zip(self.smooth, reversed(sums), strict=True)]


class UNetDecoder(nn.Module):
    """Plain U-Net decoder (Ronneberger et al. 2015): concatenation and two convolutions per level.

    Args:
        in_channels: of the four maps.
        channels: of the results.
    """

    def __init__(self, in_channels: Sequence[int], channels: int = 64) -> None:
        super().__init__()
        deeper = (channels, channels, channels, 0)
        self.blocks = nn.ModuleList(
            nn.Sequential(*_smooth(c + more, channels), *_smooth(channels))
            for c, more in zip(in_channels, deeper, strict=True)
        )

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Return four maps, finest first, shapes (N, channels, H / 2^i, W / 2^i).

        Args:
            maps: x1 to x4, shapes (N, in_channels[i], H / 2^i, W / 2^i), H and W divisible by 8.
        """
        results: list[Tensor] = []
        for block, x in zip(reversed(self.blocks), reversed(maps), strict=True):
            results.append(block(torch.cat([x, _doubled(results[-1], x)], 1) if results else x))
        return results[::-1]


NECKS: dict[Neck, type[DenseFeaturePyramid | FeaturePyramid | UNetDecoder]] = {
    "dfpl": DenseFeaturePyramid,
    "fpn": FeaturePyramid,
    "unet": UNetDecoder,
}


def mixed(conv: nn.Module, maps: Sequence[Tensor], coarser: Sequence[Tensor] = ()) -> Tensor:
    """Return ``conv`` of the concatenation of `maps` and of `coarser` upsampled by two.

    A convolution by 1 x 1 and bilinear upsampling commute. So coarser maps are convolved where they
    are, a quarter of the work, and the result is upsampled, fewer channels than they have.

    Args:
        conv: 1 x 1; takes the channels of all maps, in this order.
        maps: shapes (N, C_j, H, W).
        coarser: shapes (N, C_j, H / 2, W / 2).
    """
    weight: Any = conv.weight
    own = sum(x.shape[1] for x in maps)
    fine = F.conv2d(_joined(maps), weight[:, :own], conv.bias)  # type: ignore[arg-type]
    if not coarser:
        return fine
    return fine + _doubled(F.conv2d(_joined(coarser), weight[:, own:]), fine)


def _joined(maps: Sequence[Tensor]) -> Tensor:
    return maps[0] if len(maps) == 1 else torch.cat(list(maps), dim=1)


def _smooth(in_channels: int, channels: int | None = None) -> list[nn.Module]:
    channels = channels or in_channels
    conv = nn.Conv2d(in_channels, channels, 3, padding=1)
    return [conv, nn.BatchNorm2d(channels), nn.SiLU(inplace=True)]


def _halved(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 3, stride=2, padding=1)


def _doubled(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)
