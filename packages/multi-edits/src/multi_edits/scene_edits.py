"""Edits of scenes in words: what becomes of a caption where facts of its scene change.

Needs NumPy alone. The captions are those of `papercommons.data.scenes.Scene.caption`.
"""

from __future__ import annotations

from collections.abc import Sequence

from papercommons.data.scenes import BACKGROUND, Fact, Scene

from multi_edits.edits import Edit, apply_edits

EDIT_TYPES = {"shape": 1, "add": 2, "delete": 3, "color": 6, "texture": 7, "background": 8}
"""Kinds of `papercommons.data.scenes.KINDS` and their numbers in PIE-Bench."""


def scene_edits(scene: Scene, facts: Sequence[Fact]) -> list[Edit]:
    """Return the edits of a scene's caption that make facts true, in the order of the facts.

    ``apply_edits(scene.caption(), edits).text`` is ``scene.edited(facts).caption()``. What is of
    one thing has its place as object, what is of the background has none.

    Args:
        scene: before.
        facts: each of another thing or word, as `papercommons.data.scenes.draw_edits` gives them.

    Raises:
        ValueError: nothing of the scene stays, or the facts do not go together.

    Example:
        >>> import numpy as np
        >>> from papercommons.data.scenes import SIMPLE, draw_scene
        >>> scene = draw_scene(np.random.default_rng(1), SIMPLE)
        >>> [str(edit) for edit in scene_edits(scene, [Fact("left", "color", "red")])]
        ['yellow -> red']
    """
    starts = _starts(scene)
    after = scene.edited(facts)
    stays = [
        place for place in starts if place != BACKGROUND and after.thing(place).present
    ]  # of the source's things
    if not stays:
        raise ValueError(f"no thing of the scene stays: {scene.caption()}")
    edits = [_edit(scene, after, fact, starts, stays[0]) for fact in facts]
    made = apply_edits(scene.caption(), edits).text
    if made != after.caption():
        raise ValueError(f"edits do not go together: {made!r} is not {after.caption()!r}")
    return edits


def _starts(scene: Scene) -> dict[str, int]:
    """Return where the phrase of each thing that is there begins, and the background's colour."""
    starts, position = dict[str, int](), 0
    between = len(scene.preset.relation.split()) or 1  # a relation, or "and"
    for thing in scene.things:
        if not thing.present:
            continue
        starts[thing.place] = position
        position += _length(scene, thing.place) + between
    starts[BACKGROUND] = position - between + 2  # on a
    return starts


def _length(scene: Scene, place: str) -> int:
    own = [fact for fact in scene.facts() if fact.place == place]
    return len(scene.caption(own).split()) if not scene.preset.relation else len(own)


def _edit(scene: Scene, after: Scene, fact: Fact, starts: dict[str, int], stays: str) -> Edit:
    """Return the edit for one fact; "and" goes with a thing towards the one that stays."""
    words = scene.caption().split()
    place, attribute, value = fact
    if place == BACKGROUND:
        position = starts[BACKGROUND]
        return Edit(words[position], str(value), position, "")
    order = [thing.place for thing in scene.things]
    before = order.index(place) < order.index(stays)
    if attribute == "present" and value:
        own = [known for known in after.facts() if known.place == place]
        phrase = after.caption(own)
        behind = [known for known in order[order.index(place) :] if known in starts]
        ahead = [known for known in order[: order.index(place)] if known in starts]
        if before:
            return Edit("", f"{phrase} and", starts[behind[0]], place)
        return Edit("", f"and {phrase}", starts[ahead[-1]] + _length(scene, ahead[-1]), place)
    first, count = starts[place], _length(scene, place)
    if attribute == "present":
        first, last = (first, first + count + 1) if before else (first - 1, first + count)
        return Edit(" ".join(words[first:last]), "", first, place)
    named = [known.attribute for known in scene.facts() if known.place == place][1:]
    position = first + 1 + named.index(attribute)
    return Edit(words[position], str(value), position, place)
