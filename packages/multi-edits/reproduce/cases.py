"""Scenes and edits of the study, settled before any editor runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from multi_edits.edits import Edit
from multi_edits.scene_edits import scene_edits
from papercommons.data.scenes import BACKGROUND, CROWDED, Fact, Scene, draw_edits, draw_scene

STRATA = ("same type", "mixed types", "with background", "add or delete")
COUNTS = (1, 2, 4, 6)  # edits at once
TYPES = ("color", "shape", "texture")
# seeds; training's is 0, its test scenes' 1,000,000; trials do not see the evaluation's
EVALUATION, TUNING, TRIAL = 7_000_000, 6_000_000, 8_000_000
_ROOM = 4  # things there can be, and so edits of one type


class Case(NamedTuple):
    """One scene with some edits.

    Attributes:
        number: of the scene; its cases have the scene in common.
        stratum: of `STRATA`.
        scene: before.
        facts: what becomes true.
    """

    number: int
    stratum: str
    scene: Scene
    facts: tuple[Fact, ...]

    @property
    def after(self) -> Scene:
        """What the edited picture should show."""
        return self.scene.edited(self.facts)

    @property
    def edits(self) -> list[Edit]:
        """The edits in words of the scene's caption."""
        return scene_edits(self.scene, self.facts)


def kinds(stratum: str, count: int, number: int) -> tuple[str, ...] | None:
    """Return the kinds of a case's edits; None where there is no such case.

    Args:
        stratum: of `STRATA`.
        count: edits.
        number: of the scene; types take turns.
    """
    mixed = tuple(TYPES[(number + k) % len(TYPES)] for k in range(count))
    if stratum == "same type":
        return (mixed[0],) * count if count <= _ROOM else None
    if stratum == "with background":
        return (BACKGROUND, *mixed[:-1])
    if stratum == "add or delete":
        return ("add" if number % 2 else "delete", *mixed[:-1])
    return mixed


def draw_cases(count: int, seed: int, *, every: bool) -> list[Case]:
    """Return the cases of some scenes, of which the strata have equally many.

    Args:
        count: scenes.
        seed: `EVALUATION`, `TUNING` or `TRIAL`.
        every: give each scene all of `COUNTS`, or one of them, in turn.
    """
    cases = []
    for number in range(count):
        stratum = STRATA[number % len(STRATA)]
        turn = number // len(STRATA)
        wanted = [kinds(stratum, k, turn) for k in COUNTS]
        there = [each for each in wanted if each is not None]
        if not every:
            there = [there[turn % len(there)]]
        cases += _draw(np.random.default_rng([seed, number]), number, stratum, there)
    return cases


def _draw(
    rng: np.random.Generator, number: int, stratum: str, wanted: Sequence[tuple[str, ...]]
) -> list[Case]:
    """Return the cases of the first drawn scene that allows all of them."""
    while True:
        scene = draw_scene(rng, CROWDED)
        try:
            drawn = [draw_edits(rng, scene, each) for each in wanted]
        except ValueError:
            continue
        return [Case(number, stratum, scene, facts) for facts in drawn]
