"""A network together with the way it looks at photographs: in tiles, through a square, or whole."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import torch
from papercommons.devices import autocast
from torch import Tensor

from defi_net.model import DeFINet
from defi_net.tiling import predict_resized, predict_tiled

Way = Literal["tiles", "resize", "whole"]
PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")


class Localizer:
    """Gives the maps of photographs of any size.

    Args:
        model: put into evaluation mode and onto `device`.
        way: ``tiles`` keeps every trace and bounds memory; ``resize`` to a square is the published
            evaluation's, and shrinks the traces of large photographs away; ``whole`` is one pass
            over the photograph as it is.
        size: side of the tiles or of the square, pixels. Paper: 352.
        overlap: least overlap of tiles, pixels.
        batch_size: tiles computed at once.
        device: where to compute.
        precision: 32-true, bf16-mixed or 16-mixed.

    Raises:
        ValueError: there is no such way or precision.
    """

    def __init__(
        self,
        model: DeFINet,
        *,
        way: Way = "tiles",
        size: int = 352,
        overlap: int = 64,
        batch_size: int = 4,
        device: torch.device | str = "cpu",
        precision: str = "32-true",
    ) -> None:
        if way not in get_args(Way):
            raise ValueError(f"way must be one of {', '.join(get_args(Way))}, got {way!r}")
        if precision not in PRECISIONS:
            raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
        self.model = model.eval().to(device)
        self.way: Way = way
        self.size, self.overlap, self.batch_size = size, overlap, batch_size
        self.device, self.precision = torch.device(device), precision

    def maps(self, photo: np.ndarray, *, label: str | None = None) -> np.ndarray:
        """Return the probabilities of "edge" and of "inpainted", float32, shape (2, H, W).

        Args:
            photo: uint8, shape (H, W, 3), sides >= 16.
            label: words beside a progress bar; None shows none.

        Raises:
            ValueError: the photograph is of another shape, or size and overlap do not fit.
        """
        if self.way == "resize":
            return predict_resized(self.logits, photo, size=self.size, device=self.device)
        multiple = self.model.multiple
        side = -(-max(photo.shape[:2]) // multiple) * multiple
        return predict_tiled(
            self.probabilities,
            photo,
            tile=self.size if self.way == "tiles" else side,
            overlap=self.overlap if self.way == "tiles" else 0,
            multiple=multiple,
            batch_size=self.batch_size,
            device=self.device,
            label=label,
        )

    def __call__(self, photo: np.ndarray) -> np.ndarray:
        """Return the probability of "inpainted", float32, shape (H, W); see `maps`."""
        probability: np.ndarray = self.maps(photo)[1]
        return probability

    def logits(self, images: Tensor) -> Tensor:
        """Return the logits of both maps, float32, shape (B, 2, h, w).

        Args:
            images: float in [0, 1], shape (B, 3, h, w).
        """
        with autocast(self.device, self.precision):
            return torch.cat(self.model(self.model.normalize(images)), dim=1).float()

    def probabilities(self, images: Tensor) -> Tensor:
        """Return the probabilities of both maps, float32, shape (B, 2, h, w).

        Args:
            images: float in [0, 1], shape (B, 3, h, w).
        """
        return self.logits(images).sigmoid()
