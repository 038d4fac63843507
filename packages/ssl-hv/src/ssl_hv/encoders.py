"""Networks and handcrafted descriptors that turn a word image into a vector.

Every encoder takes float images in [0, 1] with ink = 1, shape (N, C, H, W), gives (N, ``dim``), and
says its ``dim``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from papercommons.errors import nearest
from torch import Tensor, nn
from torchvision.models import resnet18
from torchvision.models.resnet import BasicBlock

NETWORKS = ("resnet18", "resnet-layout", "vit-b32", "vit-tiny", "bigan", "flow")
DESCRIPTORS = ("raw", "hog", "gsc", "gsc-bits")
# a saved configuration that states more is no reason to fill the memory
_MOST = {"image_size": 4096, "blocks": 100, "depth": 100, "checkerboard": 100, "channel": 100}


class ResNet18(nn.Module):
    """torchvision's ResNet-18 without its classifier (section 3.2), ``dim`` = 512.

    Args:
        in_channels: C of the images.
        stem: ``imagenet`` is 7x7 with stride 2 and a max-pool; ``small`` is 3x3 with stride 1.

    Raises:
        ValueError: another stem.
    """

    dim = 512

    def __init__(
        self, *, in_channels: int = 1, stem: Literal["imagenet", "small"] = "imagenet"
    ) -> None:
        super().__init__()
        if stem not in ("imagenet", "small"):
            raise ValueError(f"stem must be imagenet or small, got {stem}")
        network = resnet18(weights=None)
        first = (7, 2, 3) if stem == "imagenet" else (3, 1, 1)
        network.conv1 = nn.Conv2d(in_channels, 64, *first, bias=False)
        nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
        if stem == "small":
            network.maxpool = nn.Identity()
        network.fc = nn.Identity()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Return the averaged features, float, shape (N, 512)."""
        images = images.contiguous(memory_format=torch.channels_last)
        features: Tensor = self.network(images)
        return features


class LayoutResNet(nn.Module):
    """A small ResNet that keeps where in the word a feature lies; our choice.

    The last 4 x 4 map is not averaged: a linear layer sees all its places. Images of another size
    than `image_size` are taken too; their last map is brought to that size.

    Args:
        in_channels: C of the images.
        width: channels of the first stage; they double three times.
        blocks: residual blocks per stage.
        dim: size of the embedding.
        image_size: H = W of the images, a multiple of 16.
        dropout: of the features before the linear layer, in [0, 1).

    Raises:
        ValueError: a size that does not divide.
    """

    def __init__(
        self,
        *,
        in_channels: int = 1,
        width: int = 32,
        blocks: int = 1,
        dim: int = 256,
        image_size: int = 64,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if image_size % 16:
            raise ValueError(f"image_size must be a multiple of 16, got {image_size}")
        self.dim = dim
        layers: list[nn.Module] = [
            nn.Conv2d(in_channels, width, 5, stride=2, padding=2, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
        ]
        before = width
        for stage in range(4):
            after = width << stage
            layers += [_block(before, after, stride=2 if stage else 1)]
            layers += [_block(after, after) for _ in range(blocks - 1)]
            before = after
        side = image_size // 16
        self.features = nn.Sequential(*layers)
        self.embedding = nn.Sequential(
            nn.AdaptiveAvgPool2d(side),  # of other sizes, such as DINO's local crops
            nn.Flatten(),
            nn.BatchNorm1d(before * side**2),
            nn.Dropout(dropout),
            nn.Linear(before * side**2, dim, bias=False),
            nn.BatchNorm1d(dim),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Return the embedding, float, shape (N, dim)."""
        images = images.contiguous(memory_format=torch.channels_last)
        embedding: Tensor = self.embedding(self.features(images))
        return embedding


def _block(before: int, after: int, stride: int = 1) -> BasicBlock:
    shortcut = None
    if stride != 1 or before != after:
        shortcut = nn.Sequential(
            nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after)
        )
    return BasicBlock(before, after, stride, shortcut)


class Descriptor(nn.Module):
    """A handcrafted descriptor as an encoder; it has no weights and gives no gradient.

    Args:
        name: ``raw`` pixels (4096), ``hog`` (1764), ``gsc`` densities (512) or ``gsc-bits`` (512
            zeros and ones; the thresholds are medians of the training images, see `fit`, or the
            fixed ones).
        image_size: H = W of the images; 64 for hog.

    Raises:
        ValueError: another name, or size.
    """

    thresholds: Tensor

    def __init__(self, name: str, *, image_size: int = 64) -> None:
        super().__init__()
        if name not in DESCRIPTORS:
            raise ValueError(f"descriptor must be one of {', '.join(DESCRIPTORS)}, got {name}")
        if name == "hog" and image_size != 64:
            raise ValueError(f"hog takes images of 64 x 64, got {image_size}; pass --resize 64")
        self.name = name
        self.dim = {"raw": image_size**2, "hog": 1764}.get(name, 512)
        if name == "gsc-bits":
            from papercommons.handwriting.gsc import FIXED_THRESHOLDS

            self.register_buffer("thresholds", torch.tensor(np.array(FIXED_THRESHOLDS)).float())

    def forward(self, images: Tensor) -> Tensor:
        """Return the descriptors, float32, shape (N, dim), on the device of the images."""
        features = self.densities(images)
        if self.name == "gsc-bits":
            features = (features > self.thresholds).float()
        return features

    @torch.no_grad()
    def densities(self, images: Tensor) -> Tensor:
        """Return the descriptors before any threshold, float32, shape (N, dim)."""
        if self.name == "raw":
            return images.float().mean(1).flatten(1)
        from papercommons.handwriting.gsc import gsc_batch
        from papercommons.handwriting.hog import hog_features

        grey = ((1 - images.float().mean(1)) * 255).round().clamp(0, 255).byte().cpu().numpy()
        found = hog_features(grey) if self.name == "hog" else gsc_batch(grey)
        return torch.from_numpy(found).to(images.device)

    def fit(self, images: Tensor) -> None:
        """Take the medians over `images` as thresholds, where the descriptor has any.

        Args:
            images: of training writers, float in [0, 1], shape (N, C, H, W).
        """
        if self.name == "gsc-bits":
            self.thresholds.copy_(self.densities(images).median(0).values)


def create_encoder(name: str, **options: Any) -> nn.Module:
    """Return an encoder by name.

    Args:
        name: one of `NETWORKS` or `DESCRIPTORS`.
        **options: arguments of its class, e.g. in_channels, image_size.

    Raises:
        ValueError: unknown name, or options that it does not take.
    """
    check_name(name)
    for option, most in _MOST.items():
        if options.get(option, 0) > most:
            raise ValueError(f"{option} must be at most {most:,}, got {options[option]}")
    if name in DESCRIPTORS:
        options.pop("in_channels", None)
        return Descriptor(name, **options)
    from ssl_hv.objectives.bigan import BiGANEncoder
    from ssl_hv.objectives.flow import FlowEncoder
    from ssl_hv.vit import vit_b32, vit_tiny

    makers: dict[str, Callable[..., nn.Module]] = {
        "resnet18": ResNet18,
        "resnet-layout": LayoutResNet,
        "vit-b32": vit_b32,
        "vit-tiny": vit_tiny,
        "bigan": BiGANEncoder,
        "flow": FlowEncoder,
    }
    if name == "resnet18":
        options.pop("image_size", None)
    return makers[name](**options)


def check_name(name: str) -> None:
    """Raise ValueError if no encoder is called `name`."""
    if name not in NETWORKS + DESCRIPTORS:
        names = (*NETWORKS, *DESCRIPTORS)
        raise ValueError(f"no encoder {name}{nearest(name, names)}; there are {', '.join(names)}")
