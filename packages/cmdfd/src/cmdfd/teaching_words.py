"""What the clips of a teacher say: classes of phonemes by frame, or letters without times."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
from papercommons.errors import DataError, one_line

from cmdfd.mouths import CLASSES
from cmdfd.prepared import PreparedClips

Labels = Literal["phonemes", "grid"]

LETTERS = ("", " ", *"abcdefghijklmnopqrstuvwxyz")
"""Of CTC: the first is its blank."""

_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_GRID = (
    {"b": "bin", "l": "lay", "p": "place", "s": "set"},
    {"b": "blue", "g": "green", "r": "red", "w": "white"},
    {"a": "at", "b": "by", "i": "in", "w": "with"},
    {letter: letter for letter in "abcdefghijklmnopqrstuvwxyz"},
    dict(zip("z123456789", _DIGITS, strict=True)),
    {"a": "again", "n": "now", "p": "please", "s": "soon"},
)


def grid_sentence(name: str) -> str:
    """Return what is said in a clip of GRID, whose name has a letter for each word.

    Args:
        name: of the clip or its file.

    Raises:
        DataError: it is no such name.

    Example:
        >>> grid_sentence("s1/bbaf2n.mpg")
        'bin blue at f two now'
    """
    stem = Path(name).stem.lower()
    if len(stem) != len(_GRID) or any(c not in words for c, words in zip(stem, _GRID, strict=True)):
        raise DataError(
            f"{one_line(name)}: not named as clips of GRID are, such as bbaf2n; see --labels"
        )
    return " ".join(words[c] for c, words in zip(stem, _GRID, strict=True))


def frame_targets(clips: PreparedClips) -> list[np.ndarray]:
    """Return the class of each frame of each clip, int64, shape (T,).

    Raises:
        DataError: it is not known.
    """
    targets = [clips.classes(k) for k in range(len(clips))]
    for name, found in zip(clips.names, targets, strict=True):
        if found is None:
            raise DataError(
                f"{name}: what is heard when is not known; --labels phonemes is for clips of "
                "cmdfd-synth, take --labels grid or --hf-asr"
            )
        if found.max() >= len(CLASSES):
            raise DataError(f"{name}: classes above {len(CLASSES) - 1}; prepare it again")
    return [found for found in targets if found is not None]


def letter_targets(clips: PreparedClips) -> list[np.ndarray]:
    """Return the letters that are said in each clip, numbers in `LETTERS`, int64, shape (L,).

    Raises:
        DataError: a clip is not named as GRID's are, or too short for its letters.
    """
    targets = []
    for name, frames in zip(clips.names, clips.lengths, strict=True):
        letters = grid_sentence(name)
        twice = sum(one == other for one, other in pairwise(letters))
        if len(letters) + twice > frames:
            raise DataError(f"{name}: {frames} frames are too few for {len(letters)} letters")
        targets.append(np.array([LETTERS.index(letter) for letter in letters]))
    return targets


def read_letters(best: np.ndarray) -> str:
    """Return the text of the best class of each frame: repetitions once, without blanks.

    Args:
        best: numbers in `LETTERS`, shape (T,).
    """
    kept = best[np.append(True, best[1:] != best[:-1])] if len(best) else best
    return "".join(LETTERS[number] for number in kept)


def letter_error_rate(said: Sequence[str], truth: Sequence[str]) -> float:
    """Return how many letters must be changed, as a share of those that are true.

    Args:
        said: of each clip.
        truth: likewise.
    """
    from torchmetrics.functional.text import char_error_rate

    return float(char_error_rate(list(said), list(truth)))
