"""The visual encoder: a 3-D convolution, a residual network per frame, and a temporal network.

Specification section 3.1. Names of the weights are those of the official checkpoints.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

MEAN, STD = 0.4161, 0.1688  # of grey mouths in [0, 1]


def normalised(frames: Tensor) -> Tensor:
    """Return grey frames as the networks take them: ``(frames / 255 - 0.4161) / 0.1688``.

    Args:
        frames: uint8 or float, 0 to 255, any shape.

    Returns:
        float32, or the float dtype that was given.
    """
    if not frames.is_floating_point():
        frames = frames.float()
    return (frames / 255 - MEAN) / STD


class VisualFrontend(nn.Module):
    """Features of each frame: a 3-D convolution over 5 frames, then a residual network.

    Args:
        width: channels of the convolution; 8 times as many features come out. Paper: 64.
        legacy_concat: join the clips of a batch in time before the convolution, as the official
            code does, so that the first and last two frames of neighbours mix.
    """

    def __init__(self, width: int = 64, *, legacy_concat: bool = False) -> None:
        super().__init__()
        self.legacy_concat = legacy_concat
        self.frontend3D = nn.Sequential(
            nn.Conv3d(1, width, (5, 7, 7), (1, 2, 2), (2, 3, 3), bias=False),
            nn.BatchNorm3d(width, momentum=0.01, eps=0.001),
            nn.ReLU(),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)),
        )
        self.resnet = VisualResNet(width)

    def forward(self, frames: Tensor) -> Tensor:
        """Return features, shape (B, T, 8 * width).

        Args:
            frames: from `normalised`, float, shape (B, T, H, W).
        """
        clips = frames.flatten(0, 1)[None] if self.legacy_concat else frames
        maps = self.frontend3D(clips[:, None])
        features = self.resnet(maps.transpose(1, 2).flatten(0, 1))
        return features.unflatten(0, frames.shape[:2])


class VisualResNet(nn.Module):
    """Four layers of two residual units and the mean over the picture.

    Args:
        width: channels of the input and of the first layer; each further layer doubles them.
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.layer1 = ResidualLayer(width, width, 1)
        self.layer2 = ResidualLayer(width, 2 * width, 2)
        self.layer3 = ResidualLayer(2 * width, 4 * width, 2)
        self.layer4 = ResidualLayer(4 * width, 8 * width, 2)

    def forward(self, maps: Tensor) -> Tensor:
        """Return the features of each picture, (N, width, H, W) -> (N, 8 * width)."""
        return self.layer4(self.layer3(self.layer2(self.layer1(maps)))).mean((-2, -1))


class ResidualLayer(nn.Module):
    """Two residual units; the second one's shortcut is the sum before normalisation.

    Args:
        inputs: channels.
        outputs: channels.
        stride: of the first convolution; if 1 the shortcut is the input itself, and
            ``downsample`` exists for the checkpoints' sake only.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.conv1a = _conv3x3(inputs, outputs, stride)
        self.bn1a = _norm(outputs)
        self.conv2a = _conv3x3(outputs, outputs)
        self.downsample = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
        if stride == 1:
            self.downsample.requires_grad_(requires_grad=False)  # DDP refuses unused parameters
        self.outbna = _norm(outputs)
        self.conv1b = _conv3x3(outputs, outputs)
        self.bn1b = _norm(outputs)
        self.conv2b = _conv3x3(outputs, outputs)
        self.outbnb = _norm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, outputs, H / stride, W / stride)."""
        shortcut = x if self.stride == 1 else self.downsample(x)
        total = self.conv2a(F.relu(self.bn1a(self.conv1a(x)))) + shortcut
        x = F.relu(self.outbna(total))
        total = self.conv2b(F.relu(self.bn1b(self.conv1b(x)))) + total
        return F.relu(self.outbnb(total))


def _conv3x3(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, momentum=0.01, eps=0.001)


class VisualTCN(nn.Module):
    """Depthwise separable convolutions over time, (B, C, T) -> (B, C, T).

    Args:
        channels: C.
        layers: how many. Paper: 5.
    """

    def __init__(self, channels: int = 512, layers: int = 5) -> None:
        super().__init__()
        self.net = nn.Sequential(*(SeparableConv1d(channels) for _ in range(layers)))

    def forward(self, x: Tensor) -> Tensor:
        """Return what the layers make of x, float (B, C, T) -> (B, C, T)."""
        return self.net(x)


class SeparableConv1d(nn.Module):
    """ReLU, norm, depthwise convolution over 3 steps, PReLU, norm, pointwise; residual.

    Args:
        channels: in and out.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.ReLU(),
            nn.BatchNorm1d(channels),
            nn.Conv1d(channels, channels, 3, padding=1, groups=channels, bias=False),
            nn.PReLU(),
            GlobalLayerNorm(channels),
            nn.Conv1d(channels, channels, 1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return x + net(x)."""
        return x + self.net(x)


class GlobalLayerNorm(nn.Module):
    """Normalises over channels and time together, with a gain and a bias per channel.

    Args:
        channels: C of (B, C, T).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(1, channels, 1))
        self.beta = nn.Parameter(torch.zeros(1, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return x normalised, float (B, C, T) -> (B, C, T)."""
        return F.group_norm(x, 1, self.gamma.flatten(), self.beta.flatten(), eps=1e-8)


class VisualConv1D(nn.Module):
    """Two convolutions over time from features to embeddings, (B, C, T) -> (B, D, T).

    Args:
        channels: C; half as many lie between.
        dim: D.
    """

    def __init__(self, channels: int = 512, dim: int = 128) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv1d(channels, channels // 2, 5, padding=2),
            nn.BatchNorm1d(channels // 2),
            nn.ReLU(),
            nn.Conv1d(channels // 2, dim, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return embeddings, float (B, C, T) -> (B, D, T)."""
        return self.net(x)
