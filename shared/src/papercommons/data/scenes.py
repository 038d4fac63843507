"""Scenes of coloured shapes: captions, exact masks, and the exact picture after any edit.

A scene is small enough for a text-to-image model that is trained in minutes, and everything about
it is known, so an edit or a found inconsistency can be judged without a second model. Needs NumPy
alone. Coordinates are those of a picture of 32 x 32 pixels; (0, 0) is its upper left corner.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from papercommons.data.scene_parts import (
    BACKGROUND,
    CROWDED,
    SIMPLE,
    UNIT,
    Preset,
    darkened,
    find_preset,
    shape_mask,
    texture_pattern,
)
from papercommons.errors import nearest

__all__ = [
    "BACKGROUND",
    "CROWDED",
    "KINDS",
    "SIMPLE",
    "UNIT",
    "Fact",
    "Preset",
    "Scene",
    "Thing",
    "changed_pixels",
    "draw_caption",
    "draw_edits",
    "draw_scene",
    "find_preset",
    "has_held_out",
    "longest_caption",
    "words",
]

KINDS = ("color", "shape", "texture", "background", "add", "delete")
_ATTRIBUTES = ("texture", "color", "shape")  # in the order of a caption


class Fact(NamedTuple):
    """What a caption says, an edit makes true, or a reader finds.

    Attributes:
        place: of the thing, or `BACKGROUND`.
        attribute: color, shape, texture or present.
        value: a word; for present, True or False.
    """

    place: str
    attribute: str
    value: str | bool

    @property
    def kind(self) -> str:
        """Of the edit that makes it true, one of `KINDS`."""
        if self.attribute == "present":
            return "add" if self.value else "delete"
        return BACKGROUND if self.place == BACKGROUND else self.attribute


@dataclass(frozen=True)
class Thing:
    """A coloured shape.

    Attributes:
        place: where it is, in words.
        shape: its word.
        color: its word.
        texture: its word.
        x: of the centre.
        y: of the centre.
        radius: half its width.
        present: an absent one is neither drawn nor named; an edit may add it.
    """

    place: str
    shape: str
    color: str
    texture: str
    x: float
    y: float
    radius: float
    present: bool = True


@dataclass(frozen=True)
class Scene:
    """Things before a background.

    Attributes:
        preset: what it is made of.
        things: one per place, in the order of the preset, absent ones too.
        background: word of its colour.
    """

    preset: Preset
    things: tuple[Thing, ...]
    background: str

    def thing(self, place: str) -> Thing:
        """Return what is, or could be, at a place.

        Raises:
            ValueError: no such place.
        """
        for thing in self.things:
            if thing.place == place:
                return thing
        raise ValueError(f"place {place!r}: must be one of {', '.join(self.preset.centers)}")

    def facts(self) -> tuple[Fact, ...]:
        """Return all that is true, place by place, then the background.

        A thing that is absent gives the fact of its absence alone. Textures are facts where the
        preset has several.
        """
        found = []
        for thing in self.things:
            found.append(Fact(thing.place, "present", thing.present))
            if thing.present:
                found += [Fact(thing.place, name, getattr(thing, name)) for name in self._named()]
        return (*found, Fact(BACKGROUND, "color", self.background))

    def _named(self) -> tuple[str, ...]:
        return _ATTRIBUTES if len(self.preset.textures) > 1 else _ATTRIBUTES[1:]

    def caption(self, facts: Iterable[Fact] | None = None) -> str:
        """Return a sentence that says all facts, or those given; it never names an absent thing.

        Args:
            facts: in any order, true or not.

        Example:
            >>> scene = draw_scene(np.random.default_rng(1), SIMPLE)
            >>> scene.caption()
            'a yellow square left of a yellow triangle on a white background'
        """
        said: dict[str, dict[str, str | bool]] = {}
        for fact in self.facts() if facts is None else facts:
            said.setdefault(fact.place, {})[fact.attribute] = fact.value
        background = said.pop(BACKGROUND, {}).get("color")
        phrases = {
            place: _phrase(said[place])
            for place in self.preset.centers
            if place in said and said[place].get("present", True)
        }
        if self.preset.relation:
            both = [phrases.get(place, _phrase({})) for place in self.preset.centers]
            sentence = f" {self.preset.relation} ".join(both)
        else:
            sentence = " and ".join(f"{phrase} {place}" for place, phrase in phrases.items())
        if background is None:
            return sentence
        return f"{sentence} on a {background} background".removeprefix(" on ")

    def render(self, size: int = UNIT) -> np.ndarray:
        """Return the picture, uint8, shape (size, size, 3).

        Args:
            size: side in pixels, >= 16.
        """
        picture = np.empty((size, size, 3), np.uint8)
        picture[:] = self.preset.backgrounds[self.background]
        for thing in self.things:
            mask = self.mask(thing.place, size)
            dark = texture_pattern(thing.texture, size) & mask
            picture[mask] = self.preset.colors[thing.color]
            picture[dark] = darkened(self.preset.colors[thing.color])
        return picture

    def mask(self, place: str, size: int = UNIT) -> np.ndarray:
        """Return the pixels of a thing or of the background, bool, shape (size, size).

        Args:
            place: of the thing, or `BACKGROUND`; of an absent thing there are none.
            size: side in pixels, >= 16.

        Raises:
            ValueError: no such place.
        """
        if place == BACKGROUND:
            return ~np.any([self.mask(name, size) for name in self.preset.centers], axis=0)
        thing = self.thing(place)
        if not thing.present:
            return np.zeros((size, size), bool)
        return shape_mask(thing.shape, thing.x, thing.y, thing.radius, size)

    def edited(self, edits: Iterable[Fact]) -> Scene:
        """Return the scene in which `edits` are true and all else, also the geometry, is as here.

        Args:
            edits: any number, done in their order. An added thing is as `thing` says.

        Raises:
            ValueError: a place, attribute or word that the preset does not have.
        """
        things, background = {thing.place: thing for thing in self.things}, self.background
        for place, attribute, value in edits:
            if attribute == "present" and place in things:
                things[place] = replace(things[place], present=bool(value))
                continue
            known = self.preset.values(place, attribute)
            if value not in known:
                raise ValueError(
                    f"{attribute} of {place}: must be {', '.join(known)}, got {value!r}"
                    f"{nearest(str(value), known)}"
                )
            if place == BACKGROUND:
                background = str(value)
            else:
                changed: dict[str, Any] = {attribute: value}
                things[place] = replace(things[place], **changed)
        return Scene(self.preset, tuple(things.values()), background)


def _phrase(said: Mapping[str, str | bool]) -> str:
    named = {"shape": "thing", **said}
    return " ".join(["a", *(str(named[name]) for name in _ATTRIBUTES if name in named)])


def words(preset: Preset) -> tuple[str, ...]:
    """Return all words of a preset's captions, each once, in alphabetical order."""
    phrases = [*preset.shapes, *preset.colors, *preset.backgrounds, preset.relation]
    phrases += [*preset.textures, *preset.centers, "and"] if not preset.relation else []
    return tuple(sorted({*" ".join([*phrases, "a thing on background"]).split()}))


def longest_caption(preset: Preset) -> int:
    """Return how many words a caption has at most."""
    rng = np.random.default_rng(0)
    scene = draw_scene(rng, preset)
    return len(scene.edited(Fact(at, "present", True) for at in preset.centers).caption().split())


def changed_pixels(before: Scene, after: Scene, size: int = UNIT) -> np.ndarray:
    """Return where the pictures of two scenes differ, bool, shape (size, size)."""
    return (before.render(size) != after.render(size)).any(-1)


def has_held_out(things: Iterable[Thing], preset: Preset) -> bool:
    """Return whether one of the things has a colour and a shape that training keeps apart."""
    return any((thing.color, thing.shape) in preset.held_out for thing in things)


def draw_scene(rng: np.random.Generator, preset: Preset, *, held_out: bool | None = False) -> Scene:
    """Return a random scene.

    Args:
        rng: moves on.
        preset: what it is made of.
        held_out: False: no thing has a held-out pair of colour and shape; True: one that is present
            has; None: either.

    Raises:
        ValueError: held_out is True and the preset holds nothing out.
    """
    if held_out and not preset.held_out:
        raise ValueError(f"preset {preset.name} holds no pairs of colour and shape out")
    low, high = preset.radius
    while True:
        count = rng.integers(preset.fewest, len(preset.centers) + 1)
        present = rng.permutation(len(preset.centers)) < count
        things = tuple(
            Thing(
                place,
                shape=str(rng.choice(preset.shapes)),
                color=str(rng.choice(tuple(preset.colors))),
                texture=str(rng.choice(preset.textures)),
                x=center[0] + rng.uniform(-1, 1) * preset.jitter[0],
                y=center[1] + rng.uniform(-1, 1) * preset.jitter[1],
                radius=rng.uniform(low, high),
                present=bool(there),
            )
            for (place, center), there in zip(preset.centers.items(), present, strict=True)
        )
        kept = [thing for thing in things if thing.present] if held_out else things
        if held_out is None or has_held_out(kept, preset) == held_out:
            return Scene(preset, things, str(rng.choice(tuple(preset.backgrounds))))


def draw_caption(rng: np.random.Generator, scene: Scene) -> str:
    """Return a caption as training has it: all facts, or (see `Preset.full_share`) one or two.

    Args:
        rng: moves on.
        scene: what is captioned.
    """
    if rng.random() < scene.preset.full_share:
        return scene.caption()
    facts = [fact for fact in scene.facts() if fact.attribute != "present"]
    chosen = rng.choice(len(facts), size=rng.integers(1, 3), replace=False)
    return scene.caption(facts[which] for which in chosen)


def draw_edits(
    rng: np.random.Generator,
    scene: Scene,
    kinds: Sequence[str],
    *,
    held_out: bool | None = None,
) -> tuple[Fact, ...]:
    """Return random edits that all change the scene, and none of them another's thing or word.

    Edited things were there before; the edited scene has as many as the preset wants.

    Args:
        rng: moves on.
        scene: what is edited.
        kinds: of `KINDS`, one per edit, in the order of the result.
        held_out: about the present things of the edited scene, as in `draw_scene`.

    Raises:
        ValueError: an unknown kind, or the scene does not allow these edits together.
    """
    for kind in kinds:
        if kind not in KINDS:
            raise ValueError(f"kind {kind!r}: must be {', '.join(KINDS)}{nearest(kind, KINDS)}")
    for _ in range(200):
        edits: list[Fact] = []
        for kind in kinds:
            possible = [fact for fact in _edits_of(scene, kind) if _fits(fact, edits)]
            if not possible:
                break
            edits.append(possible[rng.integers(len(possible))])
        after = [thing for thing in scene.edited(edits).things if thing.present]
        fitting = held_out is None or has_held_out(after, scene.preset) == held_out
        if len(edits) == len(kinds) and len(after) >= scene.preset.fewest and fitting:
            return tuple(edits)
    raise ValueError(
        f"no edits {', '.join(kinds)} found for: {scene.caption()}; ask for fewer, or draw another"
    )


def _edits_of(scene: Scene, kind: str) -> list[Fact]:
    if kind in ("add", "delete"):
        wanted = kind == "add"
        return [
            Fact(thing.place, "present", wanted)
            for thing in scene.things
            if thing.present != wanted
        ]
    attribute = "color" if kind == BACKGROUND else kind
    return [
        Fact(place, attribute, value)
        for place, named, old in scene.facts()
        if named == attribute and (place == BACKGROUND) == (kind == BACKGROUND)
        for value in scene.preset.values(place, attribute)
        if value != old
    ]


def _fits(fact: Fact, others: Sequence[Fact]) -> bool:
    """Return whether no other edit is of the same word, or makes or removes the same thing."""
    return not any(
        fact.place == other.place
        and (fact.attribute == other.attribute or "present" in (fact.attribute, other.attribute))
        for other in others
    )
