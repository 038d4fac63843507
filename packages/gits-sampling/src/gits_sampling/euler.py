"""Trajectories of Euler's method, as the analysis takes them."""

from __future__ import annotations

import torch
from torch import Tensor

from gits_sampling.models import Denoiser
from gits_sampling.solvers import trajectory


@torch.no_grad()
def euler_trajectories(
    denoiser: Denoiser, latents: Tensor, sigmas: Tensor, *, batch: int = 64
) -> tuple[Tensor, Tensor]:
    """Return the states of Euler's method and the denoised samples on the way, on the CPU.

    Args:
        denoiser: the model.
        latents: start states at sigmas[0], shape (B, ...).
        sigmas: noise levels, float64, shape (N,).
        batch: samples at once.

    Returns:
        states: shape (N, B, ...).
        denoised: D at all but the last, shape (N - 1, B, ...).

    Raises:
        ValueError: the model gives NaN or infinity.
    """
    states, denoised = [], []
    for part in latents.split(batch):
        x, slopes = trajectory(denoiser, part, sigmas, solver="euler")
        levels = sigmas[:-1].to(part.device).reshape(-1, *[1] * part.ndim)
        denoised.append((x[:-1] - levels * slopes).to(x.dtype).cpu())
        states.append(x.cpu())
    return torch.cat(states, 1), torch.cat(denoised, 1)
