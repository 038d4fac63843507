"""Wide residual networks (Zagoruyko and Komodakis 2016): pre-activation blocks, no dropout."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn
from torch.nn import functional as F

from rld_distill.models.layers import conv3x3, init_convs


class WideBlock(nn.Module):
    """BN, ReLU and a 3x3 convolution, twice, beside a shortcut.

    Where the width changes, the first BN and ReLU come before both branches and the shortcut is a
    bare 1x1 convolution.
    """

    def __init__(self, inp: int, out: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inp)
        self.conv1 = conv3x3(inp, out, stride)
        self.bn2 = nn.BatchNorm2d(out)
        self.conv2 = conv3x3(out, out)
        self.convShortcut = None if inp == out else nn.Conv2d(inp, out, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inp, H, W) to (B, out, H / stride, W / stride)."""
        active = F.relu(self.bn1(x), inplace=True)
        shortcut = x if self.convShortcut is None else self.convShortcut(active)
        out: Tensor = self.conv2(F.relu(self.bn2(self.conv1(active)), inplace=True))
        return out + shortcut


class WideResNet(nn.Module):
    """WRN-depth-width: three stages of ``(depth - 4) / 6`` blocks, 16, 32 and 64 times `width`.

    Args:
        depth: number of weighted layers, 6n + 4 with n >= 1.
        width: widening factor, >= 1.
        num_classes: number of logits.

    Raises:
        ValueError: the depth is not 6n + 4.
    """

    def __init__(self, depth: int, width: int, *, num_classes: int) -> None:
        super().__init__()
        if depth < 10 or depth % 6 != 4:
            raise ValueError(f"depth must be 6n + 4 with n >= 1, got {depth}")
        blocks = depth // 6
        self.conv1 = conv3x3(3, 16)
        self.block1 = _stage(16, 16 * width, blocks, 1)
        self.block2 = _stage(16 * width, 32 * width, blocks, 2)
        self.block3 = _stage(32 * width, 64 * width, blocks, 2)
        self.bn1 = nn.BatchNorm2d(64 * width)
        self.fc = nn.Linear(64 * width, num_classes)
        init_convs(self)
        nn.init.zeros_(self.fc.bias)

    def forward_features(self, x: Tensor) -> Tensor:
        """Map images (B, 3, H, W) to pooled features (B, 64 width)."""
        x = self.block3(self.block2(self.block1(self.conv1(x))))
        return F.relu(self.bn1(x), inplace=True).mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """Map images, float, (B, 3, H, W), 32x32 in the papers, to logits (B, num_classes)."""
        logits: Tensor = self.fc(self.forward_features(x))
        return logits


def _stage(inp: int, out: int, blocks: int, stride: int) -> nn.Sequential:
    first = WideBlock(inp, out, stride)
    layer = nn.Sequential(first, *(WideBlock(out, out, 1) for _ in range(blocks - 1)))
    return nn.Sequential(OrderedDict(layer=layer))  # "layer" is part of the checkpoints' names
