"""High-pass first layers: they show the backbone noise residuals instead of colours (our choice).

DeFI-Net itself sees RGB; these are switches to compare with.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Stem = Literal["rgb", "srm", "bayar"]

NOTHING = (0, 0, 0, 0, 0)
OUTER, INNER = (-1, 2, -2, 2, -1), (2, -6, 8, -6, 2)
SRM_KERNELS = (
    (NOTHING, (0, -1, 2, -1, 0), (0, 2, -4, 2, 0), (0, -1, 2, -1, 0), NOTHING),
    (OUTER, INNER, (-2, 8, -12, 8, -2), INNER, OUTER),
    (NOTHING, NOTHING, (0, 1, -2, 1, 0), NOTHING, NOTHING),
)
SRM_DIVISORS = (4, 12, 2)


class SRMStem(nn.Module):
    """Three fixed kernels of the spatial rich model on each colour: residuals of second order.

    Channel 3 k + c of the result is kernel k on colour c.
    """

    channels = 9

    def __init__(self) -> None:
        super().__init__()
        kernels = torch.tensor(SRM_KERNELS) / torch.tensor(SRM_DIVISORS)[:, None, None]
        weight = torch.zeros(3, 3, 3, 5, 5)  # kernel, colour out, colour in
        for colour in range(3):
            weight[:, colour, colour] = kernels
        self.weight: Tensor
        self.register_buffer("weight", weight.flatten(0, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Return residuals, float, shape (N, 9, H, W).

        Args:
            images: float, shape (N, 3, H, W); zeros count outside.
        """
        return F.conv2d(images, self.weight, padding=2)


class BayarStem(nn.Module):
    """Learnt prediction errors: a 5 x 5 convolution with centre -1 whose other taps sum to 1.

    Bayar and Stamm 2018; each of the 3 x 3 kernels obeys the rule.
    """

    channels = 3

    def __init__(self) -> None:
        super().__init__()
        self.taps = nn.Parameter(torch.rand(3, 3, 24))

    @property
    def weight(self) -> Tensor:
        """The constrained kernels, shape (3, 3, 5, 5)."""
        taps = self.taps / self.taps.sum(-1, keepdim=True)
        centre = -torch.ones_like(taps[..., :1])
        return torch.cat([taps[..., :12], centre, taps[..., 12:]], dim=-1).unflatten(-1, (5, 5))

    def forward(self, images: Tensor) -> Tensor:
        """Return prediction errors, float, shape (N, 3, H, W).

        Args:
            images: float, shape (N, 3, H, W); zeros count outside.
        """
        return F.conv2d(images, self.weight, padding=2)


class ColourStem(nn.Identity):
    """The image as it is, as in the paper."""

    channels = 3


STEMS: dict[Stem, type[SRMStem | BayarStem | ColourStem]] = {
    "rgb": ColourStem,
    "srm": SRMStem,
    "bayar": BayarStem,
}
