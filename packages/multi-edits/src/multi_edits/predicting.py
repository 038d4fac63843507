"""`multi-edits-predict`: every record of a benchmark edited, by the method or by a baseline."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from papercommons.cli import track
from papercommons.data.defects import DEFECTS, Defect, defect_notes, write_defects
from papercommons.data.images import read_image
from papercommons.errors import DataError
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
from papercommons.report import Result, describe_device, write_report

from multi_edits.benchmark import EDIT_TYPES, Benchmark, Record
from multi_edits.edited_image import LIMITS
from multi_edits.edited_sets import LIST
from multi_edits.editors import Editor
from multi_edits.gallery import Entry, Gallery, show_pair
from multi_edits.metrics import measure_edit
from multi_edits.opening import open_pipeline
from multi_edits.options import PACKAGE, ModelOptions, Save
from multi_edits.saved import save_picture

log = logging.getLogger("papercommons")

RECORDS = "records"  # folder: what was done, one JSON file per record
EDITED = "edited"  # folder: the edited images, of the records' own sizes
PICTURES = "pictures"  # folder: branches, masks and maps, one folder per record


def predict_benchmark(
    settings: Mapping[str, Any],
    benchmark: Benchmark,
    records: Sequence[Record],
    editor: Editor,
    save: Save,
    strict: bool,
    resume: bool,
    overwrite: bool,
    where: ModelOptions,
) -> Result:
    """Edit the records of a benchmark, write the folder of the run, and return the result.

    Args:
        settings: model, data and out, and the other words of the command.
        benchmark: whose defects are listed.
        records: what is edited.
        editor: how.
        save: the edited images alone, or all pictures of how they came about.
        strict: stop at a record that cannot be edited, instead of leaving it out.
        resume: go on with an interrupted run; records that are done and unchanged are kept.
        overwrite: empty the folder first.
        where: where the model runs.

    Raises:
        DataError: the model cannot be used, the run was another one, or no record can be edited.
        ValueError: the device is not there, or an option is out of range.
    """
    weights = hash_model(settings["model"])
    pipe: Any = open_pipeline(settings["model"], where)
    settings = {**settings, "weights": weights, **editor.settings(), **asdict(where)}
    folder = prepare_out(
        settings["out"],
        {**settings, "save": save},
        resume=resume,
        overwrite=overwrite,
        may_change=("limit", "categories"),
        inputs=["weights"],
    )
    defects = list(benchmark.defects)
    done: list[tuple[Record, dict[str, Any]]] = []
    names = name_outputs((record.key for record in records), empty="record")
    for record, name in track(list(zip(records, names, strict=True)), "records"):
        try:
            done.append((record, _edit_record(record, name, pipe, editor, folder, save)))
        except DataError as error:
            if strict:
                raise DataError(f"{record.key}: {error}") from error
            defects.append(Defect(record.key, str(error), "a record that fits the model", True))
            log.warning("left out: %s", defects[-1])
    if not done:
        raise DataError(f"none of the records can be edited: {defects[-1]}")
    rows = [_row(record, note) for record, note in done]
    write_csv(folder / "predictions.csv", rows)
    write_defects(folder, defects)
    write_json(folder / LIST, {record.key: note["edited"] for record, note in done})
    left_out = len({defect.record for defect in defects if defect.fatal})
    result = Result(
        package=PACKAGE,
        command="multi-edits-predict",
        title=f"{settings['data']}: {len(done):,} records edited by {editor.method}",
        rows=_by_category(rows),
        metrics={
            "records": len(done),
            "left_out": left_out,
            "defects": len(defects),
            "network_rows": sum(row["network_rows"] for row in rows),
            "seconds": sum(row["seconds"] for row in rows),
        },
        settings=settings,
        limits=LIMITS,
        data_hash=hash_texts(note["hash"] for _, note in done),
        device=describe_device(pipe._execution_device),
        files={
            "edited": str(folder / EDITED),
            "predictions": str(folder / "predictions.csv"),
            **({"defects": str(folder / DEFECTS)} if defects else {}),
        },
        notes=defect_notes(defects),
    )
    entries = [_entry(record, note, folder) for record, note in done]
    gallery = Gallery(entries, by="background PSNR")
    gallery.write_pages(folder, result)
    write_report(folder / "report.html", result, gallery.sections())
    result.save(folder)
    return result


def _edit_record(
    record: Record, name: str, pipe: Any, editor: Editor, folder: Path, save: Save
) -> dict[str, Any]:
    """Return what is noted of an edited record; what is done and unchanged is not done again."""
    path, note = folder / EDITED / f"{name}.png", folder / RECORDS / f"{name}.json"
    digest = record.digest()
    kept = read_note(note, Path(record.key), digest)
    if kept is not None and path.is_file() and hash_files([path]) == kept.get("picture"):
        return kept
    pictures = folder / PICTURES / name if save == "all" else None
    image = record.open_image()
    edited, facts = editor.edit(pipe, record, image, pictures)
    save_picture(path, edited)
    measured = measure_edit(record, image, edited)
    facts |= {
        "path": str(Path(record.key)),
        "hash": digest,
        "edited": str(path.relative_to(folder)),
        "picture": hash_files([path]),
        "background_psnr": measured["background_psnr"],
    }
    write_json(note, facts)
    return facts


def _row(record: Record, note: Mapping[str, Any]) -> dict[str, Any]:
    groups = note.get("groups")
    return {
        "record": record.key,
        "category": record.category,
        "edits": len(record.edits),
        "types": " ".join(EDIT_TYPES[kind] for kind in record.types),
        **({} if groups is None else {"groups": " ".join(group["kind"] for group in groups)}),
        "background_psnr": note["background_psnr"],
        "network_rows": note["network_rows"],
        "seconds": note["seconds"],
        "file": note["edited"],
    }


def _by_category(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return one line for each category, and one for all if there are several."""
    parts: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        parts.setdefault(row["category"], []).append(row)
    lines = [("all", rows)] if len(parts) > 1 else []
    return [_totals(name, part) for name, part in [*lines, *sorted(parts.items())]]


def _totals(category: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    kept = [row["background_psnr"] for row in rows if row["background_psnr"] is not None]
    return {
        "category": category or "-",
        "records": len(rows),
        "edits": sum(row["edits"] for row in rows),
        "background PSNR (dB)": sum(kept) / len(kept) if kept else None,
        "network rows each": sum(row["network_rows"] for row in rows) / len(rows),
        "seconds each": sum(row["seconds"] for row in rows) / len(rows),
    }


def _entry(record: Record, note: Mapping[str, Any], folder: Path) -> Entry:
    def pictures() -> Mapping[str, Any]:
        edited = read_image(folder / note["edited"])
        return show_pair(record.open_image(), {"edited": edited}, record.mask)

    score = note["background_psnr"]
    kinds = [f"{g['kind']} ({len(g['edits'])})" for g in note.get("groups", ())]
    parts = [f"{record.source} -> {record.target}"]
    parts += [f"branches (edits): {', '.join(kinds)}"] if kinds else []
    parts += [] if score is None else [f"background PSNR {score:.1f} dB"]
    return Entry(record.key, "; ".join(parts), pictures, score)
