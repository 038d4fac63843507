"""Fine-tuning a copy of the network on one image (an option of the reference)."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from papercommons.errors import DataError
from torch import Tensor
from torch.nn import functional as F

from d_tiil.noise import Denoiser, add_noise, draw_pairs


def finetune_copy(
    network: Any,
    make_denoiser: Callable[[Any], Denoiser],
    latents: Tensor,
    embedding: Tensor,
    *,
    alpha_bars: Tensor,
    steps: int,
    lr: float = 4e-6,
    seed: int = 0,
) -> Any:
    """Return a copy of a network, trained to predict one image's noise with one embedding.

    Adam, one pair of timestep and noise per step, in float32; the network itself stays as it is.

    Args:
        network: a torch Module.
        make_denoiser: returns what predicts noise with a given network.
        latents: of the image, (1, C, h, w).
        embedding: (1, L, D), stays as it is.
        alpha_bars: products of alphas, float, (T,).
        steps: number of them, >= 1.
        lr: learning rate, > 0; the reference's is 4e-6.
        seed: of timesteps and noise.

    Raises:
        DataError: the loss is not finite.
    """
    tuned = copy.deepcopy(network).float().requires_grad_(True)
    denoiser = make_denoiser(tuned)
    optimizer = torch.optim.Adam(tuned.parameters(), lr=lr)
    generator = torch.Generator().manual_seed(seed)
    levels = alpha_bars.to(latents.device, torch.float32)
    loss = torch.zeros(())
    with torch.enable_grad():
        for _ in range(steps):
            pair = draw_pairs(1, latents.shape[1:], generator, train_steps=len(levels))
            timesteps, noise = pair.to(latents.device)
            noised = add_noise(latents, noise, levels[timesteps])
            loss = F.mse_loss(denoiser(noised, timesteps, embedding), noise)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
    if not bool(loss.isfinite()):
        raise DataError("fine-tuning: the loss is not finite; lower the learning rate")
    return tuned.to(next(network.parameters()).dtype).requires_grad_(False)
