"""Alignment: move a text's embedding until it describes an image (paper, steps 1 and 3)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from papercommons.errors import DataError
from torch import Tensor
from torch.nn import functional as F

from d_tiil.noise import Denoiser, NoisePairs, add_noise, draw_pairs, row_chunks
from d_tiil.scores import denoising_errors
from d_tiil.settings import AlignmentSettings

GRADIENT_SCALE = 1024.0  # keeps gradients of half-precision networks from vanishing; a power of two


class Alignment(NamedTuple):
    """An aligned embedding and how it came about.

    Attributes:
        embedding: float32, (1, L, D).
        losses: of each step's pairs, float32, (K,), on the CPU.
        checks: mean error on the fixed pairs at steps 0, `check_every`, ...; empty without checks.
        step: number of steps that the embedding has taken, <= K.
        stopped: whether checks ended it before all steps were done.
    """

    embedding: Tensor
    losses: Tensor
    checks: tuple[float, ...]
    step: int
    stopped: bool


def align_embedding(
    denoiser: Denoiser,
    latents: Tensor,
    embedding: Tensor,
    *,
    alpha_bars: Tensor,
    settings: AlignmentSettings | None = None,
    seed: int = 0,
    pairs: NoisePairs | None = None,
    max_rows: int | None = None,
    on_step: Callable[[], object] | None = None,
) -> Alignment:
    """Return the embedding with which the network predicts an image's noise best.

    Paper, step 1: from E_0, by Adam, without guidance and without weight gradients::

        argmin_E  E_{t, n} || n - eps(sqrt(a_t) z + sqrt(1 - a_t) n, t, E) ||^2

    With checks (`AlignmentSettings.patience` > 0) the embedding with the least error on a few fixed
    pairs is kept, the start among them, and no gain for `patience` checks ends the search.

    Args:
        denoiser: predicts noise.
        latents: z of the image, float, (1, C, h, w).
        embedding: E_0, float, (1, L, D); stays as it is.
        alpha_bars: products of alphas, float, (T,), > 0.
        settings: steps, pairs per step, learning rate, checks.
        seed: of timesteps and noise.
        pairs: steps x batch of them to take in this order instead of random ones.
        max_rows: pairs given to the network at once; None is all of a step.
        on_step: called after each step.

    Raises:
        DataError: the loss is not finite.
        ValueError: shapes, or the number of the given pairs, do not fit.
    """
    how = settings or AlignmentSettings()
    _check(latents, embedding, pairs, how)
    device, shape = latents.device, tuple(latents.shape[1:])
    levels = alpha_bars.to(device, torch.float32)
    generator = torch.Generator().manual_seed(seed)
    current = embedding.detach().float().clone()
    optimizer = torch.optim.Adam([current], lr=how.lr)
    best, best_step, best_error = current.clone(), 0, float("inf")
    losses, checks = list[Tensor](), list[float]()
    probe = None
    if how.patience:
        probe = draw_pairs(how.checked, shape, generator, train_steps=len(levels)).to(device)
        best_error = _error(denoiser, latents, current, levels, probe, max_rows, 0)
        checks.append(best_error)
    for step in range(1, how.steps + 1):
        if pairs is None:
            batch = draw_pairs(how.batch, shape, generator, train_steps=len(levels))
        else:
            batch = NoisePairs(*(part[(step - 1) * how.batch : step * how.batch] for part in pairs))
        loss, current.grad = alignment_gradient(
            denoiser, latents, current, batch.to(device), alpha_bars=levels, max_rows=max_rows
        )
        optimizer.step()
        losses.append(loss)
        if on_step is not None:
            on_step()
        if probe is None or (step % how.check_every and step < how.steps):
            continue
        error = _error(denoiser, latents, current, levels, probe, max_rows, step)
        if error < best_error:
            best, best_step, best_error = current.clone(), step, error
        checks.append(error)
        if _without_gain(checks, how.min_gain) >= how.patience:
            break
    steps = len(losses)
    if probe is None:
        best, best_step = current, steps
    done = torch.stack(losses).cpu() if losses else torch.zeros(0)
    if not bool(done.isfinite().all()) or not bool(best.isfinite().all()):
        raise DataError(_NOT_FINITE.format(int((~done.isfinite()).float().argmax()) + 1))
    return Alignment(best.detach(), done, tuple(checks), best_step, steps < how.steps)


_NOT_FINITE = (
    "alignment: the loss is not finite at step {}; lower the learning rate, or load the model in "
    "float32 or bfloat16"
)


def _check(
    latents: Tensor, embedding: Tensor, pairs: NoisePairs | None, how: AlignmentSettings
) -> None:
    if latents.ndim != 4 or len(latents) != 1 or embedding.ndim != 3 or len(embedding) != 1:
        raise ValueError(
            "latents must be (1, C, h, w) and the embedding (1, L, D), got "
            f"{tuple(latents.shape)} and {tuple(embedding.shape)}"
        )
    wanted = how.steps * how.batch
    if pairs is not None and not len(pairs.timesteps) == len(pairs.noise) == wanted:
        raise ValueError(f"{wanted} pairs are needed (steps x batch), got {len(pairs.timesteps)}")


def _error(
    denoiser: Denoiser,
    latents: Tensor,
    embedding: Tensor,
    levels: Tensor,
    probe: NoisePairs,
    max_rows: int | None,
    step: int,
) -> float:
    errors = denoising_errors(
        denoiser, latents, embedding, probe, alpha_bars=levels, max_rows=max_rows
    )
    error = float(errors.mean())
    if not error < float("inf"):
        raise DataError(_NOT_FINITE.format(step))
    return error


def _without_gain(checks: list[float], min_gain: float) -> int:
    """Return how many checks ago the error last fell by more than the least gain."""
    least, last = checks[0], 0
    for number, error in enumerate(checks):
        if error < least * (1 - min_gain):
            least, last = error, number
    return len(checks) - 1 - last


def alignment_gradient(
    denoiser: Denoiser,
    latents: Tensor,
    embedding: Tensor,
    pairs: NoisePairs,
    *,
    alpha_bars: Tensor,
    max_rows: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the mean squared noise error of some pairs, and its gradient for the embedding.

    Args:
        denoiser: predicts noise.
        latents: z, float32, (1, C, h, w).
        embedding: float32, (1, L, D).
        pairs: on the same device.
        alpha_bars: float32, (T,).
        max_rows: pairs given to the network at once; None is all. The result is the same.

    Returns:
        float32 scalar without a graph, and a gradient of the embedding's shape.
    """
    count = len(pairs.timesteps)
    levels = alpha_bars[pairs.timesteps]
    noised = add_noise(latents, pairs.noise, levels)
    total = torch.zeros((), device=latents.device)
    gradient = torch.zeros_like(embedding)
    with torch.enable_grad():
        for rows in row_chunks(count, max_rows):
            leaf = embedding.detach().requires_grad_()
            timesteps, noise = pairs.timesteps[rows], pairs.noise[rows]
            predicted = denoiser(noised[rows], timesteps, leaf.expand(len(timesteps), -1, -1))
            loss = F.mse_loss(predicted.float(), noise.float()) * (len(timesteps) / count)
            (scaled,) = torch.autograd.grad(loss * GRADIENT_SCALE, leaf)
            gradient += scaled.float() / GRADIENT_SCALE
            total += loss.detach()
    return total, gradient
