"""ResNets of the ImageNet widths (64 to 512) with a stem for small images: 3x3, no pooling."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from rld_distill.models.layers import conv3x3, init_convs


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    expansion = 1

    def __init__(self, inp: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv3x3(inp, width, stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = conv3x3(width, width)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = _shortcut(inp, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inp, H, W) to (B, width, H / stride, W / stride)."""
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return F.relu(self.bn2(self.conv2(out)) + self.shortcut(x), inplace=True)


class Bottleneck(nn.Module):
    """1x1, 3x3 (with the stride) and 1x1 convolutions beside a shortcut; 4 times wider outside."""

    expansion = 4

    def __init__(self, inp: int, width: int, stride: int) -> None:
        super().__init__()
        out = self.expansion * width
        self.conv1 = nn.Conv2d(inp, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = conv3x3(width, width, stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out)
        self.shortcut = _shortcut(inp, out, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inp, H, W) to (B, 4 width, H / stride, W / stride)."""
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out = F.relu(self.bn2(self.conv2(out)), inplace=True)
        return F.relu(self.bn3(self.conv3(out)) + self.shortcut(x), inplace=True)


class ResNet64(nn.Module):
    """A residual network with four stages of widths 64, 128, 256 and 512.

    Args:
        block: ``"basic"`` or ``"bottleneck"``.
        blocks: number of blocks per stage; ResNet18 is basic (2, 2, 2, 2), ResNet50 is
            bottleneck (3, 4, 6, 3).
        num_classes: number of logits.
    """

    def __init__(
        self,
        block: Literal["basic", "bottleneck"],
        blocks: tuple[int, int, int, int],
        *,
        num_classes: int,
    ) -> None:
        super().__init__()
        kind = BasicBlock if block == "basic" else Bottleneck
        self.conv1 = conv3x3(3, 64)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = _stage(kind, 64, 64, blocks[0], 1)
        self.layer2 = _stage(kind, 64 * kind.expansion, 128, blocks[1], 2)
        self.layer3 = _stage(kind, 128 * kind.expansion, 256, blocks[2], 2)
        self.layer4 = _stage(kind, 256 * kind.expansion, 512, blocks[3], 2)
        self.linear = nn.Linear(512 * kind.expansion, num_classes)
        init_convs(self)

    def forward_features(self, x: Tensor) -> Tensor:
        """Map images (B, 3, H, W) to pooled features (B, 512 or 2048)."""
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return x.mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """Map images, float, (B, 3, H, W), 32x32 in the papers, to logits (B, num_classes)."""
        logits: Tensor = self.linear(self.forward_features(x))
        return logits


def _stage(
    kind: type[BasicBlock] | type[Bottleneck], inp: int, width: int, blocks: int, stride: int
) -> nn.Sequential:
    out = width * kind.expansion
    return nn.Sequential(
        kind(inp, width, stride), *(kind(out, width, 1) for _ in range(blocks - 1))
    )


def _shortcut(inp: int, out: int, stride: int) -> nn.Sequential:
    if stride == 1 and inp == out:
        return nn.Sequential()
    return nn.Sequential(nn.Conv2d(inp, out, 1, stride, bias=False), nn.BatchNorm2d(out))
