"""Editing within a mask: what the image would show were the caption true (paper, step 2)."""

from __future__ import annotations

import torch
from torch import Tensor

from d_tiil.masks import resize_mask
from d_tiil.noise import LEAST_ALPHA_BAR, Denoiser


@torch.no_grad()
def inpaint(
    denoiser: Denoiser,
    latents: Tensor,
    mask: Tensor,
    embedding: Tensor,
    empty: Tensor,
    *,
    alpha_bars: Tensor,
    steps: int = 50,
    guidance: float = 7.5,
    seed: int = 0,
    blend: bool = True,
) -> Tensor:
    """Return latents drawn anew inside a mask, by guided DDIM from pure noise.

    Args:
        denoiser: predicts noise; that of an inpainting model knows mask and image itself.
        latents: z of the image, float, (1, C, h, w).
        mask: what may change, bool, (h, w).
        embedding: of the caption, float, (1, L, D).
        empty: of "", likewise.
        alpha_bars: products of alphas, float, (T,).
        steps: of DDIM, in [1, T].
        guidance: classifier-free.
        seed: of the noise.
        blend: outside the mask put the noised original at every step (blended latents); not for
            inpainting models, which do so by themselves.

    Returns:
        float32, (1, C, h, w); with `blend` exactly z outside the mask.

    Raises:
        ValueError: the mask has another size, or steps is out of range.
    """
    if mask.shape != latents.shape[-2:]:
        raise ValueError(f"the mask is {tuple(mask.shape)}, the latents {tuple(latents.shape)}")
    original, device = latents.float(), latents.device
    timesteps = trailing_timesteps(steps, len(alpha_bars))
    levels = alpha_bars.double().clamp_min(LEAST_ALPHA_BAR)[timesteps].tolist()
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(original.shape, generator=generator).to(device)
    inside = mask.to(device)
    texts = torch.cat([empty, embedding])
    state = levels[0] ** 0.5 * original + (1 - levels[0]) ** 0.5 * noise if blend else noise
    state = torch.where(inside, noise, state)
    for k, (timestep, level) in enumerate(zip(timesteps.tolist(), levels, strict=True)):
        rows = torch.full((2,), timestep, device=device)
        plain, conditioned = denoiser(state.repeat(2, 1, 1, 1), rows, texts).float().chunk(2)
        predicted = plain + guidance * (conditioned - plain)
        clean = (state - (1 - level) ** 0.5 * predicted) / level**0.5
        after = levels[k + 1] if k + 1 < len(levels) else 1.0
        state = after**0.5 * clean + (1 - after) ** 0.5 * predicted
        if blend:
            kept = after**0.5 * original + (1 - after) ** 0.5 * noise
            state = torch.where(inside, state, kept)
    return state


def trailing_timesteps(steps: int, train_steps: int) -> Tensor:
    """Return evenly spread timesteps that begin with the noisiest, int64, (steps,).

    Args:
        steps: how many, in [1, train_steps].
        train_steps: T.

    Raises:
        ValueError: steps is out of range.
    """
    if not 1 <= steps <= train_steps:
        raise ValueError(f"steps must be in 1..{train_steps}, got {steps}")
    return (train_steps * (1 - torch.arange(steps).double() / steps)).round().long() - 1


def inpainting_channels(mask: Tensor, masked_latents: Tensor) -> Tensor:
    """Return what an inpainting network takes beside the noisy latents, float32, (1, 1 + C, h, w).

    Args:
        mask: what may change, bool, of any size.
        masked_latents: of the image with that part grey, (1, C, h, w).
    """
    height, width = masked_latents.shape[-2:]
    small = resize_mask(mask, (height, width)).to(masked_latents)[None, None]
    return torch.cat([small.float(), masked_latents.float()], 1)
