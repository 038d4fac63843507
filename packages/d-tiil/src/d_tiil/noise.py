"""Noise levels of a diffusion model, and the noise that its losses and maps are made of."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor

LEAST_ALPHA_BAR = 2.0**-24  # schedules with zero terminal SNR reach 0

Prediction = Literal["epsilon", "v_prediction"]


class Denoiser(Protocol):
    """What predicts noise: a network with its weights and its kind of prediction."""

    def __call__(self, latents: Tensor, timesteps: Tensor, embeddings: Tensor, /) -> Tensor:
        """Return the predicted noise, float32, (B, C, h, w).

        Args:
            latents: noisy, float32, (B, C, h, w).
            timesteps: int64, (B,).
            embeddings: of the text, float32, (B, L, D).
        """


class NoisePairs(NamedTuple):
    """Timesteps and noise, row by row.

    Attributes:
        timesteps: int64, (N,).
        noise: standard normal, float32, (N, C, h, w).
    """

    timesteps: Tensor
    noise: Tensor

    def to(self, device: torch.device) -> NoisePairs:
        """Return them on a device."""
        return NoisePairs(self.timesteps.to(device), self.noise.to(device))


def draw_pairs(
    count: int,
    shape: tuple[int, ...],
    generator: torch.Generator,
    *,
    train_steps: int = 1000,
    low: float = 0.0,
    high: float = 1.0,
) -> NoisePairs:
    """Return random pairs, drawn on the CPU so that they are the same on every device.

    Each timestep is uniform; together they are stratified: one in each of `count` equal parts of
    the range, so that means over them vary less. Of one pair that is a plain draw.

    Args:
        count: N, >= 1.
        shape: of the noise of one pair, (C, h, w).
        generator: of the CPU; moves on.
        train_steps: number of timesteps T.
        low: start of the range of timesteps, as a share of T, in [0, 1).
        high: its end, in (low, 1].

    Raises:
        ValueError: count or the range is not as above.
    """
    if count < 1 or not 0 <= low < high <= 1:
        raise ValueError(f"count must be >= 1 and 0 <= low < high <= 1, got {count}, {low}, {high}")
    parts = torch.randperm(count, generator=generator)
    inside = torch.rand(count, generator=generator, dtype=torch.float64)
    shares = low + (high - low) * (parts + inside) / count
    timesteps = (shares * train_steps).long().clamp_max(train_steps - 1)
    return NoisePairs(timesteps, torch.randn(count, *shape, generator=generator))


def fixed_pairs(
    count: int, shape: tuple[int, ...], *, seed: int, train_steps: int = 1000
) -> NoisePairs:
    """Return a fixed grid of pairs: timesteps in the middle of `count` equal parts, ascending.

    Args:
        count: N, >= 1.
        shape: of the noise of one pair, (C, h, w).
        seed: of the noise.
        train_steps: number of timesteps T.

    Raises:
        ValueError: count < 1.
    """
    if count < 1:
        raise ValueError(f"count must be >= 1, got {count}")
    timesteps = ((torch.arange(count, dtype=torch.float64) + 0.5) / count * train_steps).long()
    generator = torch.Generator().manual_seed(seed)
    return NoisePairs(timesteps, torch.randn(count, *shape, generator=generator))


def add_noise(latents: Tensor, noise: Tensor, alpha_bars: Tensor) -> Tensor:
    """Return ``sqrt(a) z + sqrt(1 - a) n``, float32.

    Args:
        latents: z, float, (N, C, h, w) or (1, C, h, w).
        noise: n, of that shape with N rows.
        alpha_bars: a of each row, in (0, 1], (N,).
    """
    level = alpha_bars.float()[:, None, None, None]
    return level.sqrt() * latents.float() + (1 - level).sqrt() * noise.float()


def to_epsilon(
    prediction: Tensor, latents: Tensor, alpha_bars: Tensor, kind: Prediction = "epsilon"
) -> Tensor:
    """Return the noise that a network's output stands for, float32.

    Args:
        prediction: the network's output, any float dtype, (B, C, h, w).
        latents: what it was given, of the same shape.
        alpha_bars: product of alphas at each row's timestep, in (0, 1), (B,).
        kind: what the network predicts; v = sqrt(a) eps - sqrt(1 - a) x0.

    Raises:
        ValueError: the kind is neither epsilon nor v_prediction.
    """
    if kind == "epsilon":
        return prediction.float()
    if kind == "v_prediction":
        level = alpha_bars.float()[:, None, None, None]
        return level.sqrt() * prediction.float() + (1 - level).sqrt() * latents.float()
    raise ValueError(f"kind must be epsilon or v_prediction, got {kind}")


def row_chunks(rows: int, most: int | None) -> Iterator[slice]:
    """Yield slices of at most `most` rows that cover all `rows`; one slice if `most` is None.

    Args:
        rows: how many there are.
        most: in a slice.

    Raises:
        ValueError: most < 1.
    """
    size = rows if most is None else most
    if size < 1:
        raise ValueError(f"max_rows must be >= 1, got {most}")
    for start in range(0, rows, size):
        yield slice(start, min(rows, start + size))
