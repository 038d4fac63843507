"""Where sampling starts: noise, or noised samples; one generator per sample."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor


def draw_latents(
    seeds: Iterable[int],
    shape: Sequence[int],
    sigma_max: float,
    like: Tensor,
    clean: Tensor | None = None,
) -> Tensor:
    """Return start states, so drawn that batches change nothing.

    Args:
        seeds: one per sample, >= 0.
        shape: of a sample.
        sigma_max: what the noise is multiplied by.
        like: gives dtype and device.
        clean: samples that the noise is added to, shape (M, ...), one drawn by each seed; None
            starts from noise alone.

    Returns:
        Shape (samples, ...).

    Raises:
        ValueError: clean samples of another shape.
    """
    shape = tuple(shape)
    if clean is not None and (clean.shape[1:] != shape or not len(clean)):
        raise ValueError(f"clean must be (M, {str(shape)[1:-1]}), got {tuple(clean.shape)}")
    starts = []
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        start = sigma_max * torch.randn(shape, generator=generator, dtype=like.dtype)
        if clean is not None:
            place = torch.randint(len(clean), (), generator=generator)
            start = start + clean[place].to(start)
        starts.append(start)
    return torch.stack(starts).to(like.device)
