"""Structure distance: how far the self-similarities of two images' ViT keys differ.

PIE-Bench's evaluation after Tumanyan et al. 2022, with DINO ViT-B/8.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from papercommons.errors import DataError
from torch import Tensor, nn
from torch.nn import functional as F

from multi_edits.metrics.loading import load_network

PixelRange = Literal["0..1", "0..255"]
_SIDE, _LONGEST = 224, 480
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_KEY_LAYERS = ("key", "k_proj")  # names in transformers 4 and 5


def self_similarity(keys: Tensor) -> Tensor:
    """Return the cosines between all tokens' keys, all heads taken as one vector.

    Args:
        keys: float, shape (..., heads, tokens, channels).

    Returns:
        float32, shape (..., tokens, tokens).
    """
    joined = F.normalize(keys.float().transpose(-3, -2).flatten(-2), dim=-1)
    return joined @ joined.transpose(-2, -1)


def structure_distance(a: Tensor, b: Tensor) -> Tensor:
    """Return the mean squared difference of two self-similarities.

    Args:
        a: keys, float, shape (..., heads, tokens, channels).
        b: likewise.

    Returns:
        float32, shape (...).

    Raises:
        ValueError: the shapes differ.
    """
    if a.shape != b.shape:
        raise ValueError(f"keys must be alike, got {tuple(a.shape)} and {tuple(b.shape)}")
    return (self_similarity(a) - self_similarity(b)).square().mean(dim=(-2, -1))


class DinoKeys(nn.Module):
    """Gives the keys of a vision transformer's last layer.

    Args:
        vit: a ViTModel of transformers.
        pixels: what the ImageNet normalisation is applied to. The benchmark's evaluation gives it
            values of 0 to 255, which it is not meant for; "0..255" repeats that.

    Raises:
        ValueError: another range.
        DataError: the network has no layer of keys.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, vit: Any, *, pixels: PixelRange = "0..1") -> None:
        super().__init__()
        if pixels not in ("0..1", "0..255"):
            raise ValueError(f"pixels must be 0..1 or 0..255, got {pixels!r}")
        layers = [m for n, m in vit.named_modules() if n.rsplit(".", 1)[-1] in _KEY_LAYERS]
        if not layers:
            raise DataError("the DINO network has no attention keys; expected a ViT model")
        self.vit = vit
        self.heads = int(vit.config.num_attention_heads)
        self.scale = 255.0 if pixels == "0..255" else 1.0
        self.register_buffer("mean", torch.tensor(_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_STD).view(3, 1, 1), persistent=False)
        layers[-1].register_forward_hook(self._keep)
        self._kept: Tensor | None = None

    def _keep(self, module: nn.Module, inputs: Any, keys: Tensor) -> None:
        self._kept = keys

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Return the keys.

        Args:
            images: float, shape (B, 3, H, W), in [0, 1]; the short side is brought to 224 pixels,
                unless the long one came above 480.

        Returns:
            float32, shape (B, heads, tokens, channels).
        """
        from torchvision.transforms.functional import resize

        images = images * self.scale
        images = resize(images, [_SIDE], max_size=_LONGEST, antialias=True)
        self.vit(pixel_values=(images - self.mean) / self.std, interpolate_pos_encoding=True)
        keys, self._kept = self._kept, None
        assert keys is not None
        return keys.float().unflatten(-1, (self.heads, -1)).transpose(1, 2)


def load_dino(source: str | Path, *, pixels: PixelRange = "0..1") -> DinoKeys:
    """Return the keys' reader over a network of transformers, such as facebook/dino-vitb8.

    Args:
        source: folder or hub id.
        pixels: see `DinoKeys`.

    Raises:
        DataError: not there, or no vision transformer.
    """
    from transformers import ViTModel

    return DinoKeys(load_network(ViTModel, source, add_pooling_layer=False), pixels=pixels)
