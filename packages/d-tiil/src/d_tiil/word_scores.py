"""Scores that say which word or phrase of a caption contradicts the image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from d_tiil.phrases import Phrase


class WordScore(NamedTuple):
    """A word or phrase and how much speaks for it as the inconsistent one.

    Attributes:
        text: ``caption[start:end]``.
        start: its first character.
        end: one past its last.
        score: higher is more suspect; the scale is the scorer's.
    """

    text: str
    start: int
    end: int
    score: float


def score_phrases(phrases: Sequence[Phrase], scores: Tensor) -> tuple[WordScore, ...]:
    """Return phrases with their scores.

    Args:
        phrases: P of them.
        scores: float, (P,).
    """
    pairs = zip(phrases, scores.tolist(), strict=True)
    return tuple(WordScore(*phrase, score) for phrase, score in pairs)


def removal_scores(errors: Tensor, without: Tensor) -> Tensor:
    """Return what the mean denoising error loses as each phrase becomes neutral.

    Args:
        errors: of the caption, on N pairs, float, (N,).
        without: of the caption without phrase p, on the same pairs, float, (P, N).

    Returns:
        float64, (P,).
    """
    return (errors.double() - without.double()).mean(1)


def attention_scores(maps: Tensor, tokens: Sequence[Sequence[int]], region: Tensor) -> Tensor:
    """Return how much denser each phrase's attention is within a region than over the image.

    Args:
        maps: cross-attention, averaged over heads and layers, float >= 0, (L, h, w).
        tokens: positions of each phrase's tokens, P lists.
        region: bool, of any size.

    Returns:
        float32, (P,): the region's share of the attention over its share of the area; 0 without a
        region.
    """
    area = F.interpolate(region.float()[None, None], size=maps.shape[-2:], mode="area")[0, 0]
    if not bool(area.any()):
        return torch.zeros(len(tokens))
    attended = torch.stack([maps[list(where)].float().mean(0) for where in tokens])
    shares = (attended * area).sum((1, 2)) / attended.sum((1, 2)).clamp_min(1e-12)
    return (shares / area.mean()).cpu()
