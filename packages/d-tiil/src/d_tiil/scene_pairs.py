"""Pairs of scenes and captions of exactly known truth. Needs NumPy alone.

A pair differs in one respect: the colour, shape or texture of a thing, the background, which thing
is on which side (relation), or everything that is said (whole). Each drawn change of a scene gives
up to four pairs:

=========== ============= =========== ===================================================
part        picture       caption     meaning
=========== ============= =========== ===================================================
consistent  before        before      nothing is wrong
caption     before        after       the caption was edited
image       after         before      the picture was edited
control     before, noisy before      the picture was edited to what it showed: consistent
=========== ============= =========== ===================================================

The mask is that of the whole thing, of both things or of the background; ``changed`` are the pixels
in which before and after differ, of a changed shape the symmetric difference. Of a relation the
wrong words are those between the things.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from papercommons.data.scenes import (
    BACKGROUND,
    Fact,
    Preset,
    Scene,
    changed_pixels,
    draw_edits,
    draw_scene,
    find_preset,
    has_held_out,
)
from papercommons.errors import nearest

from d_tiil.phrases import Phrase
from d_tiil.records import ArrayMask, Record
from d_tiil.word_spans import changed_words, find_word

Kind = Literal["color", "shape", "texture", "background", "relation", "whole"]
Part = Literal["consistent", "caption", "image", "control"]
KINDS: tuple[Kind, ...] = get_args(Kind)
PARTS: tuple[Part, ...] = get_args(Part)
SPLITS = ("test", "val")
_TRIES = 2000


@dataclass(frozen=True)
class ScenePairOptions:
    """What is made.

    Attributes:
        count: changes of each kind, in the split test, >= 0.
        calibration: changes of each kind, others, in the split val, >= 0.
        kinds: of `KINDS`; texture needs crowded scenes, relation simple ones. Empty: all that the
            scenes allow.
        parts: of `PARTS`.
        scenes: ``simple`` or ``crowded``.
        held_out: all captions have a colour and shape together that training keeps apart; needs
            crowded scenes.
        size: side of the pictures in pixels, >= 16.
        noise: of controls, standard deviation in 255ths, > 0.

    Raises:
        ValueError: a number out of range, or words that do not go together.
    """

    count: int = 100
    calibration: int = 25
    kinds: tuple[Kind, ...] = ()
    parts: tuple[Part, ...] = PARTS
    scenes: Literal["simple", "crowded"] = "simple"
    held_out: bool = False
    size: int = 32
    noise: float = 8.0

    def __post_init__(self) -> None:
        preset = find_preset(self.scenes)
        for name, fine, rule in (
            ("count", self.count >= 0, ">= 0"),
            ("calibration", self.calibration >= 0, ">= 0"),
            ("count", self.count + self.calibration > 0, "> 0 where calibration is 0"),
            ("size", self.size >= 16, ">= 16"),
            ("noise", self.noise > 0, "> 0"),
        ):
            if not fine:
                raise ValueError(f"{name} must be {rule}, got {getattr(self, name)}")
        for name, given, known in (("kinds", self.kinds, KINDS), ("parts", self.parts, PARTS)):
            for word in given:
                if word not in known:
                    hint = nearest(str(word), known)
                    raise ValueError(f"{name} must be of {', '.join(known)}, got {word!r}{hint}")
            if len(set(given)) < len(given) or not self.parts:
                raise ValueError(f"{name} must name each once, got {', '.join(given)!r}")
        if "texture" in self.kinds and len(preset.textures) < 2:
            raise ValueError(
                f"kinds texture: {self.scenes} scenes have one texture; take crowded ones"
            )
        if "relation" in self.kinds and not preset.relation:
            raise ValueError(
                f"kinds relation: {self.scenes} captions say no relation; take simple ones"
            )
        if self.held_out and not preset.held_out:
            raise ValueError(f"held_out needs crowded scenes: {self.scenes} ones hold nothing out")

    @property
    def drawn_kinds(self) -> tuple[Kind, ...]:
        """The kinds that are drawn."""
        preset = find_preset(self.scenes)
        barred = {"relation"} if not preset.relation else {"texture"}
        return self.kinds or tuple(kind for kind in KINDS if kind not in barred)


@dataclass(frozen=True)
class SceneChange:
    """A scene, and the one that differs from it in one respect.

    Attributes:
        name: of the change; its pairs are drawn together by intervals.
        kind: of the change.
        before: a scene.
        after: the other.
        places: what differs: things, or the background; empty where everything does.
        split: val or test.
        key: of the noise.
    """

    name: str
    kind: Kind
    before: Scene
    after: Scene
    places: tuple[str, ...]
    split: str
    key: tuple[int, ...]

    def pair(self, part: Part, options: ScenePairOptions) -> Record:
        """Return one of its pairs, with picture and masks in memory.

        Args:
            part: see the module.
            options: size, noise and whether captions are held out.
        """
        size = options.size
        shown, said = self._scenes(part)
        wrong = part in ("caption", "image")
        region = self._region(shown, size)
        pixels = shown.render(size)
        changed: np.ndarray | None = changed_pixels(self.before, self.after, size)
        if part == "control":
            pixels, changed = self._redrawn(pixels, region, options.noise), region
        elif not wrong:
            changed = None
        return Record(
            name=f"{self.name}-{part}",
            image=pixels,
            caption=said.caption(),
            label="inconsistent" if wrong else "consistent",
            mask=ArrayMask(region) if wrong else None,
            words=self._words(said, shown) if wrong else (),
            kind=f"held-out {self.kind}" if options.held_out else self.kind,
            edited={"consistent": "none", "caption": "caption"}.get(part, "image"),  # type: ignore[arg-type]
            split=self.split,
            source=self.name,
            changed=None if changed is None else ArrayMask(changed),
            true_caption=shown.caption(),
        )

    def _scenes(self, part: Part) -> tuple[Scene, Scene]:
        """Return the scene that is shown and the one that is told."""
        shown = self.after if part == "image" else self.before
        return shown, self.after if part == "caption" else self.before

    def _region(self, scene: Scene, size: int) -> np.ndarray:
        if not self.places:
            return np.ones((size, size), bool)
        region: np.ndarray = np.any([scene.mask(place, size) for place in self.places], axis=0)
        return region

    def _words(self, said: Scene, shown: Scene) -> tuple[Phrase, ...]:
        if self.kind == "relation":
            return find_word(said.caption(), said.preset.relation)
        return changed_words(said.caption(), shown.caption())

    def _redrawn(self, pixels: np.ndarray, region: np.ndarray, noise: float) -> np.ndarray:
        rng = np.random.default_rng([*self.key, 1])
        noisy = pixels + rng.normal(0, noise, pixels.shape) * region[..., None]
        return noisy.round().clip(0, 255).astype(np.uint8)


def draw_changes(options: ScenePairOptions, seed: int) -> Iterator[SceneChange]:
    """Give random changes, kind by kind; the first of a kind are the same whatever the number.

    Args:
        options: what is drawn.
        seed: >= 0.

    Raises:
        ValueError: such a change cannot be found.
    """
    preset = find_preset(options.scenes)
    counts = dict(zip(SPLITS, (options.count, options.calibration), strict=True))
    for kind in options.drawn_kinds:
        for place, (split, count) in enumerate(counts.items()):
            for number in range(count):
                own = (seed, KINDS.index(kind), place, number)
                before, after, places = _draw(kind, preset, options.held_out, own)
                name = f"{kind}-{split}-{number:04d}"
                yield SceneChange(name, kind, before, after, places, split, own)


def draw_scene_pairs(options: ScenePairOptions, seed: int = 0) -> list[Record]:
    """Return the benchmark in memory.

    Args:
        options: what is drawn.
        seed: >= 0.

    Raises:
        ValueError: such a change cannot be found.
    """
    return [
        change.pair(part, options)
        for change in draw_changes(options, seed)
        for part in options.parts
    ]


def _draw(
    kind: Kind, preset: Preset, held_out: bool, key: tuple[int, ...]
) -> tuple[Scene, Scene, tuple[str, ...]]:
    """Return scenes before and after a change, and the places of what differs."""
    rng = np.random.default_rng([*key, 0])
    for _ in range(_TRIES):
        scene = draw_scene(rng, preset, held_out=held_out)
        facts = _facts(rng, scene, kind, held_out)
        if not facts:
            continue
        after = scene.edited(facts)
        things = [thing for thing in after.things if thing.present]
        if preset.held_out and has_held_out(things, preset) != held_out:
            continue
        places = () if kind == "whole" else tuple(dict.fromkeys(fact.place for fact in facts))
        return scene, after, places
    raise ValueError(f"no {preset.name} scenes found that differ by {kind}")


def _facts(rng: np.random.Generator, scene: Scene, kind: Kind, held_out: bool) -> Sequence[Fact]:
    """Return what makes a change; nothing if the scene does not allow it."""
    if kind == "relation":
        return _swapped(scene)
    if kind == "whole":
        return _all_other(rng, scene)
    wanted = held_out if scene.preset.held_out else None
    try:
        return draw_edits(rng, scene, [kind], held_out=wanted)
    except ValueError:
        return ()


def _swapped(scene: Scene) -> Sequence[Fact]:
    """Return that two things, which differ in all, have changed places."""
    first, second = scene.things
    if first.color == second.color or first.shape == second.shape:
        return ()
    return [
        Fact(at.place, name, getattr(other, name))
        for at, other in ((first, second), (second, first))
        for name in ("color", "shape")
    ]


def _all_other(rng: np.random.Generator, scene: Scene) -> Sequence[Fact]:
    """Return other values of all that is said, which no thing had."""
    preset, things = scene.preset, [thing for thing in scene.things if thing.present]
    facts: list[Fact] = []
    free = {
        name: [word for word in known if word not in {getattr(thing, name) for thing in things}]
        for name, known in (("color", tuple(preset.colors)), ("shape", preset.shapes))
    }
    if not all(free.values()):
        return ()
    for thing in things:
        facts += [Fact(thing.place, name, str(rng.choice(words))) for name, words in free.items()]
        others = [word for word in preset.textures if word != thing.texture]
        facts += [Fact(thing.place, "texture", str(rng.choice(others)))] if others else []
    backgrounds = [word for word in preset.backgrounds if word != scene.background]
    return [*facts, Fact(BACKGROUND, "color", str(rng.choice(backgrounds)))]
