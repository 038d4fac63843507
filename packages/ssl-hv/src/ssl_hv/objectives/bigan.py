"""Bidirectional GAN, BiGAN (Donahue et al. 2017): the encoder learns to invert the generator."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_hv.objectives.precision import in_float32
from ssl_hv.shapes import check_images


@in_float32
def bigan_losses(encoded_logits: Tensor, generated_logits: Tensor) -> tuple[Tensor, Tensor]:
    """Return the losses of generator with encoder, and of the discriminator.

    The discriminator says 1 for (x, E(x)) and 0 for (G(z), z); generator and encoder together
    want the opposite (the inverse objective of section 3.5, whose gradients do not vanish).

    Args:
        encoded_logits: of (x, E(x)), float, shape (N,).
        generated_logits: of (G(z), z), float, shape (N,).

    Returns:
        Two scalars >= 0, the mean of both kinds of pairs, float32 at least; log 2 at equality.

    Raises:
        ValueError: the shapes differ.
    """
    if encoded_logits.shape != generated_logits.shape:
        raise ValueError(
            "encoded_logits and generated_logits must have one shape, got "
            f"{tuple(encoded_logits.shape)} and {tuple(generated_logits.shape)}"
        )
    fooling = F.softplus(encoded_logits).mean() + F.softplus(-generated_logits).mean()
    telling = F.softplus(-encoded_logits).mean() + F.softplus(generated_logits).mean()
    return fooling / 2, telling / 2


def _mlp(sizes: Sequence[int]) -> nn.Sequential:
    """Return linear layers, leaky ReLU between, batch norm from the second on, tanh at the end."""
    layers: list[nn.Module] = []
    for i, (before, after) in enumerate(pairwise(sizes[:-1])):
        norm = nn.BatchNorm1d(after) if i else nn.Identity()
        layers += [nn.Linear(before, after), norm, nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, nn.Linear(sizes[-2], sizes[-1]), nn.Tanh())


class BiGANEncoder(nn.Module):
    """Images to codes in [-1, 1] by a multi-layer perceptron.

    Args:
        in_channels: C of the images.
        image_size: S, side of the images in pixels.
        latent: length of the code.
        hidden: widths of the layers between; the generator has the same, backwards.

    Attributes:
        dim: length of the representation, `latent`.
    """

    def __init__(
        self,
        *,
        in_channels: int = 1,
        image_size: int = 64,
        latent: int = 100,
        hidden: Sequence[int] = (1024, 512, 256, 128),
    ) -> None:
        super().__init__()
        self.shape = (in_channels, image_size, image_size)
        self.sizes = (in_channels * image_size**2, *hidden, latent)
        self.dim = latent
        self.layers = _mlp(self.sizes)

    def forward(self, images: Tensor) -> Tensor:
        """Return the codes.

        Args:
            images: float in [0, 1], shape (N, C, S, S).

        Returns:
            In [-1, 1], shape (N, dim).

        Raises:
            ValueError: images of another shape.
        """
        check_images(images, self.shape)
        return self.layers(2 * images.flatten(1) - 1)


class Discriminator(nn.Module):
    """Pairs of image and code to one logit."""

    def __init__(self, pixels: int, latent: int, width: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(pixels + latent, width),
            nn.LeakyReLU(0.2),
            nn.Linear(width, width),
            nn.Dropout(dropout),
            nn.LeakyReLU(0.2),
            nn.Linear(width, width),
            nn.Dropout(dropout),
            nn.LeakyReLU(0.2),
            nn.Linear(width, 1),
        )

    def forward(self, pixels: Tensor, codes: Tensor) -> Tensor:
        """Return logits (N,) of flat images in [-1, 1] (N, P) and codes (N, latent)."""
        return self.layers(torch.cat([pixels, codes], 1)).squeeze(1)


class BiGAN(nn.Module):
    """An encoder, a generator and a discriminator of pairs.

    Codes are drawn uniformly from [-1, 1], the range of the encoder's tanh, as in the BiGAN
    paper. (The ssl-hv script draws N(0, 1), which a tanh cannot reach, and never trains its
    encoder.)

    Args:
        encoder: what is kept; None: a `BiGANEncoder` for grey images of 64 x 64.
        discriminator_width: of its layers.
        dropout: of the discriminator, in [0, 1).
    """

    views = 1

    def __init__(
        self,
        encoder: BiGANEncoder | None = None,
        *,
        discriminator_width: int = 512,
        dropout: float = 0.4,
    ) -> None:
        super().__init__()
        self.encoder = encoder or BiGANEncoder()
        sizes = self.encoder.sizes
        self.generator = _mlp(sizes[::-1])
        self.discriminator = Discriminator(sizes[0], sizes[-1], discriminator_width, dropout)

    def forward(self, views: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return both losses from one pass.

        "loss" has gradients for generator and encoder only, "discriminator_loss" for the
        discriminator only: one backward pass of their sum serves two optimisers, or one.

        Args:
            views: one batch of images, float in [0, 1], shape (N, C, S, S), N > 1 in training.

        Returns:
            "loss" and "discriminator_loss".

        Raises:
            ValueError: a batch of one image in training.
        """
        (images,) = views
        if self.training and len(images) < 2:
            raise ValueError("BiGAN needs at least 2 images per batch (batch norm), got 1")
        codes = 2 * torch.rand(len(images), self.encoder.dim, device=images.device) - 1
        encoded = (2 * images.flatten(1) - 1, self.encoder(images))
        generated = (self.generator(codes), codes)
        fixed = {name: p.detach() for name, p in self.discriminator.named_parameters()}
        fooled, _ = bigan_losses(
            torch.func.functional_call(self.discriminator, fixed, encoded),
            torch.func.functional_call(self.discriminator, fixed, generated),
        )
        _, told = bigan_losses(
            self.discriminator(*(part.detach() for part in encoded)),
            self.discriminator(*(part.detach() for part in generated)),
        )
        return {"loss": fooled, "discriminator_loss": told}

    @torch.no_grad()
    def reconstruct(self, images: Tensor) -> Tensor:
        """Return G(E(images)) in [0, 1], shape (N, C, S, S)."""
        return self._generate(self.encoder(images))

    @torch.no_grad()
    def sample(self, n: int, seed: int = 0) -> Tensor:
        """Return n images from random codes, in [0, 1], shape (n, C, S, S)."""
        uniform = torch.rand(n, self.encoder.dim, generator=torch.Generator().manual_seed(seed))
        return self._generate((2 * uniform - 1).to(next(self.generator.parameters())))

    def _generate(self, codes: Tensor) -> Tensor:
        return (self.generator(codes).unflatten(1, self.encoder.shape) + 1) / 2

    def update(self, progress: float) -> None:
        """Nothing changes between the steps."""
