"""What a language model says of two handwritten words, checked against their shapes."""

from __future__ import annotations

from typing import Literal

import numpy as np
from ssl_hv import gsc_features
from vlm_hv import parse_decision


def distance(known: np.ndarray, questioned: np.ndarray) -> float:
    """Return how far apart the shapes of two words are.

    Args:
        known: dark on white, uint8, shape (H, W).
        questioned: likewise.
    """
    return float(np.abs(gsc_features(known) - gsc_features(questioned)).mean())


def second_opinion(
    reply: str, known: np.ndarray, questioned: np.ndarray, *, threshold: float
) -> Literal["agreed", "disputed", "undecided"]:
    """Return whether the shapes say what a model's reply says.

    Args:
        reply: text of the model.
        known: see `distance`.
        questioned: likewise.
        threshold: distance from which on words count as of different writers.
    """
    said = parse_decision(reply)
    if said == "unknown":
        return "undecided"
    shapes = "same" if distance(known, questioned) < threshold else "different"
    return "agreed" if said == shapes else "disputed"
