"""A tiny, untrained Stable Diffusion: an ordinary diffusers pipeline in all but the size."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from papercommons.data.scenes import Preset, longest_caption, words
from transformers import CLIPTextConfig, CLIPTextModel

from d_tiil.tokenizer import make_tokenizer

Prediction = Literal["epsilon", "v_prediction"]

DIM = 64  # of the text encoder and of cross-attention


def make_tiny(
    known_words: Iterable[str],
    *,
    max_length: int,
    size: int = 32,
    full_attention: bool = False,
    channels: tuple[int, int, int] = (32, 64, 64),
    vae_channels: tuple[int, int] = (16, 32),
    prediction: Prediction = "v_prediction",
    seed: int = 0,
) -> StableDiffusionPipeline:
    """Return a pipeline with about 1.7 million parameters, untrained, for small pictures.

    Latents have 4 channels and half the picture's side. Cross-attention is at a half and a quarter
    (in the middle) of the latent's side, with `full_attention` also at all of it, on the way up.
    The coarse middle sees the border from everywhere, and so can tell places apart.

    Args:
        known_words: those that get a token of their own, see `make_tokenizer`.
        max_length: tokens of a prompt, start and end with it.
        size: side of the pictures in pixels, a multiple of 8.
        full_attention: attend at the latent's own resolution too: finer maps, slower.
        channels: of the U-Net, at the latent's side, a half and a quarter of it; multiples of 8.
        vae_channels: of the autoencoder, at the picture's side and at half of it; multiples of 8.
        prediction: what the U-Net predicts: noise, or v, which learns from captions sooner: at high
            noise, where only they say what to draw, v is the picture and noise nearly the input.
        seed: of the weights; the state of torch's generator stays as it is.

    Raises:
        ValueError: size or channels are no multiples of 8.
    """
    if size < 16 or size % 8:
        raise ValueError(f"size must be a multiple of 8 from 16 on, got {size}")
    for width in (*channels, *vae_channels):
        if width < 8 or width % 8:
            raise ValueError(f"channels must be multiples of 8, got {channels}, {vae_channels}")
    tokenizer = make_tokenizer(known_words, max_length)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        text_encoder = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(tokenizer),
                hidden_size=DIM,
                intermediate_size=2 * DIM,
                num_hidden_layers=2,
                num_attention_heads=4,
                max_position_embeddings=max_length,
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
            )
        )
        unet: Any = UNet2DConditionModel(
            sample_size=size // 2,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=(
                "UpBlock2D",
                "CrossAttnUpBlock2D",
                "CrossAttnUpBlock2D" if full_attention else "UpBlock2D",
            ),
            block_out_channels=channels,
            layers_per_block=1,
            attention_head_dim=4,  # diffusers means the number of heads
            cross_attention_dim=DIM,
            norm_num_groups=8,
        )
        vae: Any = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            block_out_channels=vae_channels,
            norm_num_groups=8,
            sample_size=size,
            mid_block_add_attention=False,
        )
        _sharpen(unet)
    return StableDiffusionPipeline(
        vae=vae.eval(),
        text_encoder=text_encoder.eval(),
        tokenizer=tokenizer,
        unet=unet.eval(),
        scheduler=_scheduler(prediction),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def make_tiny_for(
    preset: Preset,
    *,
    full_attention: bool = False,
    prediction: Prediction = "v_prediction",
    seed: int = 0,
) -> StableDiffusionPipeline:
    """Return `make_tiny` for the captions of a preset.

    Args:
        preset: its words get tokens, its longest caption fits.
        full_attention: see `make_tiny`.
        prediction: see `make_tiny`.
        seed: see `make_tiny`.
    """
    return make_tiny(
        words(preset),
        max_length=longest_caption(preset) + 2,
        full_attention=full_attention,
        prediction=prediction,
        seed=seed,
    )


def _sharpen(unet: Any) -> None:
    """Double queries and keys of cross-attention, which at first is nearly even."""
    for name, module in unet.named_modules():
        if name.endswith("attn2"):
            module.to_q.weight.data.mul_(2)
            module.to_k.weight.data.mul_(2)


def _scheduler(prediction: Prediction) -> DDIMScheduler:
    """Return Stable Diffusion's noise levels."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type=prediction,
    )
