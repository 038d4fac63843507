"""A small U-Net over noise levels, for images of any size, and networks by name."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from papercommons.errors import nearest
from torch import Tensor, nn
from torch.nn import functional as F

GROUP = 8  # channels normalised together


class UNet(nn.Module):
    """Residual blocks at several sizes with skips between them, told the noise level.

    Called as an EDM network, ``F(x, c_noise, labels)``. The last layer begins at zero, so a new
    network gives zeros.

    Args:
        channels: of the images.
        width: channels at full size, a multiple of 8.
        multipliers: channels at each size, in widths; each size halves the one before.
        blocks: residual blocks at each size, on the way down; one more on the way up.
        num_classes: labels are 0 .. num_classes - 1, or -1 for none; 0: no labels.
        attention: self-attention at the smallest size.
        dropout: within blocks, in [0, 1).

    Attributes:
        factor: images' height and width must be multiples of this.

    Raises:
        ValueError: a number out of range.
    """

    def __init__(
        self,
        channels: int = 1,
        *,
        width: int = 32,
        multipliers: Sequence[int] = (1, 2, 2),
        blocks: int = 2,
        num_classes: int = 0,
        attention: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if width < GROUP or width % GROUP:
            raise ValueError(f"width must be a multiple of {GROUP}, got {width}")
        if min(channels, blocks, *multipliers, 1) < 1 or not multipliers or num_classes < 0:
            raise ValueError(
                "channels, blocks and multipliers must be >= 1 and num_classes >= 0, got "
                f"{channels}, {blocks}, {tuple(multipliers)}, {num_classes}"
            )
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {dropout}")
        self.factor = 2 ** (len(multipliers) - 1)
        told = 4 * width  # size of the embedding of noise level and label
        self.register_buffer("rates", torch.logspace(-1, 1.2, width // 2), persistent=False)
        self.embed = nn.Sequential(nn.Linear(width, told), nn.SiLU(), nn.Linear(told, told))
        self.classes = nn.Embedding(num_classes + 1, told) if num_classes else None
        self.stem = nn.Conv2d(channels, width, 3, padding=1)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        sizes, last = [width], width
        for level, many in enumerate(multipliers):
            lowest = attention and level == len(multipliers) - 1
            for _ in range(blocks):
                self.down.append(Block(last, many * width, told, lowest, dropout))
                last = many * width
                sizes.append(last)
            if level < len(multipliers) - 1:
                self.down.append(Resize(last, down=True))
                sizes.append(last)
        self.middle = Block(last, last, told, attention, dropout)
        for level, many in reversed(list(enumerate(multipliers))):
            lowest = attention and level == len(multipliers) - 1
            for _ in range(blocks + 1):
                self.up.append(Block(last + sizes.pop(), many * width, told, lowest, dropout))
                last = many * width
            if level:
                self.up.append(Resize(last, down=False))
        self.head = nn.Sequential(_norm(last), nn.SiLU(), _zero(nn.Conv2d(last, channels, 3, 1, 1)))

    rates: Tensor

    def forward(self, x: Tensor, noise: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return F, of the shape of x.

        Args:
            x: scaled images, float, shape (B, C, H, W).
            noise: c_noise = ln(sigma) / 4, shape (B,).
            labels: class numbers, -1 for none, int64, shape (B,); None is none for all.

        Raises:
            ValueError: H or W is no multiple of `factor`, or labels for a network without.
        """
        if x.ndim != 4 or x.shape[2] % self.factor or x.shape[3] % self.factor:
            raise ValueError(
                f"images must be (B, C, H, W), H and W multiples of {self.factor}, "
                f"got {tuple(x.shape)}"
            )
        angles = 2 * math.pi * noise[:, None].to(self.rates.dtype) * self.rates
        told = self.embed(torch.cat([angles.cos(), angles.sin()], 1))
        if self.classes is not None:
            none = self.classes.num_embeddings - 1
            labels = noise.new_full((len(x),), -1).long() if labels is None else labels
            told = told + self.classes(torch.where(labels < 0, none, labels))
        elif labels is not None:
            raise ValueError("labels must be None: the network was made with num_classes 0")
        h = self.stem(x)
        skips = [h]
        for block in self.down:
            h = block(h, told)
            skips.append(h)
        h = self.middle(h, told)
        for block in self.up:
            h = block(h if isinstance(block, Resize) else torch.cat([h, skips.pop()], 1), told)
        return self.head(h)


class Block(nn.Module):
    """Two convolutions around a skip; scale and shift between them follow the noise level."""

    def __init__(self, before: int, after: int, told: int, attention: bool, dropout: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = _norm(before), _norm(after)
        self.conv1 = nn.Conv2d(before, after, 3, padding=1)
        self.conv2 = _zero(nn.Conv2d(after, after, 3, padding=1))
        self.told = nn.Linear(told, 2 * after)
        self.skip = nn.Identity() if before == after else nn.Conv2d(before, after, 1)
        self.dropout = nn.Dropout(dropout)
        self.attention = Attention(after) if attention else None

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        """Return new features, shape (B, after, H, W)."""
        scale, shift = self.told(F.silu(told))[:, :, None, None].chunk(2, 1)
        h = self.norm2(self.conv1(F.silu(self.norm1(x)))) * (1 + scale) + shift
        h = self.skip(x) + self.conv2(self.dropout(F.silu(h)))
        return h if self.attention is None else self.attention(h)


class Attention(nn.Module):
    """Self-attention over all places."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.heads = math.gcd(channels // GROUP, 4)
        self.norm = _norm(channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = _zero(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return new features, of the shape of x."""
        count, channels = x.shape[:2]
        parts = self.qkv(self.norm(x)).view(count, 3, self.heads, channels // self.heads, -1)
        q, k, v = parts.transpose(-1, -2).unbind(1)
        seen = F.scaled_dot_product_attention(q, k, v)
        return x + self.out(seen.transpose(-1, -2).reshape(x.shape))


class Resize(nn.Module):
    """Half or twice the height and width."""

    def __init__(self, channels: int, *, down: bool) -> None:
        super().__init__()
        self.down = down
        self.conv = nn.Conv2d(channels, channels, 3, stride=2 if down else 1, padding=1)

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        """Return the features at the other size; `told` is what blocks take."""
        return self.conv(x if self.down else F.interpolate(x, scale_factor=2, mode="nearest"))


class DiffusersUNet(nn.Module):
    """diffusers' UNet2DModel, called as `UNet` is.

    Args:
        shape: of an image, (C, H, W).
        num_classes: as of `UNet`.
        **options: of UNet2DModel, over small defaults.
    """

    def __init__(self, shape: Sequence[int], num_classes: int = 0, **options: Any) -> None:
        super().__init__()
        from diffusers import UNet2DModel

        defaults: dict[str, Any] = {
            "block_out_channels": (32, 64, 64),
            "down_block_types": ("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
            "up_block_types": ("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
            "layers_per_block": 2,
            "norm_num_groups": 8,
            "freq_shift": 1,
        }
        known = inspect.signature(UNet2DModel.__init__).parameters
        for name in options:
            if name not in known:
                raise ValueError(f"UNet2DModel has no option {name}{nearest(name, known)}")
        self.num_classes = num_classes
        self.unet: Any = UNet2DModel(
            sample_size=tuple(shape[1:]),
            in_channels=shape[0],
            out_channels=shape[0],
            num_class_embeds=num_classes + 1 if num_classes else None,
            **(defaults | options),
        )

    def forward(self, x: Tensor, noise: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return F, see `UNet.forward`."""
        if self.num_classes:
            labels = noise.new_full((len(x),), -1).long() if labels is None else labels
            labels = torch.where(labels < 0, self.num_classes, labels)
        elif labels is not None:
            raise ValueError("labels must be None: the network was made with num_classes 0")
        return self.unet(x, noise, class_labels=labels).sample


def create_network(
    name: str,
    shape: Sequence[int],
    num_classes: int = 0,
    options: Mapping[str, Any] | None = None,
) -> nn.Module:
    """Return a new network F(x, c_noise, labels).

    Args:
        name: ``unet`` (`UNet`) or ``diffusers`` (its UNet2DModel, which must be installed).
        shape: of an image, (C, H, W).
        num_classes: of labels, 0 for none.
        options: further arguments.

    Raises:
        ValueError: unknown name, an option that is not known or out of range, or a size that the
            network cannot halve.
    """
    if len(shape) != 3 or min(shape) < 1:
        raise ValueError(f"shape must be (channels, height, width), got {tuple(shape)}")
    options = dict(options or {})
    if name == "diffusers":
        return DiffusersUNet(shape, num_classes, **options)
    if name != "unet":
        raise ValueError(f"network must be unet or diffusers, got {name}")
    known = {"width", "multipliers", "blocks", "attention", "dropout"}
    for option in options:
        if option not in known:
            raise ValueError(f"unet has no option {option}{nearest(option, known)}")
    network = UNet(shape[0], num_classes=num_classes, **options)
    if shape[1] % network.factor or shape[2] % network.factor:
        raise ValueError(
            f"height and width must be multiples of {network.factor}, got {tuple(shape[1:])}"
        )
    return network


def _norm(channels: int) -> nn.GroupNorm:
    # eight channels or more in a group, so that one pixel is enough for a deviation
    return nn.GroupNorm(max(1, channels // GROUP), channels)


def _zero(layer: nn.Conv2d) -> nn.Conv2d:
    nn.init.zeros_(layer.weight)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer
