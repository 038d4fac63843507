"""Tables of the kept answers: scenes are what is drawn again in the bootstrap."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
from answers import (
    ATTENTION,
    BY_ATTENTION,
    BY_CLIP,
    CLIP,
    EDITED,
    EMPTY,
    FOUR,
    FULL,
    METHODS,
    OURS,
    RANDOM,
    STEP_1,
    TRUE,
    trivial,
    unpacked,
)
from d_tiil.calibration import Calibration, fit
from d_tiil.evaluating import map_threshold
from d_tiil.evaluation import Judgement
from d_tiil.findings import Finding
from d_tiil.measures import Measured, is_control, measure_pair
from d_tiil.records import Record
from d_tiil.set_measures import fit_threshold
from papercommons.metrics.tables import ALL, compare

THRESHOLD = 0.3  # of maps, the reference's
DRAWS = 2000
COMPARED = (  # settled before any run
    (STEP_1, TRUE, "iou"),
    (FOUR, TRUE, "iou"),
    (STEP_1, EMPTY, "iou"),
    (FOUR, EMPTY, "iou"),
    (FOUR, STEP_1, "iou"),
    (FOUR, EDITED, "iou"),
    (STEP_1, ATTENTION, "iou"),
    (STEP_1, CLIP, "iou"),
    (STEP_1, FULL, "iou"),
    (STEP_1, TRUE, "iou_changed"),
    (STEP_1, EMPTY, "iou_changed"),
    (FOUR, STEP_1, "iou_changed"),
    (FOUR, BY_ATTENTION, "word_top1"),
    (FOUR, BY_CLIP, "word_top1"),
    (STEP_1, CLIP, "word_top1"),
)
WORDS = {
    "iou": "IoU",
    "iou_changed": "IoU, changed pixels",
    "word_top1": "word top-1",
}
NEAR, ABOVE, RIGHT = 0.03, 0.1, 0.95  # the aims


class Pair(NamedTuple):
    """A pair with its truth and what was answered.

    Attributes:
        record: the pair.
        kept: of `answers.answer`.
    """

    record: Record
    kept: Mapping[str, Any]


class Fitted(NamedTuple):
    """What was fitted on the separate scenes.

    Attributes:
        calibration: of the consistency.
        decision: method -> score above which a pair is called inconsistent.
        level: method -> threshold on its maps.
    """

    calibration: Calibration
    decision: dict[str, float]
    level: dict[str, float]


def calibrate(pairs: Sequence[Pair]) -> Calibration:
    """Return the calibration of labelled pairs."""
    told = [pair for pair in pairs if not is_control(pair.record)]
    features = {
        name: [pair.kept["features"][name] for pair in told] for name in ("gap", "relative_gap")
    }
    return fit(features, [bool(pair.record.inconsistent) for pair in told])


def measured(
    method: str, pairs: Sequence[Pair], calibration: Calibration, level: float = THRESHOLD
) -> list[Measured]:
    """Return the measures of a method on the pairs that it was asked about."""
    found = []
    for record, kept in pairs:
        finding = _finding(method, record, kept, calibration)
        if finding is not None:
            size = record.open_image().size[::-1]
            found.append(measure_pair(record, finding, size, threshold=level))
    return found


def _finding(
    method: str, record: Record, kept: Mapping[str, Any], calibration: Calibration
) -> Finding | None:
    if method in (RANDOM, FULL):
        return trivial(method, record)
    answered = kept["methods"].get(method)
    if method in OURS:  # the score is that of step 1 in both forms
        said = Finding() if answered is None else unpacked(answered)
        score = 100 - calibration.consistency(kept["features"])
        return Finding(score=score, map=said.map, top=said.top)
    return None if answered is None else unpacked(answered)


def fit_on(pairs: Sequence[Pair]) -> Fitted:
    """Return what the separate scenes tell: calibration, decisions and thresholds on maps."""
    calibration = calibrate(pairs)
    decision, level = dict[str, float](), dict[str, float]()
    for method in METHODS:
        found = measured(method, pairs, calibration)
        rows = [one.row for one in found]
        if {row["inconsistent"] for row in rows if row["score"] is not None} == {0, 1}:
            decision[method] = fit_threshold(rows)
        cut = map_threshold(found) if found else None
        if cut is not None:
            level[method] = cut
    return Fitted(calibration, decision, level)


def judge(pairs: Sequence[Pair], fitted: Fitted, *, draws: int = DRAWS) -> dict[str, Judgement]:
    """Return what every method is worth on some pairs, maps cut at `THRESHOLD`."""
    found = {}
    for method in METHODS:
        own = measured(method, pairs, fitted.calibration)
        if own:
            decision = fitted.decision.get(method)
            found[method] = Judgement.of(method, own, threshold=decision, draws=draws)
    return found


def summarize(
    pairs: Sequence[Pair], fitted: Fitted, judged: Mapping[str, Judgement]
) -> list[dict[str, Any]]:
    """Return one row per kind and method; what a method does not say is None."""
    at_fitted = {
        method: _means(measured(method, pairs, fitted.calibration, level), "iou")
        for method, level in fitted.level.items()
        if method in judged
    }
    table = []
    for kind in (*sorted({pair.record.kind for pair in pairs}), ALL):
        for method, judgement in judged.items():
            iou = judgement.value("iou", kind)
            word = judgement.value("word_top1", kind)
            if iou is None and word is None and judgement.value("auc", kind) is None:
                continue
            row: dict[str, Any] = {"kind": kind, "method": method}
            there = [value.pairs for value in (iou, word) if value is not None]
            row["pairs"] = max(there, default=0)
            row |= _with_interval(judgement, "iou", kind, "IoU")
            row["IoU, threshold of val"] = at_fitted.get(method, {}).get(kind)
            for measure, name in (
                ("iou_best", "IoU, best threshold"),
                ("iou_changed", "IoU, changed pixels"),
                ("pixel_ap", "pixel AP"),
            ):
                row[name] = _value(judgement, measure, kind)
            row |= _with_interval(judgement, "word_top1", kind, "word top-1")
            row |= _with_interval(judgement, "auc", kind, "AUC")
            row["accuracy"] = _value(judgement, "accuracy", kind)
            table.append(row)
    return table


def false_alarms(
    pairs: Sequence[Pair], fitted: Fitted, judged: Mapping[str, Judgement]
) -> list[dict[str, Any]]:
    """Return one row per method: what it marks in consistent pairs, controls aside and alone.

    After the decision a pair that is called consistent has no area.
    """
    table = []
    for method, judgement in judged.items():
        decision = fitted.decision.get(method)
        rows = [row for row in judgement.rows if row["inconsistent"] == 0]
        plain = [row for row in rows if not is_control(row)]
        control = [row for row in rows if is_control(row)]
        marked = [row for row in plain if "false_alarm_area" in row]
        if not marked:
            continue
        line: dict[str, Any] = {"method": method, "pairs": len(marked)}
        line |= _with_interval(judgement, "false_alarm_area", ALL, "area")
        line["area, decided"] = _decided(plain, "false_alarm_area", decision)
        line["false alarms"] = _share_above(plain, decision)
        line["controls"] = sum("control_area" in row for row in control)
        line |= _with_interval(judgement, "control_area", ALL, "area on controls")
        line["area on controls, decided"] = _decided(control, "control_area", decision)
        line["false alarms on controls"] = _share_above(control, decision)
        line |= _with_interval(judgement, "trace_auc", ALL, "AUC of traces")
        line |= _with_interval(judgement, "control_auc", ALL, "AUC of controls")
        table.append(line)
    return table


def _decided(rows: Sequence[Any], measure: str, decision: float | None) -> float | None:
    """Return the mean area, none where a pair is called consistent."""
    there = [row for row in rows if measure in row]
    if decision is None or not there:
        return None
    return fmean(row[measure] if row["score"] > decision else 0.0 for row in there)


def _share_above(rows: Sequence[Any], decision: float | None) -> float | None:
    if decision is None or not rows:
        return None
    return fmean(row["score"] > decision for row in rows)


def compared(judged: Mapping[str, Judgement]) -> list[dict[str, Any]]:
    """Return the differences of `COMPARED`, pair by pair, with bootstrapped 95 % intervals.

    An effect is called one if its interval does not hold 0; intervals are not corrected for their
    number.
    """
    table = []
    for first, second, measure in COMPARED:
        if first not in judged or second not in judged:
            continue
        ours, others = judged[first].rows, judged[second].rows
        if not all(any(measure in row for row in rows) for rows in (ours, others)):
            continue
        for found in compare(others, ours, [measure], by="kind", draws=DRAWS):
            if math.isnan(found.value):
                continue
            row: dict[str, Any] = {"first": first, "second": second, "measure": WORDS[measure]}
            row |= {"kind": found.group, "pairs": found.images, "first - second": found.value}
            low, high = _ends(found.low, found.high)
            row |= {"95 % low": low, "95 % high": high, "reads": "no effect seen"}
            if found.low > 0 or found.high < 0:
                row["reads"] = "higher" if found.low > 0 else "lower"
            table.append(row)
    return table


def aims(judged: Mapping[str, Judgement], differences: Sequence[Any]) -> list[dict[str, Any]]:
    """Return one row per aim, what was found, and whether that meets it."""
    table = []

    def add(aim: str, kind: str, found: Sequence[Any], least: float) -> None:
        row: dict[str, Any] = {"aim": aim, "kind": kind, "found": found[0]}
        low, high = _ends(*found[1:])
        row |= {"found 95 % low": low, "found 95 % high": high}
        table.append(row | {"at least": least, "met": "yes" if found[0] >= least else "no"})

    for method in OURS:
        for other, least in ((TRUE, -NEAR), (EMPTY, ABOVE)):
            for row in differences:
                key = (row["first"], row["second"], row["measure"])
                kinds = ("color", "background")
                if key == (method, other, WORDS["iou"]) and row["kind"] in kinds:
                    found = [row["first - second"], row["95 % low"], row["95 % high"]]
                    add(f"IoU of {method} minus that of the {other}", row["kind"], found, least)
    for measure, name in (("word_top1", "word top-1"), ("auc", "detection AUC")):
        for kind in ("color", "shape", "background"):
            value = judged[STEP_1].value(measure, kind) if STEP_1 in judged else None
            if value is not None and not math.isnan(value.value):
                add(name, kind, [value.value, value.low, value.high], RIGHT)
    return table


def costs(pairs: Sequence[Pair]) -> list[dict[str, Any]]:
    """Return the mean cost of a pair, for those with all four steps and with the first alone."""
    table = []
    tests: dict[str, Callable[[Pair], bool]] = {
        FOUR: lambda pair: FOUR in pair.kept["methods"],
        STEP_1: lambda pair: FOUR not in pair.kept["methods"] and bool(pair.record.inconsistent),
    }
    for name, wanted in tests.items():
        own = [pair.kept for pair in pairs if wanted(pair)]
        if own:
            row: dict[str, Any] = {"method": name, "pairs": len(own)}
            for key in ("seconds", "network rows", "steps"):
                row[key] = fmean(kept[key] for kept in own)
            table.append(row)
    return table


def errors(pairs: Sequence[Pair]) -> list[dict[str, Any]]:
    """Return one row per kind and part: mean denoising errors of the caption and of E_aln."""
    table = []
    groups = dict.fromkeys((pair.record.kind, _part(pair.record)) for pair in pairs)
    for kind, part in sorted(groups):
        own = [p.kept["errors"] for p in pairs if (p.record.kind, _part(p.record)) == (kind, part)]
        before, after = np.mean(own, axis=0).tolist()
        table.append({"kind": kind, "pairs": part, "caption": before, "aligned": after})
    return table


def _part(record: Record) -> str:
    if is_control(record):
        return "control"
    return f"{record.edited} edited" if record.inconsistent else "consistent"


def _means(rows: Sequence[Measured], measure: str) -> dict[str, float]:
    """Return kind -> mean of a measure, and that of all."""
    there = [one.row for one in rows if measure in one.row]
    kinds = {row["kind"] for row in there}
    found = {kind: fmean(r[measure] for r in there if r["kind"] == kind) for kind in kinds}
    return found | ({ALL: fmean(row[measure] for row in there)} if there else {})


def _value(judgement: Judgement, measure: str, kind: str) -> float | None:
    found = judgement.value(measure, kind)
    return None if found is None or math.isnan(found.value) else found.value


def _with_interval(judgement: Judgement, measure: str, kind: str, name: str) -> dict[str, Any]:
    found = judgement.value(measure, kind)
    if found is None or math.isnan(found.value):
        return {name: None, f"{name} 95 % low": None, f"{name} 95 % high": None}
    low, high = _ends(found.low, found.high)
    return {name: found.value, f"{name} 95 % low": low, f"{name} 95 % high": high}


def _ends(*interval: float | None) -> list[float | None]:
    """Return the ends of an interval, None where there is none: JSON has no NaN."""
    return [None if end is None or math.isnan(end) else end for end in interval]
