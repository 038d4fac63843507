"""`semforge-synth`: real and altered faces with exact labels, and a report that shows them."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from papercommons.data.images import read_image
from papercommons.report import Result, Section, image_grid_png, write_report

from semforge.fingerprints import TRAIN_FAMILIES, UNSEEN_FAMILIES
from semforge.graph import LabelGraph, as_graph
from semforge.graphing import in_words
from semforge.options import PACKAGE, SynthOptions
from semforge.synthesis import synthesize

LIMITS = (
    "The edits are simple and their traces made up: what a network learns here need not hold for "
    "forgeries of real generators. The faces are those of the people whose pictures were given."
)
SHOWN = 24


def make_faces(
    faces: Sequence[str],
    out: str,
    count: int,
    graph: str,
    size: int,
    seed: int,
    skip_bad: bool,
    overwrite: bool,
    options: SynthOptions,
) -> Result:
    """Make the set, write its report, and return the result.

    Args:
        faces: photographs, videos and folders.
        out: folder.
        count: faces to make.
        graph: ffsc, ffpp or a YAML file.
        size: side of the faces in pixels.
        seed: of everything.
        skip_bad: leave out what cannot be used.
        overwrite: empty `out` first if it holds an earlier run.
        options: what is made.

    Raises:
        DataError: see `semforge.synthesis.synthesize`.
        ValueError: likewise.
    """
    labels = as_graph(graph)
    values = asdict(options)
    for name, usual in (("families", TRAIN_FAMILIES), ("unseen", UNSEEN_FAMILIES)):
        values[name] = usual if values[name] is None else values[name]
    facts = synthesize(
        faces,
        out,
        count,
        graph=labels,
        size=size,
        seed=seed,
        skip_bad=skip_bad,
        overwrite=overwrite,
        **values,
    )
    folder = Path(out)
    people = {split: len(names) for split, names in facts["people"].items()}
    result = Result(
        package=PACKAGE,
        command="semforge-synth",
        title=f"{out}: {count:,} faces of {sum(people.values()):,} people, graph {labels.name}",
        rows=[
            {"method": method, **{split: counts.get(split, 0) for split in people}}
            for method, counts in facts["methods"].items()
        ],
        metrics={
            "people": people,
            "methods": facts["methods"],
            "left_out": len(facts["left_out"]),
        },
        settings={**facts["settings"], "graph": graph, "out": out},
        limits=LIMITS,
        data_hash=facts["data_hash"],
        device="cpu",
        files={"list": str(folder / "list.csv"), "facts": str(folder / "facts.json")},
        notes=[
            f"people: {', '.join(f'{split} {count}' for split, count in people.items())}; nobody "
            "is in two splits",
            *facts["notes"],
            *(f"left out: {name}" for name in facts["left_out"]),
        ],
    )
    with (folder / "list.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    write_report(folder / "report.html", result, [examples(folder, rows, labels)])
    result.save(folder)
    return result


def examples(folder: Path, rows: Sequence[Mapping[str, str]], graph: LabelGraph) -> Section:
    """Return pictures of some faces, each method in turn.

    Args:
        folder: of the set.
        rows: of its list.
        graph: names what the labels say.
    """
    by_method: dict[str, list[Mapping[str, str]]] = {}
    for row in rows:
        by_method.setdefault(row["method"], []).append(row)
    turns = [turn for rank in range(SHOWN) for turn in _rank(by_method, rank)][:SHOWN]
    pictures: list[Any] = [np.asarray(read_image(folder / row["path"])) for row in turns]
    captions = []
    for row in turns:
        label = [int(character == "1") for character in row["label"]]
        words = in_words(graph, label).replace(f"{graph.nodes[0]}, ", "")
        captions.append(f"{row['method']}\n{_wrapped(words)}")
    return Section(
        "Examples",
        figure=image_grid_png(pictures, captions, columns=6),
        caption="How each was made, and its label",
    )


def _rank(by_method: Mapping[str, list[Mapping[str, str]]], rank: int) -> list[Mapping[str, str]]:
    return [rows[rank] for _, rows in sorted(by_method.items()) if len(rows) > rank]


def _wrapped(words: str) -> str:
    """Return names in lines of at most about 24 characters."""
    lines = [""]
    for word in words.split(", "):
        if len(lines[-1]) + len(word) > 22 and lines[-1]:
            lines.append("")
        lines[-1] += f", {word}" if lines[-1] else word
    return "\n".join(lines)
