"""The clips of the experiment, made in memory: mouths of 32 pixels, and what they say.

Three groups of people who are nobody else's: students train on the first, teachers on the second,
and the third is the test. Training has real clips, a quarter of them with a natural lag, and
forgeries of one kind; the test has six kinds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from cmdfd.clips import to_gray
from cmdfd.corpus import Recipe, make_planned, plan_corpus
from cmdfd.data import ArrayClips
from cmdfd.features import SAMPLES
from cmdfd.kinds import REAL_KINDS, TalkingClip

SEEN = "lipsync"
UNSEEN = ("lipsync_clean", "rhythm", "swap", "shift", "partial")
REAL = "real"  # real and lag
PLACES = ("train", "val", "test")  # of students, of teachers, of the test
_COMMON: dict[str, Any] = {
    "people": 60,
    "seconds": (1.6, 2.0),
    "size": 64,
    "val_fraction": 0.3,
    "test_fraction": 0.3,
}


@dataclass(frozen=True)
class Counts:
    """How many clips there are.

    Attributes:
        train: of the students, half of them real.
        teach: of the teachers, all real, without lag.
        real: of the test.
        fake: of each kind of the test.
    """

    train: int = 320
    teach: int = 320
    real: int = 96
    fake: int = 48


class Part(NamedTuple):
    """Clips of one group of people.

    Attributes:
        clips: mouths and sound, with labels.
        kinds: of each clip; ``lag`` is called real.
        classes: what is heard in each frame of each clip, int64 (T,).
    """

    clips: ArrayClips
    kinds: list[str]
    classes: list[np.ndarray]


def make_parts(seed: int, counts: Counts) -> dict[str, Part]:
    """Return the parts ``train``, ``teach`` and ``test``.

    Args:
        seed: of people, words, looks and all else.
        counts: of the clips.
    """
    fakes = counts.fake * (1 + len(UNSEEN))
    wanted = {
        "train": (counts.train, 0.5, ("real", "lag", SEEN)),
        "teach": (2 * counts.teach, 0.5, ("real",)),
        "test": (counts.real + fakes, counts.real / (counts.real + fakes), None),
    }
    parts = {}
    for place, (name, (total, share, kinds)) in zip(PLACES, wanted.items(), strict=True):
        how: dict[str, Any] = _COMMON | {"seed": seed, "real_share": share}
        how["kinds"] = ("real", SEEN) if name == "teach" else (*REAL_KINDS, SEEN)
        how["unseen"] = UNSEEN if name == "test" else ()
        recipe = Recipe(count=round(total / Recipe(**how).shares[place]), **how)
        chosen = [
            make_planned(plan, recipe)
            for plan in plan_corpus(recipe)
            if plan.split == place and (kinds is None or plan.kind in kinds)
        ]
        parts[name] = as_part(chosen)
    return parts


def as_part(clips: Sequence[TalkingClip]) -> Part:
    """Return made clips as mouths, sound and labels."""
    kinds = [REAL if clip.kind in REAL_KINDS else clip.kind for clip in clips]
    arrays = ArrayClips(
        [mouths(to_gray(clip.frames)) for clip in clips],
        [clip.waveform for clip in clips],
        [clip.truth.entire for clip in clips],
    )
    return Part(arrays, kinds, [clip.classes for clip in clips])


def mouths(faces: np.ndarray) -> np.ndarray:
    """Return the square around the mouth, half as wide as the picture: (T, S, S) -> (T, S/2, S/2).

    Args:
        faces: grey, uint8, from `cmdfd.talking.film`.
    """
    side = faces.shape[1] // 2
    return np.ascontiguousarray(faces[:, side:, side // 2 : side // 2 + side])


def moved(part: Part, lag: int, most: int) -> ArrayClips:
    """Return the middle of each real clip, with its sound late by some frames.

    Args:
        part: with real clips, T > 2 * most + 5.
        lag: frames; the sound is early if it is below 0.
        most: the largest lag that the results are compared at: so much is cut off at both ends.
    """
    real = [k for k, kind in enumerate(part.kinds) if kind == REAL]
    ends = [len(part.clips.frames[k]) - most for k in real]
    return ArrayClips(
        [part.clips.frames[k][most:end] for k, end in zip(real, ends, strict=True)],
        [
            part.clips.waveforms[k][SAMPLES * (most - lag) : SAMPLES * (end - lag)]
            for k, end in zip(real, ends, strict=True)
        ],
        [0] * len(real),
    )
