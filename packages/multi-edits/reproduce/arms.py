"""The editors that are compared, and the settings that each may be tuned over."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from cases import Case
from multi_edits.baselines import EditPrompt, LeditsSettings, edit_with_leditspp
from multi_edits.branches import SamplingSettings
from multi_edits.edits import locate_edits
from multi_edits.grouping import AspectGroup, Kind
from papercommons.data.scenes import BACKGROUND, Fact
from PIL import Image

STEPS = 15
SINGLE, PER_WORD, EQUAL_ROWS = "single", "single, per word", "single, equal rows"
SEQUENTIAL, REVERSED = "sequential", "sequential, reversed"
PARALLEL, REFERENCE, SHUFFLED = "parallel", "parallel, reference", "parallel, types shuffled"
LEDITS, KNOWN = "LEDITS++", "parallel, types known"
ARMS = (
    SINGLE,
    PER_WORD,
    EQUAL_ROWS,
    SEQUENTIAL,
    REVERSED,
    PARALLEL,
    REFERENCE,
    SHUFFLED,
    LEDITS,
    KNOWN,
)
GRID: tuple[dict[str, Any], ...] = tuple(  # for all arms but LEDITS++
    {"guidance": guidance, "edit_threshold": threshold, "cross_ratio": ratio, "self_ratio": ratio}
    for guidance, threshold, ratio in product((2.0, 4.0), (0.3, 0.5), (0.3, 0.7))
)
LEDITS_GRID: tuple[dict[str, Any], ...] = tuple(  # equally many
    {"guidance": guidance, "threshold": threshold, "drop_old": drop_old}
    for guidance, threshold, drop_old in product((4.0, 10.0), (0.7, 0.85), (False, True))
)
KINDS: tuple[Kind, ...] = ("rigid", "non-rigid", "global")
KIND_OF: dict[str, Kind] = {
    **dict.fromkeys(("color", "texture"), "rigid"),
    **dict.fromkeys(("shape", "add", "delete"), "non-rigid"),
    BACKGROUND: "global",
}


class Edited(NamedTuple):
    """An edited picture and its cost.

    Attributes:
        picture: uint8, (H, W, 3).
        rows: images that the network was given.
        seconds: of CPU time.
        kinds: of the groups, in their order; none for LEDITS++.
    """

    picture: np.ndarray
    rows: int
    seconds: float
    kinds: tuple[str, ...] = ()


def grid_of(arm: str) -> tuple[dict[str, Any], ...]:
    """Return the settings that an arm is tuned over."""
    return LEDITS_GRID if arm == LEDITS else GRID


def edit(pipe: Any, arm: str, setting: dict[str, Any], case: Case, seed: int) -> Edited:
    """Return a case's picture edited by an arm.

    Args:
        pipe: `multi_edits.MultiEditsPipeline`.
        arm: of `ARMS`.
        setting: of its grid.
        case: scene and edits.
        seed: of the noise.
    """
    image = Image.fromarray(case.scene.render())
    started = time.process_time()
    if arm == LEDITS:
        values = dict(setting)
        prompts = phrases(case, drop_old=values.pop("drop_old"))
        done = edit_with_leditspp(
            pipe,
            image,
            case.edits,
            prompts=prompts,
            steps=STEPS,
            settings=LeditsSettings(**values),
            seed=seed,
        )
        return Edited(np.asarray(done.image), done.rows, time.process_time() - started)
    settings = SamplingSettings(**setting, compat="reference" if arm == REFERENCE else "paper")
    source, edits = case.scene.caption(), locate_edits(case.scene.caption(), case.edits)
    run = partial(pipe, image, source_prompt=source, edits=edits, settings=settings, seed=seed)
    groups, rows = known(case.facts), 0
    if arm != KNOWN:
        # this pass has the same setting in every arm: two rows, guided, five steps
        groups, aspects = pipe.find_groups(image, source_prompt=source, edits=edits, seed=seed)
        run, rows = partial(run, aspects=aspects), 4 * 5
    made, own = _run(run, arm, groups, seed)
    rows += own
    seconds = time.process_time() - started
    return Edited(np.asarray(made), rows, seconds, tuple(group.kind for group in groups))


def _run(run: Any, arm: str, groups: Sequence[AspectGroup], seed: int) -> tuple[Image.Image, int]:
    """Return what the pipeline makes of given groups, and its rows."""
    steps, mode, own = STEPS, "parallel", list(groups)
    if arm == PER_WORD:
        mode = "per-word"
    if arm in (SINGLE, EQUAL_ROWS):
        mode = "single"
    if arm == EQUAL_ROWS:
        steps = round(STEPS * (1 + len(groups)) / 2)
    if arm in (SEQUENTIAL, REVERSED):
        mode = "sequential"
    if arm == REVERSED:
        own = [replace(group, edits=group.edits[::-1]) for group in own[::-1]]
    if arm == SHUFFLED:
        own = shuffled(groups, seed)
    done = run(mode=mode, steps=steps, groups=own)
    return done.image, done.rows


def known(facts: Sequence[Fact]) -> list[AspectGroup]:
    """Return one group for each kind of edits, as the scene knows them and not the attention.

    Args:
        facts: of a case, in the order of its edits.
    """
    kinds = [KIND_OF[fact.kind] for fact in facts]
    return [
        AspectGroup(kind, tuple(place for place, own in enumerate(kinds) if own == kind))
        for kind in KINDS
        if kind in kinds
    ]


def shuffled(groups: Sequence[AspectGroup], seed: int) -> list[AspectGroup]:
    """Return the groups, each of one of the two kinds that it is not."""
    rng = np.random.default_rng([seed, len(groups)])
    others = [[kind for kind in KINDS if kind != group.kind] for group in groups]
    return [
        replace(group, kind=each[rng.integers(2)])
        for group, each in zip(groups, others, strict=True)
    ]


def phrases(case: Case, *, drop_old: bool) -> list[EditPrompt]:
    """Return the prompts of LEDITS++: the whole phrase of each edited thing, with its place.

    A word alone, such as "green", is bound to no thing.

    Args:
        case: scene and edits.
        drop_old: push away from the phrase before, too.
    """
    prompts = []
    for place in dict.fromkeys(fact.place for fact in case.facts):
        old, new = (_phrase(scene.facts(), place) for scene in (case.scene, case.after))
        if new:
            prompts.append(EditPrompt(case.after.caption(new), False))
        if old and (drop_old or not new):
            prompts.append(EditPrompt(case.scene.caption(old), True))
    return prompts


def _phrase(facts: Sequence[Fact], place: str) -> list[Fact]:
    own = [fact for fact in facts if fact.place == place]
    return own if place == BACKGROUND or own[0].value else []
