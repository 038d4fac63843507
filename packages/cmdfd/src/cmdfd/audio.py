"""The audio encoder: a residual network with squeeze-and-excitation over MFCC.

Specification section 3.2. Names of the weights are those of the official checkpoints.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

STEPS = 4  # rows of MFCC to a frame of video


class AudioEncoder(nn.Module):
    """One embedding for every four rows of MFCC.

    Args:
        dim: D, a multiple of 8; the stages have D / 8, D / 4, D / 2 and D channels. Paper: 128.
        layers: blocks of each stage. Paper: 3, 4, 6, 3.

    Raises:
        ValueError: dim is no multiple of 8, or there are not four stages.
    """

    def __init__(self, dim: int = 128, layers: Sequence[int] = (3, 4, 6, 3)) -> None:
        super().__init__()
        if dim < 8 or dim % 8 or len(layers) != 4 or min(layers) < 1:
            raise ValueError(
                f"dim must be a multiple of 8 and layers four numbers >= 1, got {dim}, {layers}"
            )
        widths = (dim // 8, dim // 4, dim // 2, dim)
        self.conv1 = nn.Conv2d(1, widths[0], 7, (2, 1), 3, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        inputs, strides = (widths[0], *widths[:3]), (1, 2, 2, 1)
        stages = zip(inputs, widths, layers, strides, strict=True)
        self.layer1, self.layer2, self.layer3, self.layer4 = (_stage(*stage) for stage in stages)

    def forward(self, mfcc: Tensor) -> Tensor:
        """Return embeddings, (B, 4T, 13) -> (B, T, D)."""
        x = mfcc.transpose(1, 2)[:, None]
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return x.mean(2).transpose(1, 2)


def _stage(inputs: int, outputs: int, blocks: int, stride: int) -> nn.Sequential:
    rest = (SEBlock(outputs, outputs) for _ in range(blocks - 1))
    return nn.Sequential(SEBlock(inputs, outputs, stride), *rest)


class SEBlock(nn.Module):
    """A residual block whose channels are weighed; ReLU comes before the first norm.

    Args:
        inputs: channels.
        outputs: channels.
        stride: of the first convolution, both ways.
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.se = SqueezeExcitation(outputs)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, outputs, F / stride, S / stride)."""
        y = self.bn1(F.relu(self.conv1(x)))
        return F.relu(self.se(self.bn2(self.conv2(y))) + self.downsample(x))


class SqueezeExcitation(nn.Module):
    """Weighs channels by what their means say.

    Args:
        channels: in and out.
        reduction: the layer between is so much narrower. Paper: 8.
    """

    def __init__(self, channels: int, reduction: int = 8) -> None:
        super().__init__()
        hidden = max(1, channels // reduction)
        self.fc = nn.Sequential(
            nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, C, F, S) weighed."""
        return x * self.fc(x.mean((2, 3)))[:, :, None, None]
