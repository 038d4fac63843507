"""A distance between sets of images, like FID but in a feature space that needs no download.

Numbers compare sets measured in one feature space alone; they are not FID values of papers.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Features = Callable[[Tensor], Tensor]


class RandomFeatures(nn.Module):
    """Fixed random convolutions: three layers, each halving the image.

    The features are the means over space of the first and the third layer, and those over the
    four quarters of the second, which say where things are. They follow from the seed alone.

    Args:
        channels: C of the images.
        width: of the first layer, >= 1; the others have twice as many.
        seed: of the weights.

    Attributes:
        dim: number of features, 11 widths.

    Raises:
        ValueError: channels or width < 1.
    """

    def __init__(self, channels: int = 1, *, width: int = 8, seed: int = 0) -> None:
        super().__init__()
        if channels < 1 or width < 1:
            raise ValueError(f"channels and width must be >= 1, got {channels}, {width}")
        self.dim = 11 * width
        generator = torch.Generator().manual_seed(seed)
        sizes = (channels, width, 2 * width, 2 * width)
        for number, (before, after) in enumerate(pairwise(sizes)):
            weight = torch.randn(after, before, 3, 3, generator=generator, dtype=torch.float64)
            bias = torch.randn(after, generator=generator, dtype=torch.float64)
            # what has mean square 1 keeps it through | |, which leaves no feature dead
            self.register_buffer(f"weight{number}", weight * (9 * before) ** -0.5)
            self.register_buffer(f"bias{number}", 0.1 * bias)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Return the features, float64, shape (B, dim).

        Args:
            images: about [-1, 1], float, shape (B, C, H, W), H and W >= 2.

        Raises:
            ValueError: another shape.
        """
        channels = self.get_buffer("weight0").shape[1]
        if images.ndim != 4 or images.shape[1] != channels or min(images.shape[2:]) < 2:
            raise ValueError(f"images must be (B, {channels}, H, W), got {tuple(images.shape)}")
        h, found = images.double(), []
        for number in range(3):
            weight, bias = self.get_buffer(f"weight{number}"), self.get_buffer(f"bias{number}")
            h = F.conv2d(h, weight, bias, padding=1).abs()
            h = F.avg_pool2d(h, 2, ceil_mode=True)
            found.append(F.adaptive_avg_pool2d(h, 2 if number == 1 else 1).flatten(1))
        return torch.cat(found, 1)


def frechet_distance(
    real: Tensor, made: Tensor, features: Features | None = None, *, batch: int = 256
) -> Tensor:
    """Return the squared Frechet distance between two sets of images, `gaussian_distance`.

    It is too large by a bias that shrinks with the numbers of images: compare sets of equal size.

    Args:
        real: float, shape (N, C, H, W), N >= 2.
        made: likewise.
        features: called with at most `batch` images; returns (B, F). `RandomFeatures` if None.
        batch: images at once.

    Returns:
        float64 scalar >= 0.

    Raises:
        ValueError: too few images, or features that are not finite or of another shape.
    """
    if features is None:
        features = RandomFeatures(real.shape[1]).to(real.device)
    return gaussian_distance(
        *feature_statistics(real, features, batch=batch),
        *feature_statistics(made, features, batch=batch),
    )


@torch.no_grad()
def feature_statistics(
    images: Tensor, features: Features, *, batch: int = 256
) -> tuple[Tensor, Tensor]:
    """Return mean (F,) and covariance (F, F) of the features of images, float64.

    Args:
        images: shape (N, ...), N >= 2.
        features: see `frechet_distance`.
        batch: images at once, >= 1.

    Raises:
        ValueError: as `frechet_distance`.
    """
    if len(images) < 2 or batch < 1:
        raise ValueError(f"need 2 or more images and batch >= 1, got {len(images)} and {batch}")
    rows = []
    for part in images.split(batch):
        row = features(part)
        if row.ndim != 2 or len(row) != len(part):
            raise ValueError(f"features must be ({len(part)}, F), got {tuple(row.shape)}")
        rows.append(row.double())
    table = torch.cat(rows)
    if not table.isfinite().all():
        raise ValueError("features must be finite, got NaN or infinity")
    mean = table.mean(0)
    centred = table - mean
    return mean, centred.T @ centred / (len(table) - 1)


def gaussian_distance(mean_a: Tensor, cov_a: Tensor, mean_b: Tensor, cov_b: Tensor) -> Tensor:
    """Return ``|m - m'|^2 + tr(C + C' - 2 (C C')^(1/2))``, the squared distance of two Gaussians.

    Args:
        mean_a: m, shape (F,).
        cov_a: C, symmetric, positive semi-definite up to rounding, shape (F, F).
        mean_b: m'.
        cov_b: C'.

    Returns:
        float64 scalar >= 0.

    Raises:
        ValueError: shapes that do not match.
    """
    size = mean_a.shape
    if not (len(size) == 1 and mean_b.shape == size and cov_a.shape == cov_b.shape == size * 2):
        raise ValueError(
            f"means must be (F,) and covariances (F, F), got {tuple(size)}, {tuple(cov_a.shape)}, "
            f"{tuple(mean_b.shape)}, {tuple(cov_b.shape)}"
        )
    # With C = R R^T, the trace of the root is the sum of the singular values of R^T R': no root of
    # a product that rounding made asymmetric.
    roots = []
    for covariance in (cov_a, cov_b):
        values, vectors = torch.linalg.eigh(covariance.double())
        roots.append(vectors * values.clamp(min=0).sqrt())
    shared = torch.linalg.svdvals(roots[0].T @ roots[1]).sum()
    apart = (mean_a.double() - mean_b.double()).square().sum()
    traces = roots[0].square().sum() + roots[1].square().sum()
    return (apart + traces - 2 * shared).clamp(min=0)
