"""Normalising flow of affine couplings, after NICE and RealNVP (Dinh et al. 2015, 2017)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_hv.shapes import check_images

_EDGE = 1e-5  # keeps the logit finite at black and white


def bits_per_dimension(log_prob: Tensor, dimensions: int) -> Tensor:
    """Return ``-log2 p(x) / D``.

    Args:
        log_prob: log p(x) of 8-bit images in nats, float, any shape.
        dimensions: D, number of pixels times channels.

    Returns:
        The same shape; 8 for images of independent, uniform grey values.

    Example:
        >>> bits_per_dimension(torch.tensor(-10 * math.log(256)), 10)
        tensor(8.)
    """
    return -log_prob / (dimensions * math.log(2))


def dequantize(images: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Turn 8-bit grey values into real numbers: noise within the step, then the logit.

    Args:
        images: float in [0, 1], shape (N, C, H, W).
        noise: in [0, 1), shape of the images.

    Returns:
        The real values, shape (N, C, H, W), and the log-determinant per image, shape (N,),
        counted from grey values in [0, 256).
    """
    inner = (images * 255 + noise) / 256 * (1 - 2 * _EDGE) + _EDGE
    slope = math.log((1 - 2 * _EDGE) / 256) - inner.log() - torch.log1p(-inner)
    return inner.logit(), slope.flatten(1).sum(1)


def quantize(x: Tensor) -> Tensor:
    """Return the grey values in [0, 1] of real ones: undoes `dequantize` for any noise.

    Args:
        x: any shape.
    """
    grey = (x.sigmoid() - _EDGE) / (1 - 2 * _EDGE) * 256
    return grey.floor().clamp(0, 255) / 255


class GatedConv(nn.Module):
    """A residual block whose output passes a learned gate."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.GroupNorm(1, width),
            nn.ELU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ELU(),
            nn.Conv2d(width, 2 * width, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the same shape, (N, width, H, W)."""
        return x + F.glu(self.layers(x), 1)


class AffineCoupling(nn.Module):
    """Scale and shift half of the values by what a network reads from the other half.

    A new one is the identity.

    Args:
        mask: 1 for values that are read, 0 for those that change, shape (1, C, H, W) or smaller.
        channels: C.
        width: of the network.
        depth: gated blocks of the network.
    """

    mask: Tensor

    def __init__(self, mask: Tensor, channels: int, width: int, depth: int) -> None:
        super().__init__()
        self.register_buffer("mask", mask, persistent=False)
        last = nn.Conv2d(width, 2 * channels, 3, padding=1)
        self.network = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1),
            *(GatedConv(width) for _ in range(depth)),
            nn.ELU(),
            last,
        )
        self.log_bound = nn.Parameter(torch.zeros(channels, 1, 1))
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``(x + t) exp(s)`` and the log-determinant, shapes (N, C, H, W) and (N,)."""
        log_scale, shift = self._read(x)
        return (x + shift) * log_scale.exp(), log_scale.flatten(1).sum(1)

    def inverse(self, z: Tensor) -> Tensor:
        """Return x.

        Args:
            z: of `forward`, shape (N, C, H, W).
        """
        log_scale, shift = self._read(z)
        return z * torch.exp(-log_scale) - shift

    def _read(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return s, bounded by exp(log_bound), and t."""
        log_scale, shift = self.network(x * self.mask).to(x.dtype).chunk(2, 1)
        bound = self.log_bound.exp()
        log_scale = bound * torch.tanh(log_scale / bound)
        return log_scale * (1 - self.mask), shift * (1 - self.mask)


class FlowEncoder(nn.Module):
    """Couplings on a checkerboard, a squeeze to half the size, couplings on the channels.

    Args:
        in_channels: C of the images.
        image_size: S, side of the images in pixels, even.
        checkerboard: couplings before the squeeze.
        channel: couplings after it.
        width: channels of the coupling networks.
        depth: gated blocks of each.
        pool: side of the grid to which the latent is averaged for the representation.

    Attributes:
        dim: length of the representation, ``4 C pool^2``.

    Raises:
        ValueError: an odd image size, or one that is too small for the grid.
    """

    def __init__(
        self,
        *,
        in_channels: int = 1,
        image_size: int = 64,
        checkerboard: int = 4,
        channel: int = 4,
        width: int = 32,
        depth: int = 2,
        pool: int = 8,
    ) -> None:
        super().__init__()
        if image_size % 2 or image_size < 2 * pool:
            raise ValueError(f"image_size must be even and >= {2 * pool}, got {image_size}")
        self.shape, self.pool = (in_channels, image_size, image_size), pool
        self.dim = 4 * in_channels * pool**2
        place = torch.arange(image_size)
        board = ((place + place[:, None]) % 2)[None, None].float()
        halves = (torch.arange(4 * in_channels) % 2)[None, :, None, None].float()
        self.before = nn.ModuleList(
            AffineCoupling(board if i % 2 else 1 - board, in_channels, width, depth)
            for i in range(checkerboard)
        )
        self.after = nn.ModuleList(
            AffineCoupling(halves if i % 2 else 1 - halves, 4 * in_channels, width, depth)
            for i in range(channel)
        )

    def transform(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map real values to the latent.

        Args:
            x: of `dequantize`, float, shape (N, C, S, S).

        Returns:
            z, shape (N, 4 C, S / 2, S / 2), and the log-determinant, shape (N,).
        """
        check_images(x, self.shape)
        log_det = x.new_zeros(len(x))
        for coupling in self.before:
            x, change = coupling(x)
            log_det = log_det + change
        x = F.pixel_unshuffle(x, 2)
        for coupling in self.after:
            x, change = coupling(x)
            log_det = log_det + change
        return x, log_det

    def inverse(self, z: Tensor) -> Tensor:
        """Map the latent, shape (N, 4 C, S / 2, S / 2), back to x, shape (N, C, S, S)."""
        for coupling in reversed(self.after):
            z = coupling.inverse(z)  # type: ignore[operator]
        z = F.pixel_shuffle(z, 2)
        for coupling in reversed(self.before):
            z = coupling.inverse(z)  # type: ignore[operator]
        return z

    def forward(self, images: Tensor) -> Tensor:
        """Return the latent averaged over a grid, shape (N, dim); no noise is drawn.

        Args:
            images: float in [0, 1], shape (N, C, S, S).
        """
        z, _ = self.transform(dequantize(images, torch.full_like(images, 0.5))[0])
        return F.adaptive_avg_pool2d(z, self.pool).flatten(1)


class Flow(nn.Module):
    """The exact likelihood of images under a flow to N(0, 1).

    The paper names NICE only; the layout is ours.

    Args:
        encoder: what is kept; None: a `FlowEncoder` for grey images of 64 x 64.
    """

    views = 1

    def __init__(self, encoder: FlowEncoder | None = None) -> None:
        super().__init__()
        self.encoder = encoder or FlowEncoder()

    def forward(self, views: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return the loss, in bits per dimension.

        Args:
            views: one batch of images, float in [0, 1], shape (N, C, S, S).

        Returns:
            "loss".
        """
        (images,) = views
        log_prob = self.log_prob(images, torch.rand_like(images))
        return {"loss": bits_per_dimension(log_prob, math.prod(self.encoder.shape)).mean()}

    def log_prob(self, images: Tensor, noise: Tensor) -> Tensor:
        """Return log p of the images, whose mean over the noise bounds that of 8-bit images.

        Args:
            images: float in [0, 1], shape (N, C, S, S).
            noise: in [0, 1), the same shape.

        Returns:
            In nats, shape (N,), float32 at least.
        """
        images = images.to(torch.promote_types(images.dtype, torch.float32))
        x, log_det = dequantize(images, noise)
        z, change = self.encoder.transform(x)
        normal = -(z.square() + math.log(2 * math.pi)).flatten(1).sum(1) / 2
        return normal + log_det + change

    @torch.no_grad()
    def sample(self, n: int, seed: int = 0) -> Tensor:
        """Return n images drawn from the flow, in [0, 1], shape (n, C, S, S)."""
        channels, height, width = self.encoder.shape
        size = (n, 4 * channels, height // 2, width // 2)
        z = torch.randn(size, generator=torch.Generator().manual_seed(seed))
        return quantize(self.encoder.inverse(z.to(next(self.parameters()))))

    def update(self, progress: float) -> None:
        """Nothing changes between the steps."""
