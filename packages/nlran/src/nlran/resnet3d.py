"""3-D residual networks of torchvision's video models, for grey scans (Hara et al. 2018, R3D)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from papercommons.errors import reason
from torch import Tensor, nn
from torchvision.models import WeightsEnum
from torchvision.models.video import R3D_18_Weights
from torchvision.models.video.resnet import (
    BasicBlock,
    BasicStem,
    Bottleneck,
    Conv3DSimple,
    VideoResNet,
)

from nlran.features import Features, Place

DEPTHS: dict[int, tuple[type[BasicBlock] | type[Bottleneck], list[int]]] = {
    18: (BasicBlock, [2, 2, 2, 2]),
    34: (BasicBlock, [3, 4, 6, 3]),
    50: (Bottleneck, [3, 4, 6, 3]),
}


class ResNet3d(nn.Module):
    """A 3-D ResNet; the grey scan stands for all three colours, normalised as Kinetics' videos.

    33,167,811 parameters for depth 18 and 3 classes. Only H and W are halved by the stem; each of
    stages 2 to 4 halves D, H and W.

    Args:
        depth: 18, 34 or 50.
        num_classes: >= 1.
        pretrained: begin with torchvision's weights for Kinetics-400 (downloads; depth 18 only).

    Attributes:
        head: the classifier; logits = head(mean over positions of ``features(x).last``).

    Raises:
        ValueError: another depth, or no published weights for it.
        RuntimeError: the weights cannot be downloaded.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, depth: int = 18, num_classes: int = 3, *, pretrained: bool = False) -> None:
        super().__init__()
        if depth not in DEPTHS:
            raise ValueError(f"depth must be one of {', '.join(map(str, DEPTHS))}, got {depth}")
        if pretrained and depth != 18:
            raise ValueError(f"pretrained weights exist for depth 18 only, got {depth}")
        block, layers = DEPTHS[depth]
        network = VideoResNet(block, [Conv3DSimple] * 4, layers, BasicStem)
        if pretrained:
            network.load_state_dict(published_state(R3D_18_Weights.KINETICS400_V1))
        self.stem = network.stem
        self.layer1, self.layer2 = network.layer1, network.layer2
        self.layer3, self.layer4 = network.layer3, network.layer4
        self.head = nn.Linear(network.fc.in_features, num_classes)
        mean, std = (0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989)
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits.

        Args:
            x: scans in [0, 1], float, shape (B, 1, D, H, W).

        Returns:
            Shape (B, num_classes).
        """
        return self.classify(self.features(x).last)

    def features(self, x: Tensor) -> Features:
        """Return the last feature map and that of stage 1, in one pass.

        Args:
            x: as for `forward`, shape (B, 1, D, H, W).
        """
        stage1 = self.layer1(self.stem((x - self.mean) / self.std))
        last = self.layer4(self.layer3(self.layer2(stage1)))
        places = Place((8.0, 16.0, 16.0)), Place((1.0, 2.0, 2.0))
        return Features(last, stage1, last_place=places[0], stage1_place=places[1])

    def classify(self, last: Tensor) -> Tensor:
        """Return the logits, shape (B, num_classes), of the last feature map (B, C, d, h, w)."""
        return self.head(last.mean((2, 3, 4)))


def published_state(weights: WeightsEnum) -> Mapping[str, Any]:
    """Return the state dict of published weights, from torch's cache or the network.

    Args:
        weights: of torchvision.

    Raises:
        RuntimeError: there is no connection, or the file is damaged.
    """
    try:
        return weights.get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError) as error:
        raise RuntimeError(
            f"the weights {weights} cannot be downloaded ({reason(error)}); connect to the network "
            "once, or leave pretrained off"
        ) from None
