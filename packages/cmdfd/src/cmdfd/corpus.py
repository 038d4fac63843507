"""A made corpus of talking faces: who is in which split, and which clips there are.

Every clip follows from (seed, split, kind, number). Nobody is in two splits. The clip number k of a
split has one length and one face for all kinds, so that neither tells real from fake.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from papercommons.data.splits import stratified_split
from papercommons.errors import DataError

from cmdfd.kinds import KINDS, REAL_KINDS, Kind, TalkingClip, check_kinds, make_clip
from cmdfd.mouths import FPS
from cmdfd.talking import make_speaker

if TYPE_CHECKING:
    from cmdfd.data import ArrayClips

SPLITS = ("train", "val", "test")
TRAIN_KINDS: tuple[Kind, ...] = ("real", "lag", "lipsync")
UNSEEN_KINDS: tuple[Kind, ...] = ("lipsync_clean", "rhythm", "swap", "shift", "partial")
_LAG_EVERY = 4  # of the real clips, one in so many lags


@dataclass(frozen=True)
class Recipe:
    """What is made.

    Attributes:
        count: clips of all splits, >= 2 per kind and split.
        kinds: for all splits, see `cmdfd.kinds`; with at least one real and one fake.
        unseen: for the test split alone.
        real_share: share of real clips in each split, in (0, 1).
        people: how many there are, at least 2 in each split.
        seconds: shortest and longest clip, >= 1.
        size: side of the frames in pixels, even, >= 32.
        val_fraction: share of clips and people for validation; 0 makes no such split.
        test_fraction: the same for testing.
        quality: best and worst constant rate factor of the videos, 0 to 51.
        seed: of everything.

    Raises:
        ValueError: a value is not as described.
    """

    count: int = 400
    kinds: tuple[Kind, ...] = TRAIN_KINDS
    unseen: tuple[Kind, ...] = UNSEEN_KINDS
    real_share: float = 0.5
    people: int = 40
    seconds: tuple[float, float] = (2.0, 4.0)
    size: int = 112
    val_fraction: float = 0.15
    test_fraction: float = 0.35
    quality: tuple[int, int] = (18, 28)
    seed: int = 0

    def __post_init__(self) -> None:
        check_kinds([*self.kinds, *self.unseen])
        given = set(self.kinds)
        if not given & set(REAL_KINDS) or not given - set(REAL_KINDS):
            raise ValueError(f"kinds must have a real and a fake one, got {', '.join(self.kinds)}")
        low, high = self.seconds
        best, worst = self.quality
        for name, fine, rule in (
            ("real_share", 0 < self.real_share < 1, "in (0, 1)"),
            ("seconds", 1 <= low <= high, "two numbers >= 1, ascending"),
            ("size", self.size >= 32 and self.size % 2 == 0, "even and >= 32"),
            ("quality", 0 <= best <= worst <= 51, "two numbers in 0 to 51, ascending"),
            (
                "val_fraction",
                0 <= self.val_fraction < 1 - self.test_fraction,
                ">= 0, with test_fraction below 1",
            ),
            ("test_fraction", self.test_fraction >= 0, ">= 0"),
            ("seed", self.seed >= 0, ">= 0"),
        ):
            if not fine:
                raise ValueError(f"{name} must be {rule}, got {getattr(self, name)}")

    @property
    def shares(self) -> dict[str, float]:
        """Part -> its share, for those that have one."""
        train = 1 - self.val_fraction - self.test_fraction
        every = dict(zip(SPLITS, (train, self.val_fraction, self.test_fraction), strict=True))
        return {split: share for split, share in every.items() if share > 0}

    def settings(self) -> dict[str, object]:
        """Return the recipe in plain types."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}


class Planned(NamedTuple):
    """A clip that is to be made.

    Attributes:
        name: of the clip, unique.
        split: train, val or test.
        kind: see `cmdfd.kinds`.
        number: of the clip among those of its split and kind.
        face: number of the person who is seen.
        voice: number of the person who is heard.
        frames: of the clip.
    """

    name: str
    split: str
    kind: Kind
    number: int
    face: int
    voice: int
    frames: int


def plan_corpus(recipe: Recipe) -> list[Planned]:
    """Return the clips of a corpus, split by split and kind by kind.

    Args:
        recipe: of the corpus.

    Raises:
        DataError: too few people or clips for the splits.
    """
    people = divide_people(recipe)
    held_out = {k: round(v * recipe.count) for k, v in recipe.shares.items() if k != "train"}
    planned = []
    for split in recipe.shares:
        rest = recipe.count - sum(held_out.values())
        counts = _counts(recipe, split, held_out.get(split, rest))
        for kind, count in counts.items():
            planned += [_plan(recipe, split, kind, k, people[split]) for k in range(count)]
    return planned


def divide_people(recipe: Recipe) -> dict[str, list[int]]:
    """Return the numbers of the people of each split.

    Raises:
        DataError: a split has fewer than 2.
    """
    splits = stratified_split([0] * recipe.people, recipe.shares, seed=recipe.seed)
    for split, members in splits.items():
        if len(members) < 2:
            raise DataError(
                f"split {split} would have {len(members)} of {recipe.people} people; expected 2 or "
                "more: raise people"
            )
    return splits


def make_planned(plan: Planned, recipe: Recipe) -> TalkingClip:
    """Return one clip of a corpus, see `cmdfd.kinds.make_clip`.

    Args:
        plan: of the clip.
        recipe: of the corpus.
    """
    seeds = (recipe.seed, SPLITS.index(plan.split), KINDS.index(plan.kind), plan.number)
    return make_clip(
        plan.kind,
        make_speaker(plan.face, recipe.seed),
        plan.frames,
        np.random.default_rng(seeds),
        other=make_speaker(plan.voice, recipe.seed),
        size=recipe.size,
    )


def as_arrays(clips: Sequence[TalkingClip], names: Sequence[str] = ()) -> ArrayClips:
    """Return made clips, in grey, as the detector's data.

    Args:
        clips: of one size.
        names: of the clips; their kinds with numbers if not given.
    """
    from cmdfd.clips import to_gray
    from cmdfd.data import ArrayClips

    return ArrayClips(
        [to_gray(clip.frames) for clip in clips],
        [clip.waveform for clip in clips],
        [clip.truth.entire for clip in clips],
        names or [f"{clip.kind}-{number}" for number, clip in enumerate(clips)],
    )


def _counts(recipe: Recipe, split: str, total: int) -> Mapping[Kind, int]:
    """Return how many clips of each kind a split gets."""
    kinds = dict.fromkeys([*recipe.kinds, *(recipe.unseen if split == "test" else ())])
    genuine = [kind for kind in REAL_KINDS if kind in kinds]
    forged = [kind for kind in kinds if kind not in REAL_KINDS]
    reals = round(recipe.real_share * total)
    lags = reals // _LAG_EVERY if len(genuine) == 2 else 0
    counts: dict[Kind, int] = {genuine[0]: reals - lags}
    if lags:
        counts[genuine[1]] = lags
    for rank, kind in enumerate(forged):
        counts[kind] = (total - reals + len(forged) - 1 - rank) // len(forged)
    if min(counts.values()) < 1:
        raise DataError(
            f"split {split} gets {total} clips, too few for {', '.join(counts)}; raise count"
        )
    return counts


def _plan(recipe: Recipe, split: str, kind: Kind, number: int, people: Sequence[int]) -> Planned:
    rng = np.random.default_rng((recipe.seed, SPLITS.index(split), 99, number))
    low, high = (round(seconds * FPS) for seconds in recipe.seconds)
    frames = int(rng.integers(low, high + 1))
    face, voice = (people[k] for k in rng.choice(len(people), 2, replace=False))
    name = f"{split}-{kind}-{number:05d}"
    return Planned(name, split, kind, number, face, voice if kind == "swap" else face, frames)
