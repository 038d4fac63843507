"""Any diffusion network as a denoiser D(x; sigma) in the variance-exploding frame (section 3.1).

There x = x0 + sigma * noise, and a denoiser returns its estimate of x0. Every adapter is a module
called with x of any trailing shape, (B, ...), and sigma, a float64 scalar tensor or (B,); what a
network needs beside them (prompts, classes) is bound to it before.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

Network = Callable[[Tensor, Tensor], Tensor]


class DiscreteTime(nn.Module):
    """What networks over a table of training steps share: sigma <-> time index.

    Args:
        network: called with scaled images, (B, ...), and time indices, (B,).
        alphas_cumprod: of the M training steps, decreasing in (0, 1), shape (M,).
        nearest: round the index, for networks with a table of embeddings; else it is interpolated
            in ln sigma and handed on as a fraction.

    Attributes:
        sigmas: of the training steps, ascending, float64, shape (M,).

    Raises:
        ValueError: not a decreasing table in (0, 1).
    """

    sigmas: Tensor

    def __init__(self, network: Network, alphas_cumprod: Tensor, *, nearest: bool = False) -> None:
        super().__init__()
        table = torch.as_tensor(alphas_cumprod, dtype=torch.float64)
        if table.ndim != 1 or len(table) < 2 or not ((table > 0) & (table < 1)).all():
            raise ValueError(
                f"alphas_cumprod must be 2 or more numbers in (0, 1), got {tuple(table.shape)}"
            )
        if not (table.diff() < 0).all():
            raise ValueError("alphas_cumprod must decrease from step to step")
        self.network, self.nearest = network, nearest
        self.register_buffer("sigmas", ((1 - table) / table).sqrt())

    @property
    def sigma_min(self) -> float:
        """Least noise level of the training."""
        return float(self.sigmas[0])

    @property
    def sigma_max(self) -> float:
        """Greatest noise level of the training."""
        return float(self.sigmas[-1])

    def timestep(self, sigma: Tensor) -> Tensor:
        """Return the time index of noise levels, float64 in [0, M - 1], of their shape.

        Args:
            sigma: > 0; levels outside the training's are brought to its ends.
        """
        log_sigma, table = sigma.double().log(), self.sigmas.log()
        above = torch.searchsorted(table, log_sigma.contiguous()).clamp(1, len(table) - 1)
        low, high = table[above - 1], table[above]
        index = above - 1 + ((log_sigma - low) / (high - low)).clamp(0, 1)
        return index.round() if self.nearest else index

    def call(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Return the network's output for images in the variance-exploding frame."""
        level = _levels(x, sigma)
        index = self.timestep(sigma).expand(len(x)) if sigma.ndim == 0 else self.timestep(sigma)
        time = index.long() if self.nearest else index.to(x.dtype)
        return self.network((x / (level**2 + 1).sqrt()).to(x.dtype), time)


class EpsDenoiser(DiscreteTime):
    """A network that predicts the noise (DDPM, Stable Diffusion 1): D = x - sigma * F."""

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Return D(x; sigma), of the shape and dtype of x."""
        return (x - _levels(x, sigma) * self.call(x, sigma)).to(x.dtype)


class VDenoiser(DiscreteTime):
    """A network that predicts v: D = sqrt(abar) x_vp - sqrt(1 - abar) v."""

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Return D(x; sigma), of the shape and dtype of x."""
        level = _levels(x, sigma)
        energy = level**2 + 1  # 1 / abar
        return (x / energy - level / energy.sqrt() * self.call(x, sigma)).to(x.dtype)


class EDMDenoiser(nn.Module):
    """A network F with the preconditioning of Karras et al. 2022.

    D = c_skip x + c_out F(c_in x, c_noise), c_noise = time_scale * ln(sigma) / 4.

    Args:
        network: called with scaled images and c_noise, (B,).
        sigma_data: deviation of the data.
        time_scale: 1; 1000 for consistency models.
    """

    def __init__(
        self, network: Network, *, sigma_data: float = 0.5, time_scale: float = 1.0
    ) -> None:
        super().__init__()
        if sigma_data <= 0:
            raise ValueError(f"sigma_data must be > 0, got {sigma_data}")
        self.network, self.sigma_data, self.time_scale = network, sigma_data, time_scale

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Return D(x; sigma), of the shape and dtype of x."""
        level = _levels(x, sigma)
        energy = level**2 + self.sigma_data**2
        noise = (self.time_scale * sigma.double().log() / 4).expand(len(x)).to(x.dtype)
        output = self.network((x / energy.sqrt()).to(x.dtype), noise)
        skip = self.sigma_data**2 / energy
        return (skip * x + level * self.sigma_data / energy.sqrt() * output).to(x.dtype)


class FlowDenoiser(nn.Module):
    """A flow-matching network: x_t = (1 - t) x0 + t noise, v = noise - x0, sigma = t / (1 - t).

    Args:
        network: called with x_t and time_scale * t, (B,).
        time_scale: 1, or 1000 as in diffusers.
    """

    def __init__(self, network: Network, *, time_scale: float = 1.0) -> None:
        super().__init__()
        self.network, self.time_scale = network, time_scale

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Return D(x; sigma), of the shape and dtype of x."""
        level = _levels(x, sigma)
        time = (sigma.double() / (1 + sigma.double())).expand(len(x))
        state = x / (1 + level)
        velocity = self.network(state.to(x.dtype), (self.time_scale * time).to(x.dtype))
        return (state - level / (1 + level) * velocity).to(x.dtype)


class Guided(nn.Module):
    """Classifier-free guidance: D = D_u + w (D_c - D_u); two network calls, said so.

    Linear in the noise prediction as in the denoised image, so it may be applied here.

    Args:
        conditional: denoiser with the condition.
        unconditional: denoiser without.
        scale: w; at 1 the second call is left out.

    Attributes:
        network_calls: per evaluation.
    """

    def __init__(
        self,
        conditional: Callable[[Tensor, Tensor], Tensor],
        unconditional: Callable[[Tensor, Tensor], Tensor],
        scale: float,
    ) -> None:
        super().__init__()
        self.conditional, self.unconditional, self.scale = conditional, unconditional, scale
        self.network_calls = 1 if scale in (0, 1) else 2

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Return D(x; sigma), of the shape and dtype of x."""
        if self.scale == 1:
            return self.conditional(x, sigma)
        plain = self.unconditional(x, sigma)
        if self.scale == 0:
            return plain
        return plain + self.scale * (self.conditional(x, sigma) - plain)


def _levels(x: Tensor, sigma: Tensor) -> Tensor:
    """Return sigma so that it broadcasts over the trailing dimensions of x, float64."""
    return sigma.double().reshape(-1, *[1] * (x.ndim - 1))
