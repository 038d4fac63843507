"""The benchmark of `d_tiil.scene_pairs` as a folder that `d_tiil.layouts.open_pairs` reads.

::

    pairs.jsonl                  one line per pair; see `d_tiil.layouts_jsonl`
    images/NAME-{before,after,control}.png
    masks/NAME-{before,after}.png    what contradicts in that picture
    changed/NAME-{pair,control}.png  what differs from the picture of the caption, or was redrawn
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from papercommons.cli import track
from papercommons.errors import DataError
from papercommons.files import atomic_path, hash_files, prepare_out
from papercommons.report import Result, Section, image_grid_png, write_report
from PIL import Image

from d_tiil.layouts_jsonl import PAIRS, as_row, write_pairs
from d_tiil.options import PACKAGE
from d_tiil.records import ArrayMask, Record
from d_tiil.scene_pairs import Part, SceneChange, ScenePairOptions, draw_changes

COMMAND = "d-tiil-make-pairs"
LIMITS = (
    "Made-up scenes of coloured shapes: they show what a method does where the truth is known, and "
    "say nothing about photographs."
)
SHOWN = 12
_IMAGES: dict[Part, str] = {
    "consistent": "before",
    "caption": "before",
    "image": "after",
    "control": "control",
}


def make_scene_pairs(
    out: str, options: ScenePairOptions | None = None, *, seed: int = 0, overwrite: bool = False
) -> Result:
    """Make the benchmark and its report, and return the result.

    Args:
        out: folder.
        options: what is made.
        seed: of scenes and changes, >= 0.
        overwrite: empty the folder first if it holds an earlier run.

    Raises:
        DataError: the folder is not free, or there are no such scenes.
    """
    options = options or ScenePairOptions()
    settings = {**asdict(options), "kinds": list(options.drawn_kinds), "parts": list(options.parts)}
    settings |= {"out": out, "seed": seed}
    try:
        changes = list(draw_changes(options, seed))
    except ValueError as error:
        raise DataError(f"{error}; leave the kind out") from None
    folder = prepare_out(out, settings, overwrite=overwrite)
    rows = list[dict[str, Any]]()
    counts = dict[tuple[str, ...], int]()
    for change in track(changes, "Writing pairs"):
        for part in options.parts:
            record = change.pair(part, options)
            rows.append(_write(folder, change, part, record))
            key = (record.kind, record.edited, record.label, record.split)
            counts[key] = counts.get(key, 0) + 1
    write_pairs(folder / PAIRS, rows)  # last: with it the set is whole
    result = Result(
        package=PACKAGE,
        command=COMMAND,
        title=f"{out}: {len(rows):,} pairs of {options.scenes} scenes and captions",
        rows=[
            dict(zip(("kind", "edited", "label", "split"), key, strict=True)) | {"pairs": number}
            for key, number in sorted(counts.items())
        ],
        metrics={"pairs": len(rows), "changes": len(changes)},
        settings=settings,
        limits=LIMITS,
        data_hash=hash_files([folder / PAIRS]),
        device="cpu",
        files={"pairs": str(folder / PAIRS), "images": str(folder / "images")},
    )
    write_report(folder / "report.html", result, [examples(_spread(changes), options)])
    result.files["report"] = str(folder / "report.html")
    result.save(folder)
    return result


def _write(folder: Path, change: SceneChange, part: Part, record: Record) -> dict[str, Any]:
    """Write the pictures of a pair, unless a pair before had them, and return its line."""
    assert isinstance(record.image, np.ndarray)
    image = f"images/{change.name}-{_IMAGES[part]}.png"
    _save(folder / image, record.image)
    names: dict[str, str | None] = {"mask": None, "changed": None}
    places = {
        "mask": f"masks/{change.name}-{_IMAGES[part]}.png",
        "changed": f"changed/{change.name}-{'control' if part == 'control' else 'pair'}.png",
    }
    for name, mask in (("mask", record.mask), ("changed", record.changed)):
        if isinstance(mask, ArrayMask):
            _save(folder / places[name], mask.values.astype(np.uint8) * 255)
            names[name] = places[name]
    return as_row(record, image=image, **names)


def _save(path: Path, pixels: np.ndarray) -> None:
    if not path.is_file():
        with atomic_path(path) as temporary:
            Image.fromarray(pixels).save(temporary)


def _spread(changes: Sequence[SceneChange]) -> list[SceneChange]:
    """Return some changes, the same number of each kind."""
    kinds = list(dict.fromkeys(change.kind for change in changes))
    each = max(1, SHOWN // len(kinds))
    return [
        change
        for kind in kinds
        for change in [change for change in changes if change.kind == kind][:each]
    ]


def examples(changes: Sequence[SceneChange], options: ScenePairOptions) -> Section:
    """Return the pictures of some inconsistent pairs beside what contradicts in them.

    Args:
        changes: at least one.
        options: sizes.
    """
    pictures, captions = list[np.ndarray](), list[str]()
    for change in changes:
        record = change.pair("caption", options)
        assert isinstance(record.image, np.ndarray)
        size = record.image.shape[:2]
        mask = record.true_mask(size)
        assert mask is not None
        white = np.repeat(mask[..., None], 3, -1).astype(np.uint8) * 255
        width = max(1, size[1] // 32)
        edges = ((width, width), (width, width), (0, 0))
        framed = [np.pad(p, edges, constant_values=128) for p in (record.image, white)]
        pictures.append(np.concatenate(framed, axis=1))
        captions.append(_wrapped(record))
    return Section(
        "Examples",
        figure=image_grid_png(pictures, captions, columns=3),
        caption="Left the picture, right what contradicts the caption; capitals: its wrong words.",
    )


def _wrapped(record: Record) -> str:
    """Return a caption in short lines, with its wrong words in capitals."""
    text, lines = record.caption, [""]
    for wrong in record.words or ():
        text = text[: wrong.start] + wrong.text.upper() + text[wrong.end :]
    for word in text.split():
        if len(lines[-1]) + len(word) > 28:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join([record.kind, *lines])
