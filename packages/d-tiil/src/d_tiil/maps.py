"""Noise-difference maps: where two texts make a network predict different noise."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from d_tiil.noise import Denoiser, add_noise, row_chunks
from d_tiil.settings import MapSettings, Norm


def noise_difference_map(
    denoiser: Denoiser,
    latents: Tensor,
    first: Tensor,
    second: Tensor,
    *,
    alpha_bars: Tensor,
    empty: Tensor | None = None,
    settings: MapSettings | None = None,
    seed: int = 0,
    max_rows: int | None = None,
) -> Tensor:
    """Return M(A, B; z): how much predicted noise differs between two embeddings, place by place.

    The mean over `MapSettings.draws` of the maps of `single_maps` or `trajectory_maps`, before any
    scaling; exactly 0 where the embeddings are equal.

    Args:
        denoiser: predicts noise.
        latents: z of the image, float, (1, C, h, w).
        first: A, float, (1, L, D).
        second: B, likewise.
        alpha_bars: products of alphas, float, (T,), > 0.
        empty: embedding of "", for trajectories with guidance.
        settings: kind of map, draws, noise levels.
        seed: of the noise, the same for A and B.
        max_rows: images given to the network at once; None is all.

    Returns:
        float32 >= 0, (h, w).

    Raises:
        ValueError: a trajectory with guidance needs `empty`.
    """
    how = settings or MapSettings()
    if torch.equal(first, second):  # rows of one batch may differ in the last bit
        return torch.zeros(latents.shape[-2:], device=latents.device)
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(how.draws, *latents.shape[1:], generator=generator).to(latents.device)
    levels = alpha_bars.to(latents.device, torch.float32)
    if how.kind == "single":
        timesteps = map_timesteps(how, len(levels)).to(latents.device)
        maps = single_maps(
            denoiser,
            latents,
            first,
            second,
            noise,
            timesteps,
            levels[timesteps],
            norm=how.norm,
            max_rows=max_rows,
        )
    else:
        schedule = even_timesteps(how.steps, len(levels)).to(latents.device)
        maps = trajectory_maps(
            denoiser,
            latents,
            first,
            second,
            noise,
            schedule,
            sigmas_of(levels[schedule]),
            empty=empty,
            guidance=how.guidance,
            order=how.order,
            start=how.steps - max(1, int(how.steps * how.strength)),
            norm=how.norm,
            max_rows=max_rows,
        )
    return maps.mean(0)


def map_timesteps(settings: MapSettings, train_steps: int) -> Tensor:
    """Return the timesteps of single maps, evenly from low to high, int64, (draws,).

    Args:
        settings: low and high as shares of T - 1, and draws.
        train_steps: T.
    """
    last = train_steps - 1
    return torch.linspace(settings.low * last, settings.high * last, settings.draws).round().long()


def even_timesteps(steps: int, train_steps: int) -> Tensor:
    """Return timesteps evenly from T - 1 to 0, int64, falling.

    Args:
        steps: how many.
        train_steps: T.

    Example:
        >>> even_timesteps(4, 1000).tolist()
        [999, 666, 333, 0]
    """
    return torch.linspace(train_steps - 1, 0, steps).round().long()


def sigmas_of(alpha_bars: Tensor) -> Tensor:
    """Return ``sqrt((1 - a) / a)``, the noise per unit of signal, float32."""
    return ((1 - alpha_bars) / alpha_bars).sqrt()


@torch.no_grad()
def single_maps(
    denoiser: Denoiser,
    latents: Tensor,
    first: Tensor,
    second: Tensor,
    noise: Tensor,
    timesteps: Tensor,
    alpha_bars: Tensor,
    *,
    norm: Norm = "euclidean",
    max_rows: int | None = None,
) -> Tensor:
    """Return one map for each noise, from one prediction with each embedding.

    Guidance is left out: it multiplies the difference, and maps are scaled afterwards.

    Args:
        denoiser: predicts noise.
        latents: float, (1, C, h, w).
        first: float, (1, L, D).
        second: likewise.
        noise: float32, (n, C, h, w).
        timesteps: int64, (n,).
        alpha_bars: at those, (n,).
        norm: over the channels of the difference.
        max_rows: images given to the network at once, two for each noise.

    Returns:
        float32, (n, h, w).
    """
    texts = torch.cat([first, second])
    noised = add_noise(latents, noise, alpha_bars)
    maps = []
    for part in row_chunks(len(noise), _groups(max_rows, 2)):
        size = part.stop - part.start
        one, two = denoiser(
            noised[part].repeat(2, 1, 1, 1),
            timesteps[part].repeat(2),
            texts.repeat_interleave(size, 0),
        ).chunk(2)
        maps.append(channel_norm(one.float() - two.float(), norm))
    return torch.cat(maps)


@torch.no_grad()
def trajectory_maps(
    denoiser: Denoiser,
    latents: Tensor,
    first: Tensor,
    second: Tensor,
    noise: Tensor,
    timesteps: Tensor,
    sigmas: Tensor,
    *,
    empty: Tensor | None = None,
    guidance: float = 7.0,
    order: int = 1,
    start: int = 0,
    norm: Norm = "euclidean",
    max_rows: int | None = None,
) -> Tensor:
    """Return one map for each noise, from the last guided prediction of two denoising runs.

    Both runs start from the same noised latents. In x / s, the latents per unit of signal, a step
    is a linear multistep of dx / dsigma = eps; order 1 is DDIM. Higher orders take the coefficients
    of the whole grid and drop those whose predictions were not made, as the reference does.

    Args:
        denoiser: predicts noise.
        latents: float, (1, C, h, w).
        first: float, (1, L, D).
        second: likewise.
        noise: float32, (n, C, h, w).
        timesteps: of the whole grid, int64 and falling, (m,).
        sigmas: at those, float32, (m,).
        empty: embedding of "", (1, L, D), for guidance other than 1.
        guidance: of the predictions.
        order: of the multistep, 1 to 4.
        start: index of the step that the runs begin with, < m.
        norm: over the channels of the difference.
        max_rows: images given to the network at once, two for each noise, four with guidance.

    Returns:
        float32, (n, h, w).

    Raises:
        ValueError: guidance is not 1 and `empty` is not given.
    """
    texts = [first, second]
    if guidance != 1:
        if empty is None:
            raise ValueError(
                "maps of trajectories with guidance need the embedding of the empty text"
            )
        texts += [empty, empty]
    embeddings, levels = torch.cat(texts), sigmas.tolist()
    maps = []
    for part in row_chunks(len(noise), _groups(max_rows, len(texts))):
        noised = latents.float() + levels[start] * noise[part].float()
        states, size = noised.repeat(2, 1, 1, 1), len(noised)
        rows = embeddings.repeat_interleave(size, 0)
        steps: list[Tensor] = []
        for k in range(start, len(levels)):
            inputs = (states / math.sqrt(levels[k] ** 2 + 1)).repeat(len(texts) // 2, 1, 1, 1)
            predicted = denoiser(inputs, timesteps[k].expand(len(rows)), rows).float()
            if guidance != 1:
                conditioned, plain = predicted.chunk(2)
                predicted = plain + guidance * (conditioned - plain)
            steps = [predicted, *steps[: order - 1]]
            if k + 1 < len(levels):
                weights = multistep_weights(levels, k, min(k + 1, order))
                states = states + sum(w * e for w, e in zip(weights, steps, strict=False))
        one, two = steps[0].chunk(2)
        maps.append(channel_norm(one - two, norm))
    return torch.cat(maps)


def multistep_weights(sigmas: Sequence[float], step: int, order: int) -> list[float]:
    """Return the weights of the last predictions, newest first, in one linear multistep.

    They are the integrals of Lagrange's polynomials over the step (two Gauss points: exact up to
    degree 3).

    Args:
        sigmas: of the steps, falling.
        step: k; the step goes from sigmas[k] to sigmas[k + 1].
        order: number of predictions, 1 to 4 and at most k + 1.
    """
    nodes = [sigmas[step - k] for k in range(order)]
    middle, half = (sigmas[step + 1] + sigmas[step]) / 2, (sigmas[step + 1] - sigmas[step]) / 2
    points = [middle - half / math.sqrt(3), middle + half / math.sqrt(3)]
    return [
        half
        * sum(
            math.prod((at - other) / (own - other) for j, other in enumerate(nodes) if j != number)
            for at in points
        )
        for number, own in enumerate(nodes)
    ]


def channel_norm(difference: Tensor, norm: Norm) -> Tensor:
    """Return the size of a difference at each place, float, (n, h, w).

    Args:
        difference: float, (n, C, h, w).
        norm: euclidean, or the mean of absolute values.
    """
    if norm == "euclidean":
        return difference.square().sum(1).sqrt()
    return difference.abs().mean(1)


def _groups(max_rows: int | None, each: int) -> int | None:
    return None if max_rows is None else max(1, max_rows // each)
