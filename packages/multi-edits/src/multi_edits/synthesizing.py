"""A benchmark of scenes: pictures, prompts, masks and the exact edited pictures.

Records are as PIE-Bench++ has them; `multi_edits.benchmark.open_benchmark` reads the folder::

    mapping_file.json                       id -> source_prompt, target_prompt, edit_action, ...
    annotation_images/CATEGORY/ID.png       the pictures
    targets/CATEGORY/ID.png                 as they should look after the edits
    scenes.json                             id -> what is true, and what the edits make true
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from papercommons.data.scenes import (
    Fact,
    Scene,
    changed_pixels,
    draw_edits,
    draw_scene,
    find_preset,
)
from papercommons.errors import DataError
from papercommons.files import atomic_path, hash_files, prepare_out, write_json
from papercommons.report import Result, Section, image_grid_png, write_report
from PIL import Image

from multi_edits.benchmark import CATEGORIES, encode_mask
from multi_edits.edits import Edit, apply_edits
from multi_edits.options import PACKAGE, SceneSetOptions
from multi_edits.scene_edits import EDIT_TYPES, scene_edits

LIMITS = (
    "Made-up scenes of coloured shapes: they show what a method does where the truth is known, and "
    "say nothing about photographs."
)
TRIES = 100
SHOWN = 12
HELD_OUT = {"no": False, "yes": True, "any": None}


class EditedScene(NamedTuple):
    """A scene and what is asked of it.

    Attributes:
        before: the scene.
        facts: what the edits make true.
        edits: the same in words, of its caption.
    """

    before: Scene
    facts: tuple[Fact, ...]
    edits: tuple[Edit, ...]

    @property
    def after(self) -> Scene:
        """The scene with all edits made."""
        return self.before.edited(self.facts)

    @property
    def category(self) -> str:
        """Folder of its record: its kind of edit, or the mixed one."""
        kinds = {fact.kind for fact in self.facts}
        return CATEGORIES[EDIT_TYPES[kinds.pop()] if len(kinds) == 1 else 0]


def draw_edited_scenes(options: SceneSetOptions, seed: int) -> Iterator[EditedScene]:
    """Give random scenes with random edits, no two of a scene to the same words.

    Args:
        options: what is drawn.
        seed: >= 0; the first n are the same whatever the number.

    Raises:
        DataError: such edits cannot be found.
    """
    preset, rng = find_preset(options.scenes), np.random.default_rng(seed)
    for number in range(options.count):
        count = options.edits[number % len(options.edits)]
        for _ in range(TRIES):
            scene = draw_scene(rng, preset)
            kinds = [str(kind) for kind in rng.choice(options.drawn_kinds, size=count)]
            try:
                facts = draw_edits(rng, scene, kinds, held_out=HELD_OUT[options.held_out])
            except ValueError:
                continue
            edits = scene_edits(scene, facts)
            if len({edit.name for edit in edits}) == count:
                yield EditedScene(scene, facts, tuple(edits))
                break
        else:
            raise DataError(
                f"no scene found with {count} edits of {', '.join(options.drawn_kinds)}; take "
                "fewer --edits or more --kinds"
            )


def as_record(edited: EditedScene, name: str, size: int) -> dict[str, Any]:
    """Return the record of PIE-Bench++ as plain values.

    Args:
        edited: what it is about.
        name: its id.
        size: side of its picture in pixels.
    """
    actions, mapping = dict[str, Any](), dict[str, list[str]]()
    after = edited.after
    for fact, edit in zip(edited.facts, edited.edits, strict=True):
        action = {"swap": edit.old, "add": "+", "delete": "-"}[edit.action]
        actions[edit.name] = {
            "position": edit.position,
            "edit_type": EDIT_TYPES[fact.kind],
            "action": action,
        }
        if edit.object:
            thing = after.thing(fact.place)
            mapping.setdefault(f"{thing.shape} {fact.place}", []).append(edit.name)
    mask = changed_pixels(edited.before, after, size)
    return {
        "image_path": f"{edited.category}/{name}.png",
        "source_prompt": edited.before.caption(),
        "target_prompt": bracketed(edited.before.caption(), edited.edits),
        "edit_action": actions,
        "aspect_mapping": mapping,
        "blended_words": [],
        "mask": encode_mask(mask),
        "mask_size": [size, size],
    }


def bracketed(source: str, edits: Sequence[Edit]) -> str:
    """Return the target prompt with brackets around all that is new.

    Args:
        source: prompt of the scene.
        edits: at their places in it.

    Example:
        >>> bracketed("a cat on a chair", [Edit("cat", "red dog", 1), Edit("", "old", 4)])
        'a [red dog] on a [old] chair'
    """
    state = apply_edits(source, edits)
    words = list(state.words)
    for first, count in state.places:
        if count:
            words[first] = f"[{words[first]}"
            words[first + count - 1] += "]"
    return " ".join(words)


def make_scene_set(out: str, options: SceneSetOptions, seed: int, overwrite: bool) -> Result:
    """Make a benchmark of scenes, its report, and return the result.

    Args:
        out: folder.
        options: what is made.
        seed: of scenes and edits.
        overwrite: empty the folder first if it holds an earlier run.

    Raises:
        DataError: the folder is not free, or no scene allows the edits.
    """
    settings = {**asdict(options), "out": out, "seed": seed}
    scenes = list(draw_edited_scenes(options, seed))
    folder = prepare_out(out, settings, overwrite=overwrite)
    digits = max(4, len(str(options.count - 1)))
    names = [f"{number:0{digits}d}" for number in range(len(scenes))]
    records, facts = dict[str, Any](), dict[str, Any]()
    for name, edited in zip(names, scenes, strict=True):
        record = records[name] = as_record(edited, name, options.size)
        facts[name] = {
            "preset": options.scenes,
            "before": [list(fact) for fact in edited.before.facts()],
            "edits": [list(fact) for fact in edited.facts],
            "things": [asdict(thing) for thing in edited.before.things],
            "background": edited.before.background,
        }
        for place, scene in (("annotation_images", edited.before), ("targets", edited.after)):
            _save(folder / place / record["image_path"], scene.render(options.size))
    write_json(folder / "scenes.json", facts)
    write_json(folder / "mapping_file.json", records)  # last: with it the set is whole
    counts: dict[tuple[str, int], int] = {}
    for edited in scenes:
        key = edited.category, len(edited.edits)
        counts[key] = counts.get(key, 0) + 1
    result = Result(
        package=PACKAGE,
        command="multi-edits-make-scenes",
        title=f"{out}: {len(scenes):,} {options.scenes} scenes with edits",
        rows=[
            {"category": category, "edits": count, "records": number}
            for (category, count), number in sorted(counts.items())
        ],
        metrics={"records": len(scenes), "edits": sum(len(edited.edits) for edited in scenes)},
        settings=settings,
        limits=LIMITS,
        data_hash=hash_files([folder / "mapping_file.json"]),
        device="cpu",
        files={"records": str(folder / "mapping_file.json"), "targets": str(folder / "targets")},
    )
    write_report(folder / "report.html", result, [examples(scenes[:SHOWN], options.size)])
    result.save(folder)
    return result


def examples(scenes: Sequence[EditedScene], size: int) -> Section:
    """Return pictures of some scenes before and after, and their edits in words.

    Args:
        scenes: at least one.
        size: side of the pictures in pixels.
    """
    pictures, captions = list[np.ndarray](), list[str]()
    for edited in scenes:
        gap = np.full((size, max(1, size // 16), 3), 255, np.uint8)
        both = [edited.before.render(size), gap, edited.after.render(size)]
        pictures.append(np.concatenate(both, axis=1))
        lines = [str(edit) for edit in edited.edits]
        captions.append("\n".join([*lines[:3], *(["..."] if len(lines) > 3 else [])]))
    return Section(
        "Examples",
        figure=image_grid_png(pictures, captions, columns=3),
        caption="Left the picture, right what the edits should make of it.",
    )


def _save(path: Path, pixels: np.ndarray) -> None:
    with atomic_path(path) as temporary:
        Image.fromarray(pixels).save(temporary)
