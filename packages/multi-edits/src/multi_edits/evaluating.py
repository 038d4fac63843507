"""`multi-edits-eval`: edited images measured against a benchmark, editor against editor."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

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
from papercommons.report import Result, Section, describe_device, write_report
from PIL import Image

from multi_edits.benchmark import Benchmark, Record
from multi_edits.edited_sets import EditedSet, find_edited
from multi_edits.editors import fit_size
from multi_edits.evaluation import Measured, Tables, known_columns
from multi_edits.gallery import Entry, Gallery, show_pair
from multi_edits.metrics import MetricModels, load_models, measure_edit
from multi_edits.opening import compute_device
from multi_edits.options import PACKAGE, ModelOptions
from multi_edits.scene_truth import FACTS, SceneTruth, judge_scene, read_truth

log = logging.getLogger("papercommons")

MEASURED = "measured"  # folder: what was measured, one JSON file per edited image
LIMITS = (
    "CLIP, DINO and LPIPS judge as networks do, not as people; values depend on the weights that "
    "were given. Intervals are 95 % over resampled records: they do not cover other seeds, "
    "settings or models."
)


class Judge(NamedTuple):
    """What measures edited images.

    Attributes:
        data: of the benchmark.
        models: networks of the metrics.
        truths: of scenes, by id; empty for photographs.
    """

    data: str
    models: MetricModels
    truths: Mapping[str, SceneTruth]

    def measure(self, record: Record, edited: Image.Image) -> dict[str, float | None]:
        """Return all measures of one edited image, of any size."""
        source = record.open_image()
        image = fit_size(edited, source.size)
        values = measure_edit(record, source, image, self.models)
        if record.id in self.truths:
            values |= judge_scene(record, self.truths[record.id], image, self.data)
        return values


def evaluate_edits(
    settings: dict[str, Any],
    benchmark: Benchmark,
    records: Sequence[Record],
    folders: Mapping[str, Path],
    sort_by: str | None,
    bootstrap: int,
    strict: bool,
    resume: bool,
    overwrite: bool,
    seed: int,
    where: ModelOptions,
) -> Result:
    """Measure edited images, write the folder of the run, and return the result.

    Args:
        settings: data, edited and out, the weights, and the other words of the command.
        benchmark: whose defects are listed.
        records: that are judged; of these, what all folders have.
        folders: of edited images, by label.
        sort_by: the measure that orders the gallery; chosen if None.
        bootstrap: resamples.
        strict: refuse a missing edited image, or one of another size.
        resume: go on with an interrupted run.
        overwrite: empty the folder first.
        seed: of the resampling.
        where: device of the metrics' networks.

    Raises:
        DataError: a folder lacks the images, weights cannot be used, or the run was another one.
        ValueError: there is no such measure.
    """
    sets = [find_edited(label, folder, records) for label, folder in folders.items()]
    defects = [*benchmark.defects, *_missing(sets, records)]
    _refuse(defects[len(benchmark.defects) :], strict)
    common = [record for record in records if all(record.key in s.files for s in sets)]
    if not common:
        raise DataError("--edited: the folders share no record; nothing to compare")
    truths = read_truth(settings["data"])
    device = compute_device(where)
    weights = {name: settings[name] for name in ("clip", "dino", "lpips")}
    models = load_models(**weights, device=device, dino_range=settings["dino_range"])
    judge = Judge(settings["data"], models, truths)
    columns = known_columns(models.unavailable, scenes=bool(truths))
    if sort_by is not None and sort_by not in [column.name for column in columns]:
        names = ", ".join(column.name for column in columns)
        raise ValueError(f"--sort-by {sort_by}: is not measured here; there are {names}")
    settings |= {"weights": {name: _hash(given) for name, given in weights.items()}}
    truth = Path(settings["data"]) / FACTS
    settings |= {"truth": hash_files([truth])} if truths else {}
    settings |= {
        "sort_by": sort_by,
        "bootstrap": bootstrap,
        "seed": seed,
        "accelerator": where.accelerator,
    }
    folder = None
    if settings["out"] is not None:
        changing = ("limit", "categories", "bootstrap", "sort_by", "seed")
        folder = prepare_out(
            settings["out"],
            settings,
            resume=resume,
            overwrite=overwrite,
            may_change=changing,
            inputs=["weights", "truth"],
        )
    measured, digests = list[Measured](), list[str]()
    files = name_outputs((record.key for record in common), empty="record")
    for part, label in zip(sets, name_outputs(folders, empty="edited"), strict=True):
        rows = []
        for record, file in track(list(zip(common, files, strict=True)), part.label):
            place = None if folder is None else folder / MEASURED / label / f"{file}.json"
            values, problem, digest = _measure(record, part, judge, place)
            if problem is not None:
                defects.append(problem)
                _refuse([problem], strict)
            digests.append(digest)
            rows.append(values)
        measured.append(Measured(part.label, rows))
    tables = Tables(measured, columns, bootstrap, seed)
    result = Result(
        package=PACKAGE,
        command="multi-edits-eval",
        title=f"{settings['data']}: {len(common):,} records, {', '.join(folders)}",
        rows=tables.overall(),
        metrics={
            "records": len(common),
            "left_out": len(records) - len(common),
            "defects": len(defects),
            "edited": {part.label: tables.means(part.label) for part in measured},
            "unavailable": models.unavailable,
        },
        settings=settings,
        limits=LIMITS,
        data_hash=hash_texts(digests),
        device=describe_device(device),
        notes=[*_unavailable_notes(models), *defect_notes(defects)],
    )
    if folder is not None:
        _write(folder, result, defects, tables, _gallery(common, sets, tables, sort_by))
    return result


def _hash(given: str | None) -> str | None:
    if given is None:
        return None
    return hash_files([given]) if Path(given).is_file() else hash_model(given)


def _refuse(defects: Sequence[Defect], strict: bool) -> None:
    if strict and defects:
        raise DataError(f"{defects[0]} ({len(defects)} in all); leave out --strict to go on")


def _missing(sets: Iterable[EditedSet], records: Sequence[Record]) -> list[Defect]:
    """Return a defect for each record that a folder has no image of; it is not judged."""
    return [
        Defect(record.key, f"{part.folder} has no edited image", f"{record.key}.png", True)
        for part in sets
        for record in records
        if record.key not in part.files
    ]


def _measure(
    record: Record, part: EditedSet, judge: Judge, note: Path | None
) -> tuple[dict[str, Any], Defect | None, str]:
    """Return what is measured of an edited image, what is wrong with it, and its hash."""
    path = part.files[record.key]
    digest = hash_texts([record.digest(), hash_files([path])])
    kept = None if note is None else read_note(note, path, digest)
    if kept is None:
        edited = read_image(path)
        kept = {"path": str(path), "hash": digest, "size": list(edited.size)}
        kept["values"] = judge.measure(record, edited)
        if note is not None:
            write_json(note, kept)
    problem = None
    if record.mask_runs is not None and kept["size"] != list(record.mask_size[::-1]):
        width, height = kept["size"]
        what = f"{path} has {height} x {width} pixels and was resized"
        problem = Defect(record.key, what, f"{record.mask_size[0]} x {record.mask_size[1]}")
    facts = {
        "record": record.key,
        "category": record.category or "-",
        "edits": len(record.edits),
        "background": "kept" if record.has_background else "edited, or not known",
    }
    return {**facts, **kept["values"]}, problem, digest


def _unavailable_notes(models: MetricModels) -> list[str]:
    reasons: dict[str, list[str]] = {}
    for name, why in models.unavailable.items():
        reasons.setdefault(why, []).append(name)
    return [f"not measured: {', '.join(names)}: {why}" for why, names in reasons.items()]


def _gallery(
    records: Sequence[Record],
    sets: Sequence[EditedSet],
    tables: Tables,
    sort_by: str | None,
) -> Gallery:
    column = tables.sorting(sort_by)
    entries = []
    for place, record in enumerate(records):
        scores = {part.label: part.rows[place].get(column.name) for part in tables.measured}
        first = scores[sets[0].label]
        shown = [
            f"{label}: {column.title} {value * column.factor:.1f}"
            for label, value in scores.items()
            if value is not None
        ]
        text = "; ".join([f"{record.source} -> {record.target}", *shown])
        score = None if first is None else (first if column.better == "high" else -first)
        entries.append(Entry(record.key, text, _pictures(record, sets), score))
    first_of = f" of {sets[0].label}" if len(sets) > 1 else ""
    return Gallery(entries, by=f"faithfulness ({column.title}{first_of})")


def _pictures(record: Record, sets: Sequence[EditedSet]) -> Any:
    def show() -> Mapping[str, Any]:
        source = record.open_image()
        edited = {
            part.label: fit_size(read_image(part.files[record.key]), source.size) for part in sets
        }
        return show_pair(source, edited, record.mask)

    return show


def _write(
    folder: Path, result: Result, defects: Sequence[Defect], tables: Tables, gallery: Gallery
) -> None:
    write_csv(folder / "items.csv", tables.all_rows())
    write_csv(folder / "summary.csv", tables.summaries())
    write_defects(folder, defects)
    result.files |= {
        "items": str(folder / "items.csv"),
        "summary": str(folder / "summary.csv"),
        **({"defects": str(folder / DEFECTS)} if defects else {}),
    }
    gallery.write_pages(folder, result)
    sections: list[Section] = [*tables.sections(), *gallery.sections()]
    write_report(folder / "report.html", result, sections)
    result.save(folder)
