"""What a method says about one pair, in the form in which all methods are measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from d_tiil.phrases import Phrase

if TYPE_CHECKING:
    from d_tiil.result import DTIILResult, NoiseMap
    from d_tiil.settings import LocateSettings


@dataclass(frozen=True, eq=False)
class Finding:
    """An answer; what a method does not give is None.

    Attributes:
        score: how inconsistent the pair is: any scale, higher is more so.
        mask: of the pixels that contradict, bool, of the image's size or smaller.
        map: how much they do: uint8, read as 255ths, or float in [0, 1]; of any size.
        words: that contradict; empty if the method says there are none.
        top: the most suspect word or phrase, whatever the decision.
    """

    score: float | None = None
    mask: np.ndarray | None = None
    map: np.ndarray | None = None
    words: tuple[Phrase, ...] | None = None
    top: Phrase | None = None


def finding_of(result: DTIILResult) -> Finding:
    """Return the answer of the pipeline.

    The mask and the words are those after the decision, the map and the top word those before it;
    the map is blurred as it was for the mask.

    Args:
        result: of `d_tiil.DTIILPipeline`, with any depth.
    """
    located = result.final is not None
    most = max(result.candidates, key=lambda word: word.score, default=None)
    return Finding(
        score=100 - result.score,
        mask=result.mask if located else None,
        map=None if result.final is None else _blurred(result.final, result.settings),
        words=tuple(map(_phrase, result.words)) if located else None,
        top=None if most is None else _phrase(most),
    )


def _blurred(found: NoiseMap, settings: LocateSettings) -> np.ndarray:
    import torch

    from d_tiil.masks import blur_map

    blurred = blur_map(torch.from_numpy(found.values), settings.maps.blur)
    values: np.ndarray = (blurred / 255).clamp(0, 1).numpy()
    return values


def _phrase(word: Any) -> Phrase:
    return Phrase(word.text, word.start, word.end)


def to_size(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return a map or mask at another size by its nearest places; as it is if it has that size.

    Args:
        values: (h, w).
        size: H, W.
    """
    if values.shape == tuple(size):
        return values
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(np.int64)
        for new, old in zip(size, values.shape, strict=True)
    )
    resized: np.ndarray = values[np.ix_(rows, columns)]
    return resized


def as_bytes(values: np.ndarray) -> np.ndarray:
    """Return a map in 255ths, rounded, uint8.

    Args:
        values: uint8, or float in [0, 1], any shape.

    Raises:
        ValueError: other values.
    """
    values = np.asarray(values)
    if values.dtype == np.uint8:
        return values
    if values.dtype.kind != "f" or not (values.min(initial=0) >= 0 and values.max(initial=0) <= 1):
        raise ValueError(f"a map must be uint8, or float in [0, 1], got {values.dtype}")
    return np.rint(values * 255).astype(np.uint8)
