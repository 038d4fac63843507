"""`d-tiil-predict`: every pair of a data set looked at, by the method or by a baseline."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from papercommons.cli import track
from papercommons.data.defects import DEFECTS, Defect, defect_notes, write_defects
from papercommons.data.images import read_image
from papercommons.errors import DataError, counted
from papercommons.files import (
    hash_files,
    hash_model,
    hash_texts,
    name_outputs,
    prepare_out,
    read_note,
    write_csv,
    write_json,
)
from papercommons.pictures import heat, overlay, side_by_side
from papercommons.report import Result, Section, describe_device, write_report
from PIL import Image

from d_tiil.batch_options import DataOptions, Method
from d_tiil.finding_files import write_findings
from d_tiil.findings import as_bytes, to_size
from d_tiil.localizing import check_made_with
from d_tiil.methods import (
    Answer,
    Finder,
    attention_finder,
    clip_finder,
    empty_finder,
    pipeline_finder,
)
from d_tiil.opening import compute_device, open_pipeline, quantity_hashes, quieten
from d_tiil.options import PACKAGE, Depth, HelperOptions, LocateOptions, ModelOptions
from d_tiil.pair_report import LIMITS
from d_tiil.phrases import Phrase
from d_tiil.records import PairSet, Record
from d_tiil.saved import mask_picture, save_picture
from d_tiil.settings import LocateSettings

log = logging.getLogger("papercommons")

RECORDS = "records"  # folder: what was done, one JSON file per pair
SHOWN = 12  # pairs in the report: the most suspect
_CALLED = {True: "consistent", False: "inconsistent", None: None}
NAME = 50  # characters of a pair's name in those of its files, which must not be too long


def predict_pairs(
    settings: dict[str, Any],
    pairs: PairSet,
    records: Sequence[Record],
    method: LocateSettings,
    depth: Depth,
    save_edited: bool,
    resume: bool,
    overwrite: bool,
    seed: int,
    data: DataOptions,
    how: LocateOptions,
    helpers: HelperOptions,
    where: ModelOptions,
) -> Result:
    """Look at the records of a data set, write the folder of the run, and return the result.

    Args:
        settings: model, data, out and method, and the other words of the command.
        pairs: whose defects are listed.
        records: what is looked at.
        method: the settings that `how` means for the model.
        depth: how far the method goes.
        save_edited: write the edited images too.
        resume: go on with an interrupted run; pairs that are done and unchanged are kept.
        overwrite: empty the folder first.
        seed: of the noise.
        data: what is taken of the data set.
        how: the method's options.
        helpers: models and files beside the model.
        where: where the model runs.

    Raises:
        DataError: the model cannot be used, the run was another one, or no pair can be used.
        ValueError: the device is not there, or an option is out of range.
    """
    model, name = settings["model"], settings["method"]
    weights = None if model is None else hash_model(model)
    ours = weights is not None and name == "d-tiil"
    made_with = quantity_hashes(str(weights), method, helpers, depth) if ours else {}
    find = _finder(name, model, method, depth, seed, how, helpers, where, made_with)
    settings = {**settings, "depth": depth, "seed": seed, "weights": weights}
    for part, given in (("clip", helpers.clip_model), ("inpaint", helpers.inpaint_model)):
        if given is not None:
            settings[f"{part}_hash"] = hash_model(given)
    if helpers.calibration is not None:
        settings["calibration_hash"] = hash_files([helpers.calibration_path])
    settings |= {**asdict(data), **asdict(how), **asdict(helpers), **asdict(where)}
    settings["locate"] = method.to_dict()
    folder = prepare_out(
        settings["out"],
        settings | {"save_edited": save_edited},
        resume=resume,
        overwrite=overwrite,
        may_change=("limit", "kinds", "split", "strict", "check"),
        inputs=["weights", "clip_hash", "inpaint_hash", "calibration_hash", "locate"],
    )
    defects = list(pairs.defects)
    done: list[tuple[Record, dict[str, Any]]] = []
    names = name_outputs((record.name[:NAME] for record in records), empty="pair")
    for record, file in track(list(zip(records, names, strict=True)), "pairs"):
        try:
            note = _look(record, file, find, folder, save_edited)
            done.append((record, {"made_with": made_with, **note}))
        except DataError as error:
            if data.strict:
                raise DataError(f"{record.name}: {error}") from error
            defects.append(Defect(record.name, str(error), "a pair that fits the model", True))
            log.warning("left out: %s", defects[-1])
    if not done:
        raise DataError(f"none of the pairs can be used: {defects[-1]}")
    lines = [_line(record, note) for record, note in done]
    listed = write_findings(folder, lines)
    write_csv(folder / "predictions.csv", [_row(record, note) for record, note in done])
    write_defects(folder, defects)
    result = Result(
        package=PACKAGE,
        command="d-tiil-predict",
        title=f"{settings['data']}: {counted(len(done), 'pair')} looked at by {name}",
        rows=_totals(done),
        metrics={
            "pairs": len(done),
            "left_out": len({defect.record for defect in defects if defect.fatal}),
            "defects": len(defects),
            "network_rows": sum(note.get("network_rows", 0) for _, note in done),
            "seconds": sum(note["seconds"] for _, note in done),
        },
        settings=settings,
        limits=LIMITS,
        data_hash=hash_texts(note["hash"] for _, note in done),
        device=describe_device(compute_device(where)),
        files={
            "findings": str(listed),
            "predictions": str(folder / "predictions.csv"),
            **({"defects": str(folder / DEFECTS)} if defects else {}),
        },
        notes=defect_notes(defects),
    )
    write_report(folder / "report.html", result, _sections(done, folder))
    result.save(folder)
    return result


def _finder(
    name: Method,
    model: str | None,
    method: LocateSettings,
    depth: Depth,
    seed: int,
    how: LocateOptions,
    helpers: HelperOptions,
    where: ModelOptions,
    made_with: Mapping[str, str],
) -> Finder:
    if name == "clip":
        quieten()
        return clip_finder(str(helpers.clip_model), compute_device(where))
    pipe = open_pipeline(str(model), method, how, helpers, where)
    stock: Any = pipe
    stock.set_progress_bar_config(disable=True)  # one bar is enough
    if name == "empty":
        return empty_finder(pipe, seed, where.resize)
    if name == "attention":
        return attention_finder(pipe, seed, where.resize)
    check_made_with(pipe.calibration, made_with, helpers)
    return pipeline_finder(pipe, depth, seed, where.resize)


def _look(
    record: Record, name: str, find: Finder, folder: Path, save_edited: bool
) -> dict[str, Any]:
    """Return what is noted of a record; what is done and unchanged is not done again."""
    note, digest = folder / RECORDS / f"{name}.json", record.digest()
    kept = read_note(note, Path(record.name), digest)
    if kept is not None and _whole(kept, folder):
        return kept
    image = record.open_image()
    started = time.perf_counter()
    found = find(record, image)
    seconds = time.perf_counter() - started
    files = _save(found, name, folder, image, save_edited)
    facts = {
        "path": str(Path(record.name)),
        "hash": digest,
        "seconds": seconds,
        **found.facts,
        "score": found.finding.score,
        "words": _places(found.finding.words),
        "top": None if found.finding.top is None else _place(found.finding.top),
        "mask_share": None if found.finding.mask is None else float(found.finding.mask.mean()),
        "files": files,
        "pictures": hash_files(folder / path for path in files.values()),
    }
    write_json(note, facts)
    return facts


def _whole(kept: Mapping[str, Any], folder: Path) -> bool:
    """Return whether the pictures of a note are as they were written."""
    paths = [folder / path for path in kept.get("files", {}).values()]
    there = all(path.is_file() for path in paths)
    return there and hash_files(paths) == kept.get("pictures")


def _save(
    found: Answer, name: str, folder: Path, image: Image.Image, save_edited: bool
) -> dict[str, str]:
    """Write the pictures of a finding, and return their paths in the folder."""
    pictures: dict[str, Image.Image] = {}
    if found.finding.map is not None:
        pictures["map"] = Image.fromarray(as_bytes(found.finding.map))
    if found.finding.mask is not None:
        mask = to_size(found.finding.mask, (image.height, image.width))
        pictures["mask"] = mask_picture(mask)
    if save_edited and found.edited is not None:
        pictures["edited"] = found.edited
    files = {kind: f"{kind}/{name}.png" for kind in pictures}
    for kind, picture in pictures.items():
        save_picture(folder / files[kind], picture)
    return files


def _place(word: Phrase) -> list[int]:
    return [word.start, word.end]


def _places(words: Sequence[Phrase] | None) -> list[list[int]] | None:
    return None if words is None else [_place(word) for word in words]


def _line(record: Record, note: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record's line in the list of findings."""
    files = note["files"]
    line = {"id": record.name, "caption": record.caption, "score": note["score"]}
    line |= {"map": files.get("map"), "mask": files.get("mask")}
    line |= {"words": note["words"], "top": note["top"]}
    given = {"features": note.get("features"), "made_with": note["made_with"]}
    return line | {name: value for name, value in given.items() if value}


def _row(record: Record, note: Mapping[str, Any]) -> dict[str, Any]:
    said = note["words"]
    return {
        "pair": record.name,
        "label": record.label,
        "kind": record.kind,
        "split": record.split,
        "score": note["score"],
        "prediction": _CALLED[note.get("consistent")],
        "words": None if said is None else "; ".join(record.caption[a:b] for a, b in said),
        "mask_share": note["mask_share"],
        "seconds": note["seconds"],
        **(note.get("features") or {}),
        **note["files"],
    }


def _totals(done: Sequence[tuple[Record, Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Return one line for each label and kind."""
    parts: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for record, note in done:
        parts.setdefault((record.label, record.kind), []).append(note)
    return [
        {
            "label": label,
            "kind": kind or "-",
            "pairs": len(notes),
            "mean score": _mean(notes, "score"),
            "called consistent": _mean(notes, "consistent"),
            "share in masks": _mean(notes, "mask_share"),
            "seconds each": _mean(notes, "seconds"),
        }
        for (label, kind), notes in sorted(parts.items())
    ]


def _mean(notes: Sequence[Mapping[str, Any]], name: str) -> float | None:
    values = [float(note[name]) for note in notes if note.get(name) is not None]
    return sum(values) / len(values) if values else None


def _sections(done: Sequence[tuple[Record, dict[str, Any]]], folder: Path) -> list[Section]:
    """Return the part of a report that shows the most suspect pairs."""
    scored = [entry for entry in done if entry[1]["score"] is not None]
    shown = sorted(scored, key=lambda entry: -entry[1]["score"])[:SHOWN] or list(done[:SHOWN])
    text = "Highest score first." if scored else ""
    return [Section("The most suspect pairs", text=text), *(_shown(*e, folder) for e in shown)]


def _shown(record: Record, note: Mapping[str, Any], folder: Path) -> Section:
    image = record.open_image()
    pictures, files = {"image": image}, note["files"]
    if "mask" in files:
        mask = read_image(folder / files["mask"], convert=_inside)
        pictures["mask"] = overlay(image, mask)
    if "map" in files:
        levels = read_image(folder / files["map"], convert=_grey)
        pictures["map"] = heat(image, levels)
    words = note["words"] or []
    said = [f"words: {', '.join(record.caption[a:b] for a, b in words)}"] if words else []
    score = [] if note["score"] is None else [f"score {note['score']:.4g}"]
    return Section(
        record.name,
        text="; ".join([record.caption, *score, *said, f"label: {record.label}"]),
        figure=side_by_side(list(pictures.values())),
        caption=" | ".join(pictures),
    )


def _grey(image: Any) -> Any:
    return np.asarray(image.convert("L"))


def _inside(image: Any) -> Any:
    return _grey(image) > 127
