"""VGG networks (Simonyan and Zisserman 2015) with batch normalisation and one linear layer."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from rld_distill.models.layers import init_convs, init_linear

WIDTHS = (64, 128, 256, 512, 512)


class VGG(nn.Module):
    """Five stages of 3x3 convolutions (with bias), BN and ReLU; 2x2 max-pooling in between.

    There is no pooling between the last two stages for images under 64 pixels high, as in the
    public networks, which know 32 and 64.

    Args:
        convs: number of convolutions per stage; vgg8 is (1, 1, 1, 1, 1).
        num_classes: number of logits.
    """

    def __init__(self, convs: tuple[int, int, int, int, int], *, num_classes: int) -> None:
        super().__init__()
        self.block0 = _stage(3, WIDTHS[0], convs[0])
        self.block1 = _stage(WIDTHS[0], WIDTHS[1], convs[1])
        self.block2 = _stage(WIDTHS[1], WIDTHS[2], convs[2])
        self.block3 = _stage(WIDTHS[2], WIDTHS[3], convs[3])
        self.block4 = _stage(WIDTHS[3], WIDTHS[4], convs[4])
        self.classifier = nn.Linear(WIDTHS[4], num_classes)
        init_convs(self)
        init_linear(self.classifier)

    def forward_features(self, x: Tensor) -> Tensor:
        """Map images (B, 3, H, W) to pooled features (B, 512)."""
        large = x.shape[2] >= 64
        x = F.max_pool2d(self.block0(x), 2)
        x = F.max_pool2d(self.block1(x), 2)
        x = F.max_pool2d(self.block2(x), 2)
        x = self.block3(x)
        if large:
            x = F.max_pool2d(x, 2)
        x = self.block4(x)
        return x.mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """Map images, float, (B, 3, H, W), 32x32 in the papers, to logits (B, num_classes)."""
        logits: Tensor = self.classifier(self.forward_features(x))
        return logits


def _stage(inp: int, out: int, convs: int) -> nn.Sequential:
    layers = nn.Sequential()
    for channels in (inp, *[out] * (convs - 1)):
        layers.append(nn.Conv2d(channels, out, 3, padding=1))
        layers.append(nn.BatchNorm2d(out))
        layers.append(nn.ReLU(inplace=True))
    return layers
