"""DeFI-Net: backbone, dense feature pyramid, edge-guided head (section 3)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from defi_net.attention import resized
from defi_net.backbone import PAPER, create_backbone
from defi_net.checkpointing import checkpointed
from defi_net.fusion import Head, SAFFInit, create_head
from defi_net.pyramid import NECKS, Neck
from defi_net.stems import STEMS, Stem

Normalization = Literal["imagenet", "official-train", "official-test"]

NORMALIZATIONS: dict[Normalization, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "official-train": ((0.448, 0.433, 0.397), (0.230, 0.226, 0.235)),
    "official-test": ((0.485, 0.430, 0.387), (0.239, 0.225, 0.230)),
}
SMALLEST = 16


class DeFINet(nn.Module):
    """Finds inpainted pixels and the edges of inpainted regions.

    The defaults are the paper's, but for the first values of SAFF (``saff_init``), which are ours.

    Attributes:
        config: the arguments, plain types; ``DeFINet(**config)`` is the same network anew.

    Args:
        backbone: see `defi_net.backbone.create_backbone`.
        width: K, channels of neck and head. Paper: 64.
        neck: ``dfpl``, the paper's; ``fpn`` or ``unet`` to compare with.
        head: ``ream-saff``, the paper's; or ``sum`` of logits of all levels.
        stem: what the backbone sees: ``rgb``, the paper's; ``srm`` or ``bayar`` residuals.
        saff_init: first values of SAFF: ``ones``, a plain sum, or the paper's ``official``.
        stem_stride: 1, 2 or 4; above 1 is cheaper and coarser. Paper: 1.
        normalization: mean and deviation that `normalize` uses.
        pretrained: fetch timm's ImageNet weights for the backbone.
        checkpointing: in training, keep less and compute it again in the backward pass.
        backbone_options: further arguments of `defi_net.backbone.HRNet`.

    Raises:
        ValueError: an unknown name or a number out of range.
        DataError: the backbone's weights cannot be fetched.

    Example:
        >>> edge, mask = DeFINet("hrnet_tiny", width=12)(torch.zeros(1, 3, 30, 45))
        >>> mask.shape
        torch.Size([1, 1, 30, 45])
    """

    def __init__(
        self,
        backbone: str = PAPER,
        width: int = 64,
        *,
        neck: Neck = "dfpl",
        head: Head = "ream-saff",
        stem: Stem = "rgb",
        saff_init: SAFFInit = "ones",
        stem_stride: int = 1,
        normalization: Normalization = "imagenet",
        pretrained: bool = False,
        checkpointing: bool = False,
        backbone_options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        for option, value, known in (
            ("neck", neck, NECKS),
            ("stem", stem, STEMS),
            ("normalization", normalization, NORMALIZATIONS),
        ):
            if value not in known:
                raise ValueError(f"{option} must be one of {', '.join(known)}, got {value}")
        if not 1 <= width <= 1024:
            raise ValueError(f"width must be 1 to 1024, got {width}")
        self.config: dict[str, Any] = {
            "backbone": backbone,
            "width": width,
            "neck": neck,
            "head": head,
            "stem": stem,
            "saff_init": saff_init,
            "stem_stride": stem_stride,
            "normalization": normalization,
            "checkpointing": checkpointing,
            "backbone_options": _plain(backbone_options or {}),
        }
        self.stem = STEMS[stem]()
        self.backbone = create_backbone(
            backbone,
            self.stem.channels,
            pretrained=pretrained,
            stem_stride=stem_stride,
            options=backbone_options,
        )
        self.backbone.checkpointing = self.checkpointing = checkpointing
        self.neck = NECKS[neck](self.backbone.channels, width)
        self.head = create_head(head, width, saff_init=saff_init)
        self.mean: Tensor
        self.std: Tensor
        for name, values in zip(("mean", "std"), NORMALIZATIONS[normalization], strict=True):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1), persistent=False)
        self.to(memory_format=torch.channels_last)  # a quarter less time

    @property
    def multiple(self) -> int:
        """What sides are padded to a multiple of: the stride of the coarsest map."""
        return 8 * self.backbone.stride

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return edge and mask logits, float, each (N, 1, H, W).

        Args:
            images: normalised (`normalize`), float, shape (N, 3, H, W), H and W >= 16 (or half of
                `multiple`, if that is more). Sides that `multiple` does not divide are continued
                by reflection, and the results cut.

        Raises:
            ValueError: another shape.
        """
        padded = self._padded(images)
        run = checkpointed if self.checkpointing and self.training else _call
        maps = run(self.neck, self.backbone(self.stem(padded)))
        edge, mask = (resized(logits, padded) for logits in run(self.head, maps))
        height, width = images.shape[-2:]
        return edge[..., :height, :width], mask[..., :height, :width]

    def normalize(self, images: Tensor) -> Tensor:
        """Return images as `forward` wants them.

        Args:
            images: float in [0, 1], shape (N, 3, H, W).
        """
        return (images - self.mean) / self.std

    def probabilities(self, images: Tensor) -> Tensor:
        """Return the probability of "inpainted" per pixel, float32 in [0, 1], shape (N, 1, H, W).

        Args:
            images: float in [0, 1], shape (N, 3, H, W).
        """
        return self.edge_and_probability(images)[1]

    def edge_and_probability(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the probabilities of "edge" and of "inpainted", float32, each (N, 1, H, W).

        Args:
            images: float in [0, 1], shape (N, 3, H, W).
        """
        edge, mask = self(self.normalize(images))
        return edge.float().sigmoid(), mask.float().sigmoid()

    def save_pretrained(self, folder: str | Path, **about: Any) -> Path:
        """Write the network into a folder, see `defi_net.saved.save_network`."""
        from defi_net.saved import save_network

        return save_network(self, folder, **about)

    @classmethod
    def from_pretrained(cls, path: str | Path) -> DeFINet:
        """Return a saved network in evaluation mode, see `defi_net.saved.load_network`."""
        from defi_net.saved import load_network

        return load_network(path)[0]

    def _padded(self, images: Tensor) -> Tensor:
        least = max(SMALLEST, self.multiple // 2)
        if images.ndim != 4 or images.shape[1] != 3 or min(images.shape[-2:]) < least:
            raise ValueError(
                f"images must be (N, 3, H, W) with sides >= {least}, got {tuple(images.shape)}"
            )
        height, width = images.shape[-2:]
        more = (0, -width % self.multiple, 0, -height % self.multiple)
        return F.pad(images, more, mode="reflect") if any(more) else images


def _plain(options: Mapping[str, Any]) -> dict[str, Any]:
    return {k: list(v) if isinstance(v, tuple) else v for k, v in options.items()}


def _call(module: nn.Module, *inputs: Any) -> Any:
    return module(*inputs)
