"""LPIPS with SqueezeNet 1.1 (Zhang et al. 2018), as PIE-Bench's evaluation has it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import torch
from papercommons.checkpoint import load_weights, read_state_dict, read_torch_file
from papercommons.errors import DataError, reason
from torch import Tensor, nn

TORCHVISION = "torchvision"
LEAST_SIDE = 16
"""Of images for `Lpips`."""
_CUTS = (0, 2, 5, 8, 10, 11, 12, 13)  # layers of `features` after which LPIPS looks
_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)


class Lpips(nn.Module):
    """Distance of two images in the features of a network.

    Args:
        features: SqueezeNet 1.1's ``features`` of torchvision.
        heads: the weight of each channel after each of seven layers, shapes (C,).
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, features: nn.Sequential, heads: Sequence[Tensor]) -> None:
        super().__init__()
        self.slices = nn.ModuleList(features[first:end] for first, end in pairwise(_CUTS))
        self.heads = nn.ParameterList(
            nn.Parameter(head.float().view(1, -1, 1, 1), requires_grad=False) for head in heads
        )
        self.register_buffer("shift", torch.tensor(_SHIFT).view(3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor(_SCALE).view(3, 1, 1), persistent=False)

    @torch.no_grad()
    def forward(self, a: Tensor, b: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the distance of each pair; both images go through the network together.

        Args:
            a: float, shape (B, 3, H, W), in [0, 1], sides of at least 16.
            b: likewise.
            mask: multiplies both images, shape (B, 1, H, W).

        Returns:
            float32, shape (B,).

        Raises:
            ValueError: the shapes do not match.
        """
        if a.ndim != 4 or a.shape != b.shape:
            raise ValueError(f"images must be alike, got {tuple(a.shape)} and {tuple(b.shape)}")
        both = torch.cat([a, b]) if mask is None else torch.cat([a * mask, b * mask])
        h = (2 * both.float() - 1 - self.shift) / self.scale
        distance = torch.zeros(len(a), device=a.device)
        for layers, head in zip(self.slices, self.heads, strict=True):
            h = layers(h)
            unit = h / (h.square().sum(1, keepdim=True) + 1e-8).sqrt()
            first, second = unit.chunk(2)
            distance += ((first - second).square() * head).sum(1).mean(dim=(1, 2))
        return distance


def load_lpips(source: str | Path) -> Lpips:
    """Return LPIPS over SqueezeNet's weights; the heads are those that torchmetrics brings.

    Args:
        source: file of torchvision's squeezenet1_1 weights (.pth or .safetensors), or
            "torchvision", which downloads them.

    Raises:
        DataError: not there, or other weights.
    """
    from torchvision.models import SqueezeNet1_1_Weights, squeezenet1_1

    network = squeezenet1_1(weights=None)
    if str(source) == TORCHVISION:
        try:
            state = dict(SqueezeNet1_1_Weights.IMAGENET1K_V1.get_state_dict(progress=False))
        except Exception as error:  # no network, no room on the disk, ...
            raise DataError(
                f"the weights of squeezenet1_1 cannot be had ({reason(error)}); give their file"
            ) from error
    else:
        state = read_state_dict(source)
    load_weights(network, state, source=str(source))
    return Lpips(network.features, _read_heads()).eval().requires_grad_(False)


def _read_heads() -> list[Tensor]:
    import torchmetrics

    path = Path(torchmetrics.__file__).parent / "functional/image/lpips_models/squeeze.pth"
    if not path.is_file():
        raise DataError(f"LPIPS: {path} is missing; install a torchmetrics that has it")
    state = read_torch_file(path)
    return [state[f"lin{k}.model.1.weight"].flatten() for k in range(len(_CUTS) - 1)]
