"""Pairs of the study, settled before any of them was looked at."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

from d_tiil.records import Record
from d_tiil.scene_pairs import Kind, Part, SceneChange, ScenePairOptions, draw_changes

SCENES = 100  # of each kind
EVALUATION, TRIAL = 7_000_000, 8_000_000  # seeds; trials do not see the evaluation's scenes
SIMPLE, SEEN, HELD_OUT = "simple", "crowded", "crowded, held out"
SETS = (SIMPLE, SEEN, HELD_OUT)
KINDS: tuple[Kind, ...] = ("color", "shape", "background")  # those with aims
FURTHER_KINDS: tuple[Kind, ...] = ("relation", "whole")


class Share(NamedTuple):
    """How many of a kind's scenes give a pair.

    Attributes:
        pairs: as a share of `SCENES`.
        full: of them with all four steps, likewise; the others have step 1 alone.
    """

    pairs: float
    full: float


Shares = dict[Part, Share]
MAIN: dict[str, Shares] = {  # of simple scenes, by split
    "test": {
        "caption": Share(1, 1),
        "consistent": Share(1, 0.1),
        "image": Share(0.5, 0.25),
        "control": Share(0.25, 0.1),
    },
    "val": {"caption": Share(0.25, 0.25), "consistent": Share(0.25, 0)},
}
FURTHER: Shares = {"caption": Share(0.5, 0.25), "consistent": Share(0.25, 0)}
CROWDED: Shares = {"caption": Share(0.25, 0), "consistent": Share(0.25, 0)}


class Job(NamedTuple):
    """One pair.

    Attributes:
        group: of `SETS`.
        name: of the change of a scene.
        split: test or val.
        part: of the change's pairs.
        full: all four steps, or the first alone.
    """

    group: str
    name: str
    split: str
    part: Part
    full: bool


def pair_options(group: str, scenes: int) -> ScenePairOptions:
    """Return what is drawn for a set.

    Args:
        group: of `SETS`.
        scenes: of each kind.
    """
    if group == SIMPLE:
        return ScenePairOptions(
            count=scenes, calibration=counted(0.25, scenes), kinds=KINDS + FURTHER_KINDS
        )
    return ScenePairOptions(
        count=counted(0.25, scenes),
        calibration=0,
        kinds=KINDS,
        scenes="crowded",
        held_out=group == HELD_OUT,
    )


def counted(share: float, scenes: int) -> int:
    """Return a share of the scenes; one at least, unless there is no share."""
    return max(1, round(share * scenes)) if share else 0


def jobs(scenes: int, seed: int) -> Iterator[Job]:
    """Give all pairs: the first scenes of each kind, in order.

    Args:
        scenes: of each kind.
        seed: of the scenes, `EVALUATION` or `TRIAL`.
    """
    for group in SETS:
        for change in changes(group, scenes, seed).values():
            number = int(change.name.rsplit("-", 1)[1])
            for part, share in shares_of(group, change).items():
                if number < counted(share.pairs, scenes):
                    full = number < counted(share.full, scenes)
                    yield Job(group, change.name, change.split, part, full)


def shares_of(group: str, change: SceneChange) -> Shares:
    """Return which pairs a change gives, and which share of its kind's scenes does.

    Of the further kinds there are test pairs alone: thresholds know nothing of them.
    """
    if group != SIMPLE:
        return CROWDED
    if change.kind in FURTHER_KINDS:
        return FURTHER if change.split == "test" else {}
    return MAIN[change.split]


@cache
def changes(group: str, scenes: int, seed: int) -> dict[str, SceneChange]:
    """Return the changes of a set by name."""
    return {change.name: change for change in draw_changes(pair_options(group, scenes), seed)}


def record_of(job: Job, scenes: int, seed: int) -> Record:
    """Return a pair with its truth."""
    return changes(job.group, scenes, seed)[job.name].pair(
        job.part, pair_options(job.group, scenes)
    )
