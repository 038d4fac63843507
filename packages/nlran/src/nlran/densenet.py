"""MONAI's 3-D DenseNet-121, what a practitioner would take today (extra ``nlran[monai]``)."""

from __future__ import annotations

from papercommons.errors import missing_library
from torch import Tensor, nn
from torch.nn import functional as F

from nlran.features import Features, Place

SMALLEST = 29  # halved five times, and not below one voxel before the last


class DenseNet3d(nn.Module):
    """DenseNet-121 with 3-D convolutions behind the interface of the other networks.

    11,245,699 parameters for 3 classes.

    Args:
        num_classes: >= 1.

    Attributes:
        head: the classifier; logits = head(mean over positions of ``features(x).last``).

    Raises:
        DataError: MONAI is not installed.
    """

    def __init__(self, num_classes: int = 3) -> None:
        super().__init__()
        try:
            from monai.networks.nets.densenet import DenseNet121
        except ImportError:
            raise missing_library("densenet121", "MONAI", "nlran[monai]") from None
        network = DenseNet121(spatial_dims=3, in_channels=1, out_channels=num_classes)
        self.trunk, self.head = network.features, network.class_layers[-1]

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits.

        Args:
            x: scans in [0, 1], float, shape (B, 1, D, H, W), each of D, H, W >= 29.

        Returns:
            Shape (B, num_classes).

        Raises:
            ValueError: the scans are too small to be halved five times.
        """
        return self.classify(self.features(x).last)

    def features(self, x: Tensor) -> Features:
        """Return the last feature map and that of the first dense block, in one pass.

        Args:
            x: as for `forward`, shape (B, 1, D, H, W).

        Raises:
            ValueError: the scans are too small to be halved five times.
        """
        if min(x.shape[2:]) < SMALLEST:
            raise ValueError(
                f"DenseNet3d needs at least {SMALLEST} voxels along each axis, "
                f"got {tuple(x.shape[2:])}"
            )
        stage1 = None
        for name, layer in self.trunk.named_children():
            x = layer(x)
            stage1 = x if name == "denseblock1" else stage1
        # three transitions average unpadded pairs, whose middle lies half a step further
        places = Place((32.0,) * 3, (14.0,) * 3), Place((4.0,) * 3)
        return Features(F.relu(x), stage1, last_place=places[0], stage1_place=places[1])

    def classify(self, last: Tensor) -> Tensor:
        """Return the logits, shape (B, num_classes), of the last feature map (B, C, d, h, w)."""
        return self.head(last.mean((2, 3, 4)))
