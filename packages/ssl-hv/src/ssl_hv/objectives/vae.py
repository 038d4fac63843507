"""Variational autoencoder, VAE (Kingma and Welling 2014), with a convolutional decoder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn

from ssl_hv.objectives.precision import in_float32


@in_float32
def gaussian_log_likelihood(images: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """Return ``log p(x | z)``, the sum over the pixels of the log-density of N(mean, scale^2).

    Args:
        images: x, float, shape (N, C, H, W).
        mean: decoded images, float, shape (N, C, H, W).
        log_scale: scalar.

    Returns:
        In nats, shape (N,).
    """
    error = (images - mean) * torch.exp(-log_scale)
    return -(error.square() / 2 + log_scale + math.log(2 * math.pi) / 2).flatten(1).sum(1)


@in_float32
def kl_divergence(mu: Tensor, log_var: Tensor) -> Tensor:
    """Return ``KL(N(mu, sigma^2) || N(0, 1))`` in closed form.

    Args:
        mu: float, shape (N, D).
        log_var: log sigma^2, float, shape (N, D).

    Returns:
        In nats, >= 0, shape (N,).
    """
    return (mu.square() + log_var.exp() - 1 - log_var).sum(1) / 2


@in_float32
def monte_carlo_kl(z: Tensor, mu: Tensor, log_var: Tensor) -> Tensor:
    """Return ``log q(z | x) - log p(z)``, whose mean over z ~ q is `kl_divergence`.

    Args:
        z: a sample of N(mu, sigma^2), float, shape (N, D).
        mu: float, shape (N, D).
        log_var: log sigma^2, float, shape (N, D).

    Returns:
        In nats, shape (N,).
    """
    surprise = (z - mu).square() * torch.exp(-log_var)
    return (z.square() - surprise - log_var).sum(1) / 2


@in_float32
def vae_loss(
    images: Tensor,
    reconstruction: Tensor,
    z: Tensor,
    mu: Tensor,
    log_var: Tensor,
    log_scale: Tensor,
    *,
    closed_form: bool = False,
) -> Tensor:
    """Return the negative evidence bound, the mean over the batch of ``KL - log p(x | z)``.

    Args:
        images: x, float in [0, 1], shape (N, C, H, W).
        reconstruction: decoded z, float, shape (N, C, H, W).
        z: the sample that was decoded, float, shape (N, D).
        mu: mean of q(z | x), float, shape (N, D).
        log_var: log variance of q(z | x), float, shape (N, D).
        log_scale: log of the pixels' standard deviation, scalar.
        closed_form: the exact KL divergence instead of that of the one sample (ssl-hv): lower
            variance.

    Returns:
        Scalar in nats, float32 at least.

    Raises:
        ValueError: the shapes do not match.

    Example:
        >>> x, z, zero = torch.zeros(2, 1, 8, 8), torch.zeros(2, 4), torch.zeros(())
        >>> vae_loss(x, x, z, z, z, zero, closed_form=True)  # 32 log(2 pi)
        tensor(58.8121)
    """
    if images.shape != reconstruction.shape or not z.shape == mu.shape == log_var.shape:
        raise ValueError(
            "images and reconstruction must be (N, C, H, W), z, mu and log_var (N, D), got "
            + ", ".join(str(tuple(t.shape)) for t in (images, reconstruction, z, mu, log_var))
        )
    kl = kl_divergence(mu, log_var) if closed_form else monte_carlo_kl(z, mu, log_var)
    return (kl - gaussian_log_likelihood(images, reconstruction, log_scale)).mean()


class DecoderBlock(nn.Module):
    """A residual block that doubles the size if `upsample` (nearest neighbour)."""

    def __init__(self, channels: int, out_channels: int, *, upsample: bool = False) -> None:
        super().__init__()
        larger = nn.Upsample(scale_factor=2) if upsample else nn.Identity()
        self.path = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
            larger,
            nn.Conv2d(channels, out_channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
        )
        self.shortcut = nn.Sequential()
        if upsample or channels != out_channels:
            self.shortcut = nn.Sequential(
                larger,
                nn.Conv2d(channels, out_channels, 1, bias=False),
                nn.BatchNorm2d(out_channels),
            )

    def forward(self, x: Tensor) -> Tensor:
        """Return shape (N, out_channels, H, W), or 2H and 2W; x is (N, channels, H, W)."""
        return (self.path(x) + self.shortcut(x)).relu()


class Decoder(nn.Sequential):
    """Codes (N, latent) to images (N, channels, image_size, image_size): a mirrored ResNet-18.

    Args:
        latent: D.
        channels: of the images.
        image_size: side of the images, a multiple of 8.
        width: of the last blocks; the first ones have 8 times as much.
    """

    def __init__(self, latent: int, channels: int, image_size: int, width: int) -> None:
        widths = [8 * width, 4 * width, 2 * width, width]
        halving = [
            block
            for wide, narrow in pairwise(widths)
            for block in (DecoderBlock(wide, narrow, upsample=True), DecoderBlock(narrow, narrow))
        ]
        super().__init__(
            nn.Linear(latent, 8 * width * 16),
            nn.Unflatten(1, (8 * width, 4, 4)),
            nn.Upsample(size=image_size // 8),
            *halving,
            DecoderBlock(width, width),
            DecoderBlock(width, width),
            nn.Conv2d(width, channels, 3, padding=1, bias=False),
        )


class VAE(nn.Module):
    """An encoder with a Gaussian code and a mirrored ResNet-18 as decoder.

    Args:
        encoder: what is kept; float images (N, C, S, S) in [0, 1] to (N, encoder.dim).
        in_channels: C.
        image_size: S, a multiple of 8.
        latent: length of the code.
        width: channels of the decoder's last blocks.
        closed_form: the KL term of the loss, as in `vae_loss`.

    Raises:
        ValueError: image_size is not a multiple of 8.
    """

    views = 1

    def __init__(
        self,
        encoder: nn.Module,
        *,
        in_channels: int = 1,
        image_size: int = 64,
        latent: int = 256,
        width: int = 64,
        closed_form: bool = False,
    ) -> None:
        super().__init__()
        if image_size < 8 or image_size % 8:
            raise ValueError(f"image_size must be a multiple of 8 pixels, got {image_size}")
        self.encoder, self.latent, self.closed_form = encoder, latent, closed_form
        dim = cast(int, encoder.dim)
        self.fc_mu = nn.Linear(dim, latent)
        self.fc_var = nn.Linear(dim, latent)
        self.decoder = Decoder(latent, in_channels, image_size, width)
        self.log_scale = nn.Parameter(torch.zeros(()))

    def forward(self, views: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return the loss of one random code per image.

        Args:
            views: one batch of images, float in [0, 1], shape (N, C, S, S).

        Returns:
            "loss", and without gradient "kl" (closed form), "log_likelihood" (both in nats per
            image) and "scale" of a pixel.
        """
        (images,) = views
        mu, log_var = self.encode(images)
        z = mu + torch.exp(log_var / 2) * torch.randn_like(mu)
        decoded, log_scale = self.decoder(z), self.log_scale
        loss = vae_loss(images, decoded, z, mu, log_var, log_scale, closed_form=self.closed_form)
        with torch.no_grad():
            likelihood = gaussian_log_likelihood(images, decoded, log_scale).mean()
            parts = {"log_likelihood": likelihood, "kl": kl_divergence(mu, log_var).mean()}
            return {"loss": loss, **parts, "scale": log_scale.exp()}

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return mu and log_var of q(z | x), each of shape (N, latent), float32 at least."""
        hidden = self.encoder(images)
        mu, log_var = self.fc_mu(hidden), self.fc_var(hidden)
        dtype = torch.promote_types(mu.dtype, torch.float32)
        return mu.to(dtype), log_var.to(dtype)

    @torch.no_grad()
    def reconstruct(self, images: Tensor) -> Tensor:
        """Return the decoded means of the images' codes, in [0, 1], shape (N, C, S, S)."""
        return self.decoder(self.encode(images)[0]).clamp(0, 1)

    @torch.no_grad()
    def sample(self, n: int, seed: int = 0) -> Tensor:
        """Return n images decoded from N(0, 1), in [0, 1], shape (n, C, S, S)."""
        z = torch.randn(n, self.latent, generator=torch.Generator().manual_seed(seed))
        return self.decoder(z.to(self.log_scale)).clamp(0, 1)

    def update(self, progress: float) -> None:
        """Nothing changes between the steps."""
