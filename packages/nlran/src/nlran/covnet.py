"""COVNet: a 2-D ResNet on every slice and the maximum over slices (Li et al., Radiology 2020)."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torchvision.models import get_model, get_model_weights

from nlran.features import Features, Place
from nlran.resnet3d import published_state


class COVNet(nn.Module):
    """A scan is described by the maximum, per channel, of its slices' pooled features.

    23,514,179 parameters for ResNet-50 and 3 classes. Scans of a batch may have different numbers
    of slices: only true slices reach the network, so that padding costs and changes nothing.

    With F the ``last`` features of a scan, s_k the slice whose mean of channel k is largest and w,
    b the head's weights, ``sum_k w_ck mean_p F_k(s_k, p) + b_c`` is the logit of class c: its class
    activation map is not 0 in the winning slices only.

    Args:
        num_classes: >= 1.
        backbone: ``resnet18``, ``resnet34`` or ``resnet50`` (the paper's).
        pretrained: begin with torchvision's weights for ImageNet, as the paper (downloads).
        slice_chunk: slices at once in evaluation, >= 1; bounds the memory, changes nothing.

    Attributes:
        head: the classifier.

    Raises:
        ValueError: another backbone, or slice_chunk < 1.
        RuntimeError: the weights cannot be downloaded.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        num_classes: int = 3,
        *,
        backbone: str = "resnet50",
        pretrained: bool = False,
        slice_chunk: int = 32,
    ) -> None:
        super().__init__()
        if backbone not in ("resnet18", "resnet34", "resnet50"):
            raise ValueError(f"backbone must be resnet18, resnet34 or resnet50, got {backbone}")
        if slice_chunk < 1:
            raise ValueError(f"slice_chunk must be >= 1, got {slice_chunk}")
        network = get_model(backbone, weights=None)
        if pretrained:
            network.load_state_dict(published_state(get_model_weights(backbone)["IMAGENET1K_V1"]))
        parts = OrderedDict(network.named_children())
        width = parts.pop("fc").in_features
        parts.pop("avgpool")
        self.backbone = nn.Sequential(parts)
        self.head = nn.Linear(width, num_classes)
        self.slice_chunk = slice_chunk
        mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)

    def forward(self, x: Tensor, slices: Tensor | None = None) -> Tensor:
        """Return the logits.

        Args:
            x: scans in [0, 1], float, shape (B, 1, S, H, W), the first slices of each true.
            slices: how many are true, int64, shape (B,), in [1, S]; all if None.

        Returns:
            Shape (B, num_classes).

        Raises:
            ValueError: a shape or a number of slices is wrong.
        """
        is_slice = _slice_mask(x, slices)
        means = [self.backbone(part).mean((2, 3)) for part in self._parts(x, is_slice)]
        return self.head(_by_scan(torch.cat(means), is_slice).amax(1))

    def features(self, x: Tensor, slices: Tensor | None = None) -> Features:
        """Return the slices' feature maps as one map, shape (B, C, S, h, w); 0 in padding.

        Args:
            x: as for `forward`.
            slices: as for `forward`.
        """
        is_slice = _slice_mask(x, slices)
        maps = torch.cat([self.backbone(part) for part in self._parts(x, is_slice)])
        last = _by_scan(maps, is_slice).transpose(1, 2)
        return Features(last, last_place=Place((1.0, 32.0, 32.0)))

    def classify(self, last: Tensor, slices: Tensor | None = None) -> Tensor:
        """Return the logits, shape (B, num_classes), of the last feature map (B, C, S, h, w).

        Args:
            last: see `features`.
            slices: not needed: features follow a ReLU, so padding's zeros are never above a mean.
        """
        return self.head(last.mean((3, 4)).amax(2))

    def _parts(self, x: Tensor, is_slice: Tensor) -> tuple[Tensor, ...]:
        """Return the true slices as images (n, 3, H, W); in training all at once, for BN."""
        images = (x[:, 0][is_slice][:, None] - self.mean) / self.std
        return (images,) if self.training else images.split(self.slice_chunk)


def _slice_mask(x: Tensor, slices: Tensor | None) -> Tensor:
    """Return which of (B, S) are slices, bool."""
    if x.ndim != 5 or x.shape[1] != 1:
        raise ValueError(f"scans must be (B, 1, S, H, W), got {tuple(x.shape)}")
    scans, _, longest = x.shape[:3]
    if slices is None:
        return torch.ones(scans, longest, dtype=torch.bool, device=x.device)
    if slices.shape != (scans,) or not ((slices >= 1) & (slices <= longest)).all():
        raise ValueError(
            f"slices must be {scans} numbers from 1 to {longest}, got {slices.tolist()}"
        )
    return torch.arange(longest, device=x.device) < slices.to(x.device)[:, None]


def _by_scan(rows: Tensor, is_slice: Tensor) -> Tensor:
    """Return rows (n, ...), one per slice, as (B, S, ...) with zeros in padding."""
    padded = rows.new_zeros(*is_slice.shape, *rows.shape[1:])
    padded[is_slice] = rows
    return padded
