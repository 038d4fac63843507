"""ShuffleNet V1 (Zhang et al. 2018) and V2 (Ma et al. 2018) with stems for 32x32 images."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ShuffleBlockV1(nn.Module):
    """Grouped 1x1, depthwise 3x3 and grouped 1x1 convolutions with a channel shuffle.

    With stride 2 the input, average-pooled, is concatenated; with stride 1 it is added.
    """

    def __init__(self, inp: int, out: int, stride: int, *, groups: int, first_groups: int) -> None:
        super().__init__()
        own = out - inp if stride == 2 else out
        mid = own // 4
        self.stride = stride
        self.shuffled_groups = first_groups
        self.conv1 = nn.Conv2d(inp, mid, 1, groups=first_groups, bias=False)
        self.bn1 = nn.BatchNorm2d(mid)
        self.conv2 = nn.Conv2d(mid, mid, 3, stride, 1, groups=mid, bias=False)
        self.bn2 = nn.BatchNorm2d(mid)
        self.conv3 = nn.Conv2d(mid, own, 1, groups=groups, bias=False)
        self.bn3 = nn.BatchNorm2d(own)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inp, H, W) to (B, out, H / stride, W / stride)."""
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out = F.channel_shuffle(out, self.shuffled_groups)
        out = F.relu(self.bn2(self.conv2(out)), inplace=True)
        out = self.bn3(self.conv3(out))
        out = torch.cat((out, F.avg_pool2d(x, 3, 2, 1)), 1) if self.stride == 2 else out + x
        return F.relu(out, inplace=True)


class ShuffleNetV1(nn.Module):
    """ShuffleNet V1 with 3 groups: stages of 4, 8 and 4 blocks and 240, 480 and 960 channels."""

    def __init__(self, *, num_classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 24, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(24)
        # 24 channels are too few to group: the very first convolution is a full one
        self.layer1 = _stage_v1(24, 240, 4, first_groups=1)
        self.layer2 = _stage_v1(240, 480, 8, first_groups=3)
        self.layer3 = _stage_v1(480, 960, 4, first_groups=3)
        self.linear = nn.Linear(960, num_classes)

    def forward_features(self, x: Tensor) -> Tensor:
        """Map images (B, 3, H, W) to pooled features (B, 960)."""
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        x = self.layer3(self.layer2(self.layer1(x)))
        return x.mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """Map images, float, (B, 3, H, W), 32x32 in the papers, to logits (B, num_classes)."""
        logits: Tensor = self.linear(self.forward_features(x))
        return logits


def _stage_v1(inp: int, out: int, blocks: int, *, first_groups: int) -> nn.Sequential:
    first = ShuffleBlockV1(inp, out, 2, groups=3, first_groups=first_groups)
    rest = (ShuffleBlockV1(out, out, 1, groups=3, first_groups=3) for _ in range(blocks - 1))
    return nn.Sequential(first, *rest)


class ShuffleBlockV2(nn.Module):
    """One half of the channels passes; the other goes through 1x1, depthwise 3x3 and 1x1."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.conv1 = nn.Conv2d(half, half, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(half)
        self.conv2 = nn.Conv2d(half, half, 3, 1, 1, groups=half, bias=False)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv3 = nn.Conv2d(half, half, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(half)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, channels, H, W) to the same shape."""
        kept, out = x.chunk(2, 1)
        out = F.relu(self.bn1(self.conv1(out)), inplace=True)
        out = self.bn2(self.conv2(out))
        out = F.relu(self.bn3(self.conv3(out)), inplace=True)
        return F.channel_shuffle(torch.cat((kept, out), 1), 2)


class DownBlockV2(nn.Module):
    """Two stride-2 branches of half the output width each: depthwise + 1x1, and the full three."""

    def __init__(self, inp: int, out: int) -> None:
        super().__init__()
        half = out // 2
        self.conv1 = nn.Conv2d(inp, inp, 3, 2, 1, groups=inp, bias=False)
        self.bn1 = nn.BatchNorm2d(inp)
        self.conv2 = nn.Conv2d(inp, half, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv3 = nn.Conv2d(inp, half, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(half)
        self.conv4 = nn.Conv2d(half, half, 3, 2, 1, groups=half, bias=False)
        self.bn4 = nn.BatchNorm2d(half)
        self.conv5 = nn.Conv2d(half, half, 1, bias=False)
        self.bn5 = nn.BatchNorm2d(half)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inp, H, W) to (B, out, H / 2, W / 2)."""
        left = self.bn1(self.conv1(x))
        left = F.relu(self.bn2(self.conv2(left)), inplace=True)
        right = F.relu(self.bn3(self.conv3(x)), inplace=True)
        right = self.bn4(self.conv4(right))
        right = F.relu(self.bn5(self.conv5(right)), inplace=True)
        return F.channel_shuffle(torch.cat((left, right), 1), 2)


class ShuffleNetV2(nn.Module):
    """ShuffleNet V2 1x: stages of 4, 8 and 4 blocks and 116, 232 and 464 channels."""

    def __init__(self, *, num_classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 24, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(24)
        self.layer1 = _stage_v2(24, 116, 4)
        self.layer2 = _stage_v2(116, 232, 8)
        self.layer3 = _stage_v2(232, 464, 4)
        self.conv2 = nn.Conv2d(464, 1024, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(1024)
        self.linear = nn.Linear(1024, num_classes)

    def forward_features(self, x: Tensor) -> Tensor:
        """Map images (B, 3, H, W) to pooled features (B, 1024)."""
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        x = self.layer3(self.layer2(self.layer1(x)))
        return F.relu(self.bn2(self.conv2(x)), inplace=True).mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """Map images, float, (B, 3, H, W), 32x32 in the papers, to logits (B, num_classes)."""
        logits: Tensor = self.linear(self.forward_features(x))
        return logits


def _stage_v2(inp: int, out: int, blocks: int) -> nn.Sequential:
    return nn.Sequential(DownBlockV2(inp, out), *(ShuffleBlockV2(out) for _ in range(blocks - 1)))
