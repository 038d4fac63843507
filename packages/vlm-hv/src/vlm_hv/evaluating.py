"""`vlm-hv-eval`: what the records of one run or several come to, calibrated where wanted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from papercommons.errors import DataError
from papercommons.files import hash_files, prepare_out, write_csv
from papercommons.metrics.calibration import Calibration, fit_calibration
from papercommons.metrics.verification import Metric, verification_metrics
from papercommons.report import Result, Section, write_report

from vlm_hv.accounting import Account, ablation_gap, account
from vlm_hv.comparable import Run, find_preds, read_runs
from vlm_hv.pictures import roc_png, tippett_png
from vlm_hv.predicting import run_notes, scores_sections
from vlm_hv.records import LIMITS, Record, read_records

LEAST = 1e-6  # a score of 0 or 1 counts as this far from it
CALIBRATED = {
    "cllr": "Cllr, calibrated on other pairs",
    "min_cllr": "Cllr, least by calibration",
    "accuracy_at_half": "accuracy, LLR above 0",
    "ece": "calibration error, calibrated",
}
_NONE = Metric(float("nan"), float("nan"), float("nan"))


@dataclass(frozen=True)
class Judged:
    """What one run comes to.

    Attributes:
        run: its records.
        account: both accounts.
        llr: natural-log likelihood ratio per pair, float64, shape (P,); None without calibration.
        calibrated: measures of those.
        notes: what to know of the calibration.
    """

    run: Run
    account: Account
    llr: np.ndarray | None = None
    calibrated: dict[str, Metric] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def same(self) -> np.ndarray:
        """Labels, int64, shape (P,)."""
        return np.array([record["label"] for record in self.run.records], np.int64)


def evaluate_runs(
    preds: Sequence[str],
    calibration: Sequence[str],
    unknown: Literal["wrong", "drop", "both"],
    bootstrap: int,
    out: str | None,
    overwrite: bool,
    seed: int,
) -> Result:
    """Judge runs on the pairs that all of them have, and return the result.

    Args:
        preds: files or folders of runs.
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
    if calibration and len(calibration) != len(preds):
        raise ValueError(
            f"--calibration needs one file per run, in their order, got {len(calibration)} for "
            f"{len(preds)}"
        )
    runs = read_runs(preds)
    dev: list[list[Record] | None] = [None] * len(runs)
    if calibration:
        dev = [read_records(find_preds(source)) for source in calibration]
    found = [
        judge_run(run, records, draws=bootstrap, seed=seed)
        for run, records in zip(runs, dev, strict=True)
    ]
    gaps = find_gaps(runs, draws=bootstrap, seed=seed)
    settings: dict[str, Any] = {
        "preds": list(preds),
        "calibration": list(calibration),
        "unknown": unknown,
    }
    settings |= {"bootstrap": bootstrap, "out": out, "seed": seed}
    folder = None if out is None else prepare_out(out, settings, overwrite=overwrite)
    several = len(runs) > 1
    result = Result(
        package="vlm-hv",
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
        device="no model was run",
        notes=notes_of(found, gaps),
    )
    if folder is not None:
        rows = score_rows(found)
        write_csv(folder / "scores.csv", rows)
        result.files["scores"] = str(folder / "scores.csv")
        write_report(folder / "report.html", result, sections(found, unknown))
        result.save(folder)
    return result


def judge_run(
    run: Run, dev: Sequence[Record] | None, *, draws: int = 1000, seed: int = 0
) -> Judged:
    """Return what a run comes to.

    Args:
        run: with labels of both kinds.
        dev: records of the same system on other pairs, to calibrate on.
        draws: resamples of writers.
        seed: of the resampling.

    Raises:
        DataError: see `account`, `calibrate`.
    """
    found = account(run.records, draws=draws, seed=seed)
    if dev is None:
        return Judged(run, found)
    fitted, notes = calibrate(run, dev)
    llr = np.array([ratio(fitted, record) for record in run.records])
    writers = [record.get("writers") for record in run.records]
    known = all(pair is not None for pair in writers)
    left, right = zip(*(writers if known else [("", "")] * len(writers)), strict=True)
    same = [record["label"] for record in run.records]
    measured = verification_metrics(
        llr, llr, same, left, right, threshold=0.0, draws=draws if known else 1, seed=seed
    )
    metrics = {
        name: measured[name] if known else measured[name]._replace(low=_NONE.low, high=_NONE.high)
        for name in CALIBRATED
    }
    return Judged(run, found, llr, metrics, notes)


def calibrate(run: Run, dev: Sequence[Record]) -> tuple[Calibration, list[str]]:
    """Return the map from log-odds of scores to log-likelihood ratios, and what to know of it.

    Args:
        run: that is judged.
        dev: records of the same system on other pairs.

    Raises:
        DataError: another system, the same pairs, or scores of one kind only.
    """
    for name in ("backend", "model", "weights", "mode", "prompt_sha256", "swap", "ablation"):
        ours, theirs = run.settings.get(name), dev[0]["settings"].get(name)
        if ours != theirs:
            raise DataError(
                f"--calibration of {run.name}: its {name} is {theirs!r}, that of the run {ours!r}; "
                "give the same system's run on other pairs"
            )
    names = {(record["known"], record["questioned"]) for record in run.records}
    if shared := sum((record["known"], record["questioned"]) in names for record in dev):
        raise DataError(
            f"--calibration of {run.name}: {shared} of its pairs are judged too; calibrate on "
            "others, such as --part dev"
        )
    scored = [r for r in dev if r["score"] is not None and r["label"] is not None]
    if len({record["label"] for record in scored}) < 2:
        raise DataError(
            f"--calibration of {run.name}: needs pairs with label and score, of both kinds"
        )
    ours, theirs = writers_of(run.records), writers_of(dev)
    notes = [
        f"{run.name}: {len(ours & theirs)} WRITERS OF THE CALIBRATION ARE JUDGED TOO: it flatters"
    ] * bool(ours & theirs)
    odds = [log_odds(record["score"]) for record in scored]
    return fit_calibration(odds, [record["label"] for record in scored]), notes


def writers_of(records: Sequence[Record]) -> set[str]:
    """Return the writers of records, as far as they are known."""
    return {writer for record in records for writer in record.get("writers") or ()}


def log_odds(score: float) -> float:
    """Return the natural-log odds of a score in [0, 1]."""
    clipped = min(max(score, LEAST), 1 - LEAST)
    return float(np.log(clipped) - np.log1p(-clipped))


def ratio(fitted: Calibration, record: Record) -> float:
    """Return the log-likelihood ratio of a pair; without a score it is 0: no evidence."""
    return 0.0 if record["score"] is None else float(fitted.llr(log_odds(record["score"])))


def find_gaps(runs: Sequence[Run], *, draws: int, seed: int) -> list[dict[str, Any]]:
    """Return the ablation gap of each control whose run is there, too.

    Args:
        runs: over the same pairs.
        draws: resamples of writers.
        seed: of the resampling.
    """
    found = []
    for control in runs:
        mine = [run for run in runs if run.ablation == "none" and _alike(run, control)]
        if control.ablation != "none" and mine:
            gap = ablation_gap(mine[0].records, control.records, draws=draws, seed=seed)
            found.append(
                {"run": mine[0].name, "control": control.ablation, "gap": gap.value}
                | {"low": gap.low, "high": gap.high}
            )
    return found


def _alike(run: Run, control: Run) -> bool:
    names = ("backend", "model", "base_url", "weights", "prompt_sha256", "mode", "swap", "layout")
    return all(run.settings.get(name) == control.settings.get(name) for name in names)


def row(one: Judged) -> dict[str, Any]:
    """Return the row of a run in the table of several."""
    found, scores = one.account, one.account.scores
    shown = {
        "system": one.run.name,
        "accuracy": found.over_all["accuracy"].value,
        "95 %": interval(found.over_all["accuracy"]),
        "of answered": found.over_answered["accuracy"].value,
        "coverage": found.coverage.value,
        "AUC": scores.get("auc", _NONE).value,
        "AUC 95 %": interval(scores.get("auc", _NONE)),
        "EER": scores.get("eer", _NONE).value,
        "orders disagree": found.order_disagreement.value,
    }
    if one.llr is not None:
        shown |= {"Cllr": one.calibrated["cllr"].value, "min": one.calibrated["min_cllr"].value}
    return shown


def interval(metric: Metric) -> str:
    """Return the interval in words."""
    return "–" if np.isnan(metric.low) else f"{metric.low:.3f}–{metric.high:.3f}"


def one_table(one: Judged, unknown: Literal["wrong", "drop", "both"]) -> list[dict[str, Any]]:
    """Return the table of a single run."""
    rows = one.account.rows(unknown)
    rows += [
        {"metric": words, "value": one.calibrated[name].value}
        | {"95 % low": one.calibrated[name].low, "95 % high": one.calibrated[name].high}
        for name, words in CALIBRATED.items()
        if name in one.calibrated
    ]
    return rows


def numbers(one: Judged) -> dict[str, Any]:
    """Return every number of a run by name."""
    found = one.account.numbers()
    intervals = found["intervals"] | {
        f"calibrated_{name}": [metric.low, metric.high] for name, metric in one.calibrated.items()
    }
    more = {f"calibrated_{name}": metric.value for name, metric in one.calibrated.items()}
    return {**found, **more, "intervals": intervals}


def notes_of(found: Sequence[Judged], gaps: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what to know of all runs, a line each."""
    lines = [line for one in found for line in (*one.run.warnings(), *one.notes)]
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


def score_rows(found: Sequence[Judged]) -> list[dict[str, Any]]:
    """Return one row per pair, with what each run says of it."""
    rows = []
    for place, record in enumerate(found[0].run.records):
        shown = {name: record[name] for name in ("known", "questioned", "label")}
        for one in found:
            said, prefix = one.run.records[place], f"{one.run.name}: " * (len(found) > 1)
            shown |= {f"{prefix}decision": said["decision"], f"{prefix}score": said["score"]}
            if one.llr is not None:
                shown |= {f"{prefix}ln_lr": f"{one.llr[place]:.4f}"}
        rows.append(shown)
    return rows


def sections(found: Sequence[Judged], unknown: Literal["wrong", "drop", "both"]) -> list[Section]:
    """Return the parts of the page."""
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
