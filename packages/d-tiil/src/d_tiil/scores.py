"""How badly a text explains an image: denoising errors, their gap, and a score in [0, 100]."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from d_tiil.noise import Denoiser, NoisePairs, add_noise, row_chunks


class DenoisingGap(NamedTuple):
    """How much better one embedding explains an image than another.

    Attributes:
        value: mean error of the first minus that of the second.
        error: standard error of that mean over the pairs.
        first: mean error of the first.
        second: mean error of the second.
    """

    value: float
    error: float
    first: float
    second: float

    @property
    def relative(self) -> float:
        """The gap as a share of the first's error, at most 1."""
        return self.value / self.first if self.first > 0 else 0.0


@torch.no_grad()
def denoising_errors(
    denoiser: Denoiser,
    latents: Tensor,
    embeddings: Tensor,
    pairs: NoisePairs,
    *,
    alpha_bars: Tensor,
    max_rows: int | None = None,
) -> Tensor:
    """Return the mean squared noise error of each embedding for each pair.

    Args:
        denoiser: predicts noise.
        latents: of the image, float, (1, C, h, w).
        embeddings: float, (K, L, D).
        pairs: N of them, the same for all embeddings.
        alpha_bars: products of alphas, float, (T,), > 0.
        max_rows: rows given to the network at once; None is all K x N.

    Returns:
        float32, (K, N).
    """
    pairs = pairs.to(latents.device)
    count, levels = len(pairs.timesteps), alpha_bars.to(latents.device)[pairs.timesteps]
    noised = add_noise(latents, pairs.noise, levels)
    rows = torch.arange(len(embeddings) * count, device=latents.device)
    text, pair = rows // count, rows % count
    errors = [
        (
            denoiser(noised[at], pairs.timesteps[at], embeddings[text[part]]).float()
            - pairs.noise[at]
        )
        .square()
        .flatten(1)
        .mean(1)
        for part in row_chunks(len(rows), max_rows)
        for at in (pair[part],)
    ]
    return torch.cat(errors).view(len(embeddings), count)


def denoising_gap(
    denoiser: Denoiser,
    latents: Tensor,
    first: Tensor,
    second: Tensor,
    pairs: NoisePairs,
    *,
    alpha_bars: Tensor,
    max_rows: int | None = None,
) -> DenoisingGap:
    """Return ``L(first) - L(second)``, L being the mean error over the same pairs.

    A caption's own embedding first and the aligned one second: a large gap says that the caption
    explains the image badly.

    Args:
        denoiser: predicts noise.
        latents: of the image, float, (1, C, h, w).
        first: float, (1, L, D).
        second: likewise.
        pairs: N >= 2 of them.
        alpha_bars: products of alphas, float, (T,), > 0.
        max_rows: rows given to the network at once.
    """
    errors = denoising_errors(
        denoiser,
        latents,
        torch.cat([first, second]),
        pairs,
        alpha_bars=alpha_bars,
        max_rows=max_rows,
    ).double()
    return gap_of(errors[0], errors[1])


def gap_of(first: Tensor, second: Tensor) -> DenoisingGap:
    """Return the gap of errors on the same pairs.

    Args:
        first: float, (N,), N >= 2.
        second: likewise.
    """
    difference = first - second
    error = float(difference.std()) / math.sqrt(len(difference))
    return DenoisingGap(float(difference.mean()), error, float(first.mean()), float(second.mean()))


def plain_score(gap: DenoisingGap) -> float:
    """Return a consistency in [0, 100] without calibration: 100 minus the relative gap in percent.

    Args:
        gap: of the caption's embedding to the aligned one.
    """
    return 100.0 * (1.0 - min(1.0, max(0.0, gap.relative)))
