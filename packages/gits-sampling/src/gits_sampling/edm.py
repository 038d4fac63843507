"""What training a denoiser needs: EDM's loss, its noise levels, its average of the weights.

From Karras et al. 2022, as the specification's section 3.8 gives them.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def edm_loss(
    denoiser: Callable[[Tensor, Tensor], Tensor],
    images: Tensor,
    sigma: Tensor,
    noise: Tensor,
    *,
    sigma_data: float = 0.5,
) -> Tensor:
    """Return the mean of ``w |D(y + sigma n; sigma) - y|^2``, w = (s^2 + sd^2) / (s sd)^2.

    The weight makes the network's own error, without its preconditioning, count the same at every
    noise level: a network that gives zeros has a loss of about 1 where sd is the data's deviation.

    Args:
        denoiser: D.
        images: y, float, shape (B, ...).
        sigma: noise levels, > 0, shape (B,).
        noise: n, standard normal, of the shape of images.
        sigma_data: sd, > 0.

    Returns:
        float32 scalar (float64 for float64 images).

    Raises:
        ValueError: shapes that do not match, or sigma_data out of range.
    """
    if noise.shape != images.shape or sigma.shape != images.shape[:1]:
        raise ValueError(
            f"noise must be {tuple(images.shape)} and sigma ({len(images)},), "
            f"got {tuple(noise.shape)} and {tuple(sigma.shape)}"
        )
    if sigma_data <= 0:
        raise ValueError(f"sigma_data must be > 0, got {sigma_data}")
    dtype = torch.promote_types(images.dtype, torch.float32)
    level = sigma.to(dtype).reshape(-1, *[1] * (images.ndim - 1))
    clean = images.to(dtype)
    weight = (level**2 + sigma_data**2) / (level * sigma_data) ** 2
    error = denoiser(clean + level * noise.to(dtype), sigma).to(dtype) - clean
    return (weight * error.square()).mean()


def draw_sigmas(
    count: int,
    *,
    mean: float = -1.2,
    std: float = 1.2,
    device: torch.device | str = "cpu",
    generator: torch.Generator | None = None,
) -> Tensor:
    """Return random noise levels, ``ln sigma ~ N(mean, std^2)``, float32, shape (count,).

    Args:
        count: how many.
        mean: of ln sigma. EDM: -1.2.
        std: of ln sigma. EDM: 1.2.
        device: of the result.
        generator: of the numbers, on that device; torch's global one if None.
    """
    return (mean + std * torch.randn(count, device=device, generator=generator)).exp()


def ema_decay(
    images: int, seen: int, *, half_life: float = 500_000, ramp: float | None = 0.05
) -> float:
    """Return the share of the old average that a step keeps, ``0.5 ** (images / half-life)``.

    Args:
        images: of the step, on all devices.
        seen: before the step.
        half_life: images after which a weight counts half, > 0.
        ramp: early on, the half-life is at most this share of the images seen; None: it is not.

    Returns:
        In [0, 1); 0 at the first step with a ramp.
    """
    if ramp is not None:
        half_life = min(half_life, ramp * seen)
    return 0.5 ** (images / half_life) if half_life > 0 else 0.0
