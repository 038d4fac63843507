"""Local blending: outside the edited region a branch takes over what was there before."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

TEMPERATURE = 0.15


def token_map(
    maps: Tensor, tokens: Tensor, map_size: tuple[int, int], size: tuple[int, int]
) -> Tensor:
    """Return where some tokens are attended to: their greatest map, enlarged, with maximum 1.

    Args:
        maps: cross-attention averaged over heads and layers, float, (P, L), P = h w.
        tokens: which of the L tokens count, bool, (L,).
        map_size: h and w.
        size: height H and width W of the result (nearest neighbour).

    Returns:
        float32, (H, W), values in [0, 1]; all 0 if no token counts.
    """
    chosen = (maps.float() * tokens.to(maps)).amax(-1).view(1, 1, *map_size)
    large = F.interpolate(chosen, size=size)[0, 0]
    return large / large.amax().clamp_min(torch.finfo(torch.float32).tiny)


def edit_threshold(
    alpha_bar: float, threshold: float, *, temperature: float = TEMPERATURE
) -> float:
    """Return the threshold for edited regions: above 1, nothing counts, while noise prevails.

    Args:
        alpha_bar: product of alphas at the timestep, in (0, 1).
        threshold: used at low noise, in [0, 1].
        temperature: numerator of the noise-dependent one, >= 0.
    """
    return max(threshold, temperature / math.sqrt(alpha_bar))


def local_blend(
    edited: Tensor,
    previous: Tensor,
    background: Tensor,
    edit_mask: Tensor,
    keep_mask: Tensor | None = None,
    restore_mask: Tensor | None = None,
) -> Tensor:
    """Return ``keep ? previous : edit ? edited : background``, then the background in `restore`.

    Args:
        edited: a branch's latents, float, (..., H, W).
        previous: those of the branch before.
        background: what shows outside the edit: the same (paper algorithm 2), or the layout stream.
        edit_mask: the edited region, bool, broadcastable.
        keep_mask: regions of words to keep.
        restore_mask: regions of words that are both edited and kept, at the last step.
    """
    blended = torch.where(edit_mask, edited, background)
    if keep_mask is not None:
        blended = torch.where(keep_mask, previous, blended)
    return blended if restore_mask is None else torch.where(restore_mask, background, blended)


def latent_mask(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """Return a mask at the size of the latents: true where any of its pixels is.

    Args:
        mask: true where an edit may change the image, bool or numbers (above 0), (H, W).
        size: height and width of the latents.

    Raises:
        ValueError: the mask is not two-dimensional or marks nothing.
    """
    if mask.ndim != 2 or not bool((mask > 0).any()):
        raise ValueError(
            f"a mask must be (height, width) and mark something, got {tuple(mask.shape)}"
        )
    return F.adaptive_max_pool2d((mask > 0).float()[None, None], size)[0, 0] > 0
