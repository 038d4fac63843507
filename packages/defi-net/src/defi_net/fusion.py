"""Heads: spatial adaptive feature fusion of DeFI-Net (section 3.4), and a plain sum beside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

from torch import Tensor, nn

from defi_net.attention import ReverseEdgeAttention, resized

Head = Literal["ream-saff", "sum"]
SAFFInit = Literal["ones", "official"]
CLASSES, LAYERS = 2, 2


class SpatialAdaptiveFusion(nn.Module):
    """Spatial adaptive feature fusion, SAFF: adds low and high levels with a weight per pixel.

    The weights come out of a batch norm, so they start with random signs; ``ones`` starts it at
    scale 0.1 and shift 1, a plain sum (our choice; it trains much better from scratch).

    Args:
        channels: K of the maps. Paper: 64.
        init: ``ones``, or ``official`` as in the published code.

    Raises:
        ValueError: unknown `init`.
    """

    def __init__(self, channels: int = 64, *, init: SAFFInit = "ones") -> None:
        super().__init__()
        if init not in get_args(SAFFInit):
            raise ValueError(f"saff_init must be ones or official, got {init}")
        count = CLASSES * LAYERS
        self.low_mid = _normed_conv(channels, CLASSES)
        self.high = nn.Sequential(*_normed_conv(channels, CLASSES), _eightfold(CLASSES))
        self.prior = nn.Sequential(*_normed_conv(channels, count), _eightfold(count))
        self.learner = nn.Sequential(
            *_normed_conv(count, count),
            nn.ReLU(inplace=True),
            *_normed_conv(count, count),
            nn.ReLU(inplace=True),
            *_normed_conv(count, count),
        )
        self.classifier = nn.Conv2d(CLASSES, 1, 1)
        if init == "ones":
            last: Any = self.learner[-1]
            nn.init.constant_(last.weight, 0.1)
            nn.init.ones_(last.bias)

    def weights(self, high: Tensor) -> Tensor:
        """Return the weights per class, layer (high, low-mid) and pixel, shape (N, 2, 2, H, W).

        Args:
            high: the coarsest map, shape (N, K, H / 8, W / 8).
        """
        return self.learner(self.prior(high)).unflatten(1, (CLASSES, LAYERS))

    def forward(self, low_mid: Tensor, high: Tensor) -> Tensor:
        """Return the logits of "inpainted", shape (N, 1, H, W).

        Args:
            low_mid: the fused map of `ReverseEdgeAttention`, shape (N, K, H, W).
            high: the coarsest map, shape (N, K, H / 8, W / 8).
        """
        weights = self.weights(high)
        fused = weights[:, :, 0] * self.high(high) + weights[:, :, 1] * self.low_mid(low_mid)
        return self.classifier(fused)


class EdgeGuidedHead(nn.Module):
    """REAM and SAFF, DeFI-Net's head.

    Args:
        channels: K of the four maps.
        saff_init: see `SpatialAdaptiveFusion`.
    """

    def __init__(self, channels: int = 64, *, saff_init: SAFFInit = "ones") -> None:
        super().__init__()
        self.ream = ReverseEdgeAttention(channels)
        self.saff = SpatialAdaptiveFusion(channels, init=saff_init)

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return edge and mask logits, each (N, 1, H, W).

        Args:
            maps: of a neck, finest first.
        """
        low1, low2, mid, high = maps
        low_mid, edge = self.ream(low1, low2, mid)
        return edge, self.saff(low_mid, high)


class SumHead(nn.Module):
    """The plain head: logits of all levels, upsampled and added.

    Args:
        channels: of the four maps.
    """

    def __init__(self, channels: int = 64) -> None:
        super().__init__()
        self.classifiers = nn.ModuleList(nn.Conv2d(channels, 2, 1, bias=i == 0) for i in range(4))

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return edge and mask logits, each (N, 1, H, W); see `EdgeGuidedHead.forward`."""
        finest, *coarser = (classify(x) for classify, x in zip(self.classifiers, maps, strict=True))
        for logits in coarser:
            finest = finest + resized(logits, finest)
        edge, mask = finest.split(1, dim=1)
        return edge, mask


def create_head(name: Head, channels: int, *, saff_init: SAFFInit) -> EdgeGuidedHead | SumHead:
    """Return a head.

    Args:
        name: ``ream-saff`` or ``sum``.
        channels: of the four maps.
        saff_init: see `SpatialAdaptiveFusion`.

    Raises:
        ValueError: unknown name.
    """
    if name not in get_args(Head):
        raise ValueError(f"head must be ream-saff or sum, got {name}")
    return SumHead(channels) if name == "sum" else EdgeGuidedHead(channels, saff_init=saff_init)


def _normed_conv(in_channels: int, channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(in_channels, channels, 1), nn.BatchNorm2d(channels))


def _eightfold(channels: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(channels, channels, 16, stride=8, padding=4, bias=False)
