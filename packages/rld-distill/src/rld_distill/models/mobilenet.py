"""MobileNetV2 (Sandler et al. 2018) at half width for 32x32 images, with ReLU for ReLU6."""

from __future__ import annotations

from torch import Tensor, nn

from rld_distill.models.layers import init_convs, init_linear

STAGES = (  # expansion, channels before the width factor, blocks, stride of the first block
    (1, 16, 1, 1),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class InvertedResidual(nn.Module):
    """1x1 expansion, 3x3 depthwise and 1x1 projection, added to the input where shapes agree."""

    def __init__(self, inp: int, out: int, stride: int, expansion: int) -> None:
        super().__init__()
        mid = expansion * inp
        self.residual = stride == 1 and inp == out
        self.conv = nn.Sequential(
            nn.Conv2d(inp, mid, 1, bias=False),
            nn.BatchNorm2d(mid),
            nn.ReLU(inplace=True),
            nn.Conv2d(mid, mid, 3, stride, 1, groups=mid, bias=False),
            nn.BatchNorm2d(mid),
            nn.ReLU(inplace=True),
            nn.Conv2d(mid, out, 1, bias=False),
            nn.BatchNorm2d(out),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inp, H, W) to (B, out, H / stride, W / stride)."""
        out: Tensor = self.conv(x)
        return x + out if self.residual else out


class MobileNetV2(nn.Module):
    """The half-width student of the distillation papers; its stem has stride 2.

    Args:
        num_classes: number of logits.
        width: factor on all channels but the last 1280, in (0, 1].
    """

    def __init__(self, *, num_classes: int, width: float = 0.5) -> None:
        super().__init__()
        inp = int(32 * width)
        self.conv1 = nn.Sequential(
            nn.Conv2d(3, inp, 3, 2, 1, bias=False), nn.BatchNorm2d(inp), nn.ReLU(inplace=True)
        )
        self.blocks = nn.Sequential()
        for expansion, channels, blocks, stride in STAGES:
            out = int(channels * width)
            first = InvertedResidual(inp, out, stride, expansion)
            rest = (InvertedResidual(out, out, 1, expansion) for _ in range(blocks - 1))
            self.blocks.append(nn.Sequential(first, *rest))
            inp = out
        self.conv2 = nn.Sequential(
            nn.Conv2d(inp, 1280, 1, bias=False), nn.BatchNorm2d(1280), nn.ReLU(inplace=True)
        )
        last = nn.Linear(1280, num_classes)
        self.classifier = nn.Sequential(last)
        init_convs(self)
        init_linear(last)

    def forward_features(self, x: Tensor) -> Tensor:
        """Map images (B, 3, H, W) to pooled features (B, 1280)."""
        features: Tensor = self.conv2(self.blocks(self.conv1(x)))
        return features.mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """Map images, float, (B, 3, H, W), 32x32 in the papers, to logits (B, num_classes)."""
        logits: Tensor = self.classifier(self.forward_features(x))
        return logits
