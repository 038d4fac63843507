"""CIFAR residual networks of depth 6n + 2 (He et al. 2016, section 4.2), projection shortcuts."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from rld_distill.models.layers import conv3x3, init_convs


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut; a 1x1 convolution and BN where the shape changes."""

    def __init__(self, inp: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv3x3(inp, out, stride)
        self.bn1 = nn.BatchNorm2d(out)
        self.conv2 = conv3x3(out, out)
        self.bn2 = nn.BatchNorm2d(out)
        self.downsample = nn.Sequential()
        if stride != 1 or inp != out:
            self.downsample.append(nn.Conv2d(inp, out, 1, stride, bias=False))
            self.downsample.append(nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inp, H, W) to (B, out, H / stride, W / stride)."""
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return F.relu(self.bn2(self.conv2(out)) + self.downsample(x), inplace=True)


class CifarResNet(nn.Module):
    """A residual network with three stages of ``(depth - 2) / 6`` basic blocks.

    Args:
        depth: number of weighted layers, 6n + 2 with n >= 1.
        num_classes: number of logits.
        stem: channels of the first convolution; the x4 networks have 32.
        widths: channels of the three stages; the x4 networks have (64, 128, 256).

    Raises:
        ValueError: the depth is not 6n + 2.
    """

    def __init__(
        self,
        depth: int,
        *,
        num_classes: int,
        stem: int = 16,
        widths: tuple[int, int, int] = (16, 32, 64),
    ) -> None:
        super().__init__()
        if depth < 8 or depth % 6 != 2:
            raise ValueError(f"depth must be 6n + 2 with n >= 1, got {depth}")
        blocks = depth // 6
        self.conv1 = conv3x3(3, stem)
        self.bn1 = nn.BatchNorm2d(stem)
        self.layer1 = _stage(stem, widths[0], blocks, 1)
        self.layer2 = _stage(widths[0], widths[1], blocks, 2)
        self.layer3 = _stage(widths[1], widths[2], blocks, 2)
        self.fc = nn.Linear(widths[2], num_classes)
        init_convs(self)

    def forward_features(self, x: Tensor) -> Tensor:
        """Map images (B, 3, H, W) to pooled features (B, widths[2])."""
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        x = self.layer3(self.layer2(self.layer1(x)))
        return x.mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """Map images, float, (B, 3, H, W), 32x32 in the papers, to logits (B, num_classes)."""
        logits: Tensor = self.fc(self.forward_features(x))
        return logits


def _stage(inp: int, out: int, blocks: int, stride: int) -> nn.Sequential:
    first = BasicBlock(inp, out, stride)
    return nn.Sequential(first, *(BasicBlock(out, out, 1) for _ in range(blocks - 1)))
