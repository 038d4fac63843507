"""Cross-attention maps of a diffusers UNet: where it looks for each token of the text."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from d_tiil.noise import Denoiser, row_chunks

SHARE = 4  # maps of a quarter of the latents' side are kept, or the nearest that there are


class KeptMaps:
    """Maps of one network while it runs; those of all calls, layers and heads are averaged.

    Args:
        places: number of places of the maps to keep.
    """

    def __init__(self, places: int) -> None:
        self.places, self.total, self.rows = places, torch.zeros(0), 0

    def add(self, maps: Tensor) -> None:
        """Take the maps of a layer, float32, (B, heads, P, L), if they are of the wanted size."""
        if maps.shape[2] != self.places:
            return
        mean = maps.mean(1).sum(0)
        self.total = mean if self.rows == 0 else self.total + mean
        self.rows += len(maps)

    def mean(self, size: tuple[int, int]) -> Tensor:
        """Return the maps, float32, (L, h, w).

        Args:
            size: h and w.

        Raises:
            ValueError: the network has no cross-attention at that size.
        """
        if not self.rows:
            raise ValueError(
                f"the network has no cross-attention with {self.places} places; take another scorer"
            )
        return (self.total / self.rows).T.reshape(-1, *size)


class KeepingAttention:
    """An attention processor of diffusers that computes plain attention and keeps its maps.

    Args:
        kept: shared by the processors of one network.
    """

    def __init__(self, kept: KeptMaps) -> None:
        self.kept = kept

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        """Return the layer's output, as diffusers' own processor does."""
        from diffusers.models.attention_processor import AttnProcessor2_0

        if encoder_hidden_states is not None:
            context = encoder_hidden_states
            if attn.norm_cross:
                context = attn.norm_encoder_hidden_states(context)
            query = attn.to_q(hidden_states).unflatten(-1, (attn.heads, -1)).transpose(1, 2)
            key = attn.to_k(context).unflatten(-1, (attn.heads, -1)).transpose(1, 2)
            if attn.norm_q is not None:
                query = attn.norm_q(query)
            if attn.norm_k is not None:
                key = attn.norm_k(key)
            scores = (query.float() * attn.scale) @ key.float().transpose(-1, -2)
            self.kept.add(scores.softmax(-1))
        plain: Any = AttnProcessor2_0()
        return plain(attn, hidden_states, encoder_hidden_states, attention_mask, temb)


@contextmanager
def kept_attention(unet: Any, places: int) -> Iterator[KeptMaps]:
    """Keep a network's cross-attention maps for a while; its own processors come back afterwards.

    Args:
        unet: a UNet2DConditionModel.
        places: number of places of the maps to keep.

    Yields:
        What gathers the maps.
    """
    kept, own = KeptMaps(places), dict(unet.attn_processors)
    keeping: Any = {
        name: KeepingAttention(kept) if "attn2" in name else processor
        for name, processor in own.items()
    }
    unet.set_attn_processor(keeping)
    try:
        yield kept
    finally:
        unet.set_attn_processor(own)


def map_size(unet: Any, latent_size: tuple[int, int]) -> tuple[int, int]:
    """Return height and width of the cross-attention maps nearest to a quarter of the latents.

    Args:
        unet: a UNet2DConditionModel.
        latent_size: height and width of the latents.

    Raises:
        ValueError: no down block of the network attends to text.
    """
    size, found = latent_size, list[tuple[int, int]]()
    for block in unet.down_blocks:
        if any("attn2" in name for name, _ in block.named_modules()):
            found.append(size)
        if getattr(block, "downsamplers", None):
            size = (-(-size[0] // 2), -(-size[1] // 2))
    if not found:
        raise ValueError(
            "the network has no cross-attention in its down blocks; take another scorer"
        )
    wanted = latent_size[0] / SHARE
    return min(found, key=lambda each: (abs(each[0] - wanted), -each[0]))


def mean_attention(
    unet: Any,
    denoise: Denoiser,
    inputs: tuple[Tensor, Tensor, Tensor],
    *,
    max_rows: int | None = None,
) -> Tensor:
    """Return cross-attention averaged over rows, heads and layers of one size, float32, (L, h, w).

    Args:
        unet: a UNet2DConditionModel.
        denoise: called with the inputs; runs the network.
        inputs: latents (B, C, H, W), timesteps (B,) and embeddings (B, L, D).
        max_rows: rows given to the network at once.

    Raises:
        ValueError: the network has no fitting cross-attention.
    """
    latents, timesteps, embeddings = inputs
    size = map_size(unet, (latents.shape[-2], latents.shape[-1]))
    with torch.no_grad(), kept_attention(unet, size[0] * size[1]) as kept:
        for rows in row_chunks(len(latents), max_rows):
            denoise(latents[rows], timesteps[rows], embeddings[rows])
    return kept.mean(size)
