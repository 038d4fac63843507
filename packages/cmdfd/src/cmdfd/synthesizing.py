"""`cmdfd-synth`: a corpus of drawn people who talk, and a report that shows it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import numpy as np
from papercommons.report import Result, Section, image_grid_png, write_report
from papercommons.video.clips import read_clip

from cmdfd.corpus import TRAIN_KINDS, UNSEEN_KINDS, Recipe
from cmdfd.corpus_files import write_corpus
from cmdfd.entries import ClipEntry
from cmdfd.kinds import Kind
from cmdfd.lists import read_list
from cmdfd.options import PACKAGE, SynthOptions

LIMITS = (
    "People and mouths are drawn, and voices made by a speech synthesiser: what a network learns "
    "here need not hold for real faces."
)
MEANS = {
    "real": "the mouth says what is heard",
    "lag": "real, the sound 1 or 2 frames early or late",
    "lipsync": "the mouth opens with the loudness, and shows a generator's trace",
    "lipsync_clean": "the same without the trace",
    "rhythm": "other sounds at the right times",
    "swap": "somebody else's voice with other words",
    "shift": "the sound is 6 to 9 frames early or late",
    "partial": "other words in a part of the clip",
}
_STRIP = 8  # frames of a clip that the report shows


def make_corpus(
    out: str,
    count: int,
    kinds: list[str] | None,
    size: int,
    seed: int,
    num_workers: int,
    resume: bool,
    overwrite: bool,
    options: SynthOptions,
) -> Result:
    """Make the corpus, write its report, and return the result.

    Args:
        out: folder.
        count: clips.
        kinds: of all splits.
        size: side of the pictures.
        seed: of everything.
        num_workers: processes.
        resume: go on with an interrupted run.
        overwrite: empty `out` first if it holds an earlier run.
        options: what is made.

    Raises:
        ValueError: see `cmdfd.corpus.Recipe`.
        DataError: see `cmdfd.corpus_files.write_corpus`.
    """
    facts = write_corpus(
        out,
        recipe_of(count, kinds, size, seed, options),
        num_workers=num_workers,
        resume=resume,
        overwrite=overwrite,
    )
    folder = Path(out)
    people = {split: len(names) for split, names in facts["people"].items()}
    made = sum(sum(counts.values()) for counts in facts["methods"].values())
    result = Result(
        package=PACKAGE,
        command="cmdfd-synth",
        title=f"{out}: {made:,} clips of {sum(people.values()):,} people, "
        f"{facts['seconds']:,.0f} s",
        rows=[
            {"kind": kind, **counts, "what": MEANS[kind]}
            for kind, counts in facts["methods"].items()
        ],
        metrics={
            "clips": made,
            "people": people,
            "kinds": facts["methods"],
            "seconds": facts["seconds"],
        },
        settings={**facts["settings"], "out": out},
        limits=LIMITS,
        data_hash=facts["data_hash"],
        device="cpu",
        files={"list": str(folder / "list.csv"), "facts": str(folder / "facts.json")},
        notes=[
            f"people: {', '.join(f'{split} {count}' for split, count in people.items())}; nobody "
            "is in two splits",
            "picture and sound of every clip are equally long",
        ],
    )
    write_report(folder / "report.html", result, [examples(folder)])
    result.save(folder)
    return result


def recipe_of(
    count: int, kinds: list[str] | None, size: int, seed: int, options: SynthOptions
) -> Recipe:
    """Return the recipe that options mean, see `cmdfd.corpus.Recipe`.

    Args:
        count: clips.
        kinds: of all splits; None is the usual ones.
        size: side of the pictures.
        seed: of everything.
        options: the rest.

    Raises:
        ValueError: see `cmdfd.corpus.Recipe`, by the names of the options.
    """
    values: dict[str, Any] = asdict(options)
    unseen = UNSEEN_KINDS if options.unseen is None else options.unseen
    chosen = TRAIN_KINDS if kinds is None else kinds
    values["unseen"] = () if list(unseen) == ["none"] else tuple(cast(list[Kind], unseen))
    for name, usual in (("seconds", (2.0, 4.0)), ("quality", (18, 28))):
        values[name] = usual if values[name] is None else tuple(values[name])
    try:
        return Recipe(
            count=count, kinds=tuple(cast(list[Kind], chosen)), size=size, seed=seed, **values
        )
    except ValueError as error:
        name, space, rule = str(error).partition(" ")
        option = f"--{name.replace('_', '-')}" if name in Recipe.__annotations__ else name
        raise ValueError(option + space + rule) from None


def examples(folder: Path) -> Section:
    """Return frames of the first clip of each kind.

    Args:
        folder: of the corpus.
    """
    first: dict[str, ClipEntry] = {}
    for entry in read_list(folder / "list.csv"):
        first.setdefault(entry.method, entry)
    pictures: list[np.ndarray] = []
    captions: list[str] = []
    for method, entry in first.items():
        frames = read_clip(entry.video, sample_rate=None, common=False).frames
        begin = len(frames) // 3
        strip = frames[begin : begin + _STRIP]
        pictures += list(strip)
        captions += [method, *[""] * (len(strip) - 1)]
    return Section(
        "Examples",
        figure=image_grid_png(pictures, captions, columns=_STRIP),
        caption="Frames that follow each other, one clip of each kind",
    )
