"""`vlm-hv-eval`: one run or several are judged on the same pairs, calibrated where wanted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from papercommons.files import hash_files, prepare_out, write_csv
from papercommons.metrics.bootstrap import Estimate
from papercommons.report import Result, Section, write_report

from vlm_hv.evaluation import CALIBRATED, NONE, Judged, find_gaps, judge_run, numbers
from vlm_hv.options import PACKAGE
from vlm_hv.pictures import roc_png, tippett_png
from vlm_hv.predicting import run_notes, scores_sections
from vlm_hv.records import LIMITS, Record, read_records
from vlm_hv.runs import find_predictions, read_runs


def evaluate_runs(
    predictions: Sequence[str],
    calibration: Sequence[str],
    unknown: Literal["wrong", "drop", "both"],
    bootstrap: int,
    out: str | None,
    overwrite: bool,
    seed: int,
) -> Result:
    """Judge runs on the pairs that all of them have, and return the result.

    Args:
        predictions: files or folders of runs.
        calibration: those of the same systems on other pairs, in the same order; may be empty.
        unknown: which account the table of a single run shows.
        bootstrap: resamples of writers.
        out: folder for the report; None writes nothing.
        overwrite: empty it first.
        seed: of the resampling.

    Raises:
        ValueError: not as many calibrations as runs.
        DataError: a file cannot be read, labels are missing or of one kind, or a calibration is of
            another system or of the same pairs.
    """
    if calibration and len(calibration) != len(predictions):
        raise ValueError(
            f"--calibration needs one file per run, in their order, got {len(calibration)} for "
            f"{len(predictions)}"
        )
    runs = read_runs(predictions)
    val: list[list[Record] | None] = [None] * len(runs)
    if calibration:
        val = [read_records(find_predictions(source)) for source in calibration]
    found = [
        judge_run(run, records, draws=bootstrap, seed=seed)
        for run, records in zip(runs, val, strict=True)
    ]
    gaps = find_gaps(runs, draws=bootstrap, seed=seed)
    settings: dict[str, Any] = {
        "predictions": list(predictions),
        "calibration": list(calibration),
        "unknown": unknown,
    }
    settings |= {"bootstrap": bootstrap, "out": out, "seed": seed}
    folder = None if out is None else prepare_out(out, settings, overwrite=overwrite)
    several = len(runs) > 1
    result = Result(
        package=PACKAGE,
        command="vlm-hv-eval",
        title=f"{len(runs)} runs" * several
        + runs[0].name * (not several)
        + f": {len(runs[0].records):,} pairs",
        rows=[row(one) for one in found] if several else one_table(found[0], unknown),
        metrics={one.run.name: numbers(one) for one in found} | {"ablation_gaps": gaps}
        if several
        else numbers(found[0]),
        settings=settings,
        limits=LIMITS,
        data_hash=hash_files([run.path for run in runs]),
        device="cpu",
        notes=notes_of(found, gaps),
    )
    if folder is not None:
        write_csv(folder / "items.csv", item_rows(found))
        result.files["items"] = str(folder / "items.csv")
        write_report(folder / "report.html", result, sections(found, unknown))
        result.save(folder)
    return result


def row(one: Judged) -> dict[str, Any]:
    """Return the row of a run in the table of several."""
    found, scores = one.account, one.account.scores
    shown = {
        "system": one.run.name,
        "accuracy": found.over_all["accuracy"].value,
        "95 %": interval(found.over_all["accuracy"]),
        "of answered": found.over_answered["accuracy"].value,
        "coverage": found.coverage.value,
        "AUC": scores.get("auc", NONE).value,
        "AUC 95 %": interval(scores.get("auc", NONE)),
        "EER": scores.get("eer", NONE).value,
        "orders disagree": found.order_disagreement.value,
    }
    if one.llr is not None:
        shown |= {"Cllr": one.calibrated["cllr"].value, "min": one.calibrated["min_cllr"].value}
    return shown


def interval(metric: Estimate) -> str:
    """Return the interval in words."""
    return "–" if np.isnan(metric.low) else f"{metric.low:.3f}–{metric.high:.3f}"


def one_table(one: Judged, unknown: Literal["wrong", "drop", "both"]) -> list[dict[str, Any]]:
    """Return the table of a single run.

    Args:
        one: the run.
        unknown: which account is shown.
    """
    rows = one.account.rows(unknown)
    rows += [
        {"metric": words, "value": one.calibrated[name].value}
        | {"95 % low": one.calibrated[name].low, "95 % high": one.calibrated[name].high}
        for name, words in CALIBRATED.items()
        if name in one.calibrated
    ]
    return rows


def notes_of(found: Sequence[Judged], gaps: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what to know of all runs, a line each.

    Args:
        found: the runs.
        gaps: see `find_gaps`.
    """
    lines = [line for one in found for line in (*one.run.notes(), *one.notes)]
    for gap in gaps:
        known = not np.isnan(gap["low"])
        around = f" ({gap['low']:+.4f} to {gap['high']:+.4f})" if known else ""
        lines.append(
            f"{gap['run']}: balanced accuracy minus that of its control {gap['control']} is "
            f"{gap['gap']:+.4f}{around}"
            + (": THE PICTURES MAY MAKE NO DIFFERENCE" if known and gap["low"] <= 0 else "")
        )
    if len(found) == 1:
        return lines + run_notes(found[0].run.records, found[0].account)
    majority = found[0].account.majority
    lines.append(f"accuracy is over all pairs, unknown = wrong; guessing has {majority:.4f}")
    return lines


def item_rows(found: Sequence[Judged]) -> list[dict[str, Any]]:
    """Return one row per pair, with what each run says of it."""
    rows = []
    for place, record in enumerate(found[0].run.records):
        shown = {name: record[name] for name in ("known", "questioned", "label")}
        for one in found:
            said, prefix = one.run.records[place], f"{one.run.name}: " * (len(found) > 1)
            shown |= {f"{prefix}prediction": said["prediction"], f"{prefix}score": said["score"]}
            if one.llr is not None:
                shown |= {f"{prefix}ln_lr": f"{one.llr[place]:.4f}"}
        rows.append(shown)
    return rows


def sections(found: Sequence[Judged], unknown: Literal["wrong", "drop", "both"]) -> list[Section]:
    """Return the sections of the page.

    Args:
        found: the runs.
        unknown: which account the tables show.
    """
    parts = []
    curves = {}
    for one in found:
        scored = [r for r in one.run.records if r["score"] is not None]
        labels = np.array([record["label"] for record in scored], np.int64)
        if len(set(labels.tolist())) == 2:
            curves[one.run.name] = (np.array([r["score"] for r in scored], np.float64), labels)
    if curves:
        parts.append(
            Section(
                "ROC curves",
                "How often pairs of one writer are accepted against how often pairs of two are, "
                "over all thresholds of the score; pairs without a score are not in it.",
                figure=roc_png(curves),
                caption="One ROC curve per run",
            )
        )
    ratios = {one.run.name: (one.llr, one.same) for one in found if one.llr is not None}
    if ratios:
        parts.append(
            Section(
                "Likelihood ratios (Tippett plot)",
                "Share of pairs whose log10 likelihood ratio is above a value. At 0 the curve of "
                "one writer should be high and that of two writers low; what is left of them on "
                "the wrong side misleads.",
                figure=tippett_png(ratios),
                caption="Tippett plot of same-writer and different-writer pairs",
            )
        )
    for one in found:
        if len(found) > 1:
            parts.append(Section(one.run.name, rows=one_table(one, unknown)))
        parts += scores_sections(one.run.records)
    return parts
