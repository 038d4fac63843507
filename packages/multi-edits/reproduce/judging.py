"""What is measured on an edited picture, against the exact scene that it should show."""

from __future__ import annotations

from typing import Any

import numpy as np
from cases import Case
from papercommons.data.scene_reading import read_scene
from papercommons.data.scenes import Fact, changed_pixels

BOUND = 20.0  # dB outside the edits, against the autoencoder's picture of the source
FEWEST = 32  # pixels outside, below which nothing is asked of them


def psnr(one: np.ndarray, other: np.ndarray, where: np.ndarray | None = None) -> float:
    """Return the PSNR of 8-bit pictures, at most 100.

    Args:
        one: uint8, (H, W, 3).
        other: likewise.
        where: which pixels count, bool, (H, W).
    """
    apart = (one.astype(float) - other.astype(float)) ** 2
    mean = float(apart.mean() if where is None else apart[where].mean())
    return 100.0 if mean == 0 else min(100.0, 10 * float(np.log10(255**2 / mean)))


def judge(picture: np.ndarray, case: Case, through: np.ndarray) -> dict[str, Any]:
    """Return the measures of an edited picture.

    Args:
        picture: uint8, (32, 32, 3).
        case: scene and edits.
        through: the source through the autoencoder; no editor keeps more of it.

    Returns:
        right: kind and success of each edit; an added thing must be right in all its words.
        edits: whether all are. leaks: share of the other facts that changed. outside: PSNR where
        nothing should change, None where hardly anything is left. target: PSNR to the exact edited
        picture. joint: all edits, no leak and `BOUND` outside.
    """
    after = case.after
    found, wanted = set(read_scene(picture, after)), set(after.facts())
    right = [(fact.kind, _is_right(fact, found, wanted)) for fact in case.facts]
    kept = wanted & set(case.scene.facts())
    lost = len(kept - found)
    outside = ~changed_pixels(case.scene, after)
    kept_psnr = psnr(picture, through, outside) if outside.sum() >= FEWEST else None
    all_right = all(ok for _, ok in right)
    return {
        "right": right,
        "edits": all_right,
        "leaks": lost / max(1, len(kept)),
        "outside": kept_psnr,
        "target": psnr(picture, after.render()),
        "joint": all_right and lost == 0 and (kept_psnr is None or kept_psnr >= BOUND),
    }


def _is_right(fact: Fact, found: set[Fact], wanted: set[Fact]) -> bool:
    if fact.kind != "add":
        return fact in found
    return found.issuperset(own for own in wanted if own.place == fact.place)
