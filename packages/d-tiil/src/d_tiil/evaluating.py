"""`d-tiil-eval`: findings measured against the truth, method against method."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from papercommons.data.defects import DEFECTS, Defect, defect_notes, write_defects
from papercommons.errors import DataError
from papercommons.files import hash_files, prepare_out, write_csv
from papercommons.pictures import outline, overlay, side_by_side
from papercommons.report import Result, Section, write_report

from d_tiil.baselines import full_baseline, random_baseline
from d_tiil.evaluation import Judgement, comparison, sections
from d_tiil.finding_files import FINDINGS, FindingSet
from d_tiil.findings import Finding, to_size
from d_tiil.measures import Measured, judge_all
from d_tiil.options import PACKAGE
from d_tiil.pictures import marked
from d_tiil.records import PairSet, Record
from d_tiil.set_measures import fit_threshold, with_best
from d_tiil.word_scores import WordScore

Find = Callable[[Record], Finding]
FULL, RANDOM = "full mask", "random"  # labels of the trivial methods
SHOWN = 6  # best and as many worst pairs in the report
LIMITS = (
    "Intervals are 95 % over resampled sources: they do not cover other seeds, settings, models or "
    "data. IoU at the best threshold on these very pairs flatters. A method is only worth what it "
    "has above the full mask and the random one."
)


def evaluate_findings(
    settings: dict[str, Any],
    pairs: PairSet,
    records: Sequence[Record],
    other: Sequence[Record],
    folders: Mapping[str, Path],
    trivial: bool,
    threshold: float,
    bootstrap: int,
    strict: bool,
    overwrite: bool,
    seed: int,
) -> Result:
    """Measure findings, write the folder of the run, and return the result.

    Args:
        settings: data, predicted and out (None: nothing is written), and the command's other words.
        pairs: whose defects are listed.
        records: that are judged; of these, what all folders have.
        other: records of another split, that thresholds are fitted on; empty: none are.
        folders: of findings, by label.
        trivial: judge the full mask and random guesses too.
        threshold: on maps where there is no mask and no other split.
        bootstrap: resamples.
        strict: refuse a pair without a finding.
        overwrite: empty the folder first.
        seed: of the resampling, and of random guesses.

    Raises:
        DataError: a folder cannot be used, has none of the pairs, or a pair lacks a label.
    """
    for label in (FULL, RANDOM):
        if trivial and label in folders:
            raise DataError(f"--predicted: {label!r} is judged already; give NAME=FOLDER")
    sets = [FindingSet.open(label, folder) for label, folder in folders.items()]
    defects = list(pairs.defects)
    judged = _common(sets, records, defects, strict)
    fitting = _common(sets, other, defects, strict) if other else []
    finders: dict[str, Find] = {part.label: part.finding for part in sets}
    if trivial:
        finders |= {FULL: full_baseline, RANDOM: random_baseline(seed)}
    judgements = []
    for label, find in finders.items():
        cut, level = _fitted(find, fitting, threshold, label)
        measured = judge_all(find, judged, threshold=level, label=label)
        judgements.append(Judgement.of(label, measured, threshold=cut, draws=bootstrap, seed=seed))
    result = Result(
        package=PACKAGE,
        command="d-tiil-eval",
        title=f"{settings['data']}: {len(judged):,} pairs, {', '.join(folders)}",
        rows=comparison(judgements),
        metrics={
            "pairs": len(judged),
            "left_out": len({defect.record for defect in defects if defect.fatal}),
            "defects": len(defects),
            "methods": {judgement.method: judgement.numbers() for judgement in judgements},
        },
        settings=settings,
        limits=LIMITS,
        data_hash=hash_files([part.folder / FINDINGS for part in sets]),
        device="cpu",
        notes=[*judgements[0].notes(), *defect_notes(defects)],
    )
    if settings["out"] is None:
        return result
    folder = prepare_out(settings["out"], settings, overwrite=overwrite)
    write_csv(folder / "items.csv", [row for j in judgements for row in j.item_rows()])
    write_csv(folder / "summary.csv", [row for j in judgements for row in j.long_table()])
    write_defects(folder, defects)
    names = ["items.csv", "summary.csv", *([DEFECTS] if defects else [])]
    result.files |= {Path(name).stem: str(folder / name) for name in names}
    gallery = _gallery(judged, judgements[0], sets)
    write_report(folder / "report.html", result, [*sections(judgements), *gallery])
    result.save(folder)
    return result


def _common(
    sets: Sequence[FindingSet], records: Sequence[Record], defects: list[Defect], strict: bool
) -> list[Record]:
    """Return the labelled records that all sets have, and note what is wrong with others.

    Raises:
        DataError: no record is left; or, with `strict`, a record is not as it should be.
    """
    good = []
    for record in records:
        lacks = [defect for part in sets if (defect := part.lacks(record)) is not None]
        if record.inconsistent is None:
            lacks = [
                Defect(record.name, "no label", "0 or 1: only labelled pairs are judged", True)
            ]
        lacks = lacks or unreadable(record)
        if strict and lacks:
            raise DataError(f"{lacks[0]}; leave out --strict to go on")
        defects += lacks
        good += [] if lacks else [record]
    if not good:
        raise DataError(
            f"--predicted: no labelled pair is in all folders; the first: {defects[-1]}"
        )
    return good


def unreadable(record: Record) -> list[Defect]:
    """Return what is wrong if the image or a mask of a record cannot be read, else nothing."""
    try:
        image = record.open_image()
        for mask in (record.mask, record.changed):
            if mask is not None:
                mask.read((image.height, image.width))
    except DataError as error:
        return [Defect(record.name, str(error), "a readable image and masks of its size", True)]
    return []


def _fitted(
    find: Find, fitting: Sequence[Record], threshold: float, label: str
) -> tuple[float | None, float]:
    """Return thresholds of the score and of the map, from pairs of another split."""
    if not fitting:
        return None, threshold
    measured = judge_all(find, fitting, threshold=threshold, label=f"{label}, thresholds")
    level = map_threshold(measured)
    rows = [one.row for one in measured]
    scored = {row["inconsistent"] for row in rows if row["score"] is not None}
    return fit_threshold(rows) if len(scored) > 1 else None, level or threshold


def map_threshold(measured: Sequence[Measured]) -> float | None:
    """Return the threshold on maps of highest mean IoU, in (0, 1); None where there are no masks.

    Args:
        measured: of `d_tiil.measures.judge_all`.
    """
    _, best = with_best(measured)
    return max(best["iou"], 0.5 / 255) if "iou" in best else None


def _gallery(
    records: Sequence[Record], judgement: Judgement, sets: Sequence[FindingSet]
) -> list[Section]:
    """Return the pairs that the first method located best and worst, with all methods' masks."""
    by_name = {record.name: record for record in records}
    scored = sorted(
        (row for row in judgement.rows if row.get("iou") is not None), key=lambda row: -row["iou"]
    )
    if not scored:
        return []
    best, worst = scored[:SHOWN], scored[SHOWN:][-SHOWN:][::-1]
    parts = []
    for title, rows in (("Best located", best), ("Worst located", worst)):
        if rows:
            parts.append(Section(f"{title} by {judgement.method}"))
            parts += [_shown(by_name[row["name"]], row["iou"], sets) for row in rows]
    return parts


def _shown(record: Record, iou: float, sets: Sequence[FindingSet]) -> Section:
    image = record.open_image()
    size = (image.height, image.width)
    truth = record.true_mask(size)
    pictures = {"image": image}
    if truth is not None:
        pictures["truth"] = outline(image, truth)
    for part in sets:
        mask = part.finding(record).mask
        if mask is not None:
            pictures[part.label] = overlay(image, to_size(mask, size))
    words = [WordScore(*word, 0.0) for word in record.true_words() or ()]
    return Section(
        record.name,
        text=f"{marked(record.caption, words)}; IoU {iou:.2f}",
        figure=side_by_side(list(pictures.values())),
        caption=" | ".join(pictures),
    )
