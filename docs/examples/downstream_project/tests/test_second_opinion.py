from __future__ import annotations

import numpy as np
import pytest
from second_opinion import distance, second_opinion


def word(*, slant: float) -> np.ndarray:
    """Three strokes, dark on white, (64, 64)."""
    y, x = np.mgrid[:64, :64]
    strokes = [np.abs(x - at + slant * (y - 32)) < 3 for at in (16, 32, 48)]
    ink = np.any(strokes, axis=0) & (np.abs(y - 32) < 20)
    return np.where(ink, 0, 255).astype(np.uint8)


UPRIGHT, LEANING = word(slant=0.0), word(slant=0.5)


def test_distance_is_that_of_shapes():
    assert distance(UPRIGHT, UPRIGHT) == 0
    assert distance(UPRIGHT, LEANING) == distance(LEANING, UPRIGHT) > 0.02


@pytest.mark.parametrize(
    ("reply", "questioned", "expected"),
    [
        ("Both were written by the same person.", UPRIGHT, "agreed"),
        ("Both were written by the same person.", LEANING, "disputed"),
        ("Decision: different writers.", LEANING, "agreed"),
        ("It is not possible to decide.", LEANING, "undecided"),
    ],
)
def test_the_reply_is_checked_against_the_shapes(reply, questioned, expected):
    assert second_opinion(reply, UPRIGHT, questioned, threshold=0.02) == expected
