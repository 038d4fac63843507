"""What a method says about pairs of known truth, as tables, by kind of inconsistency."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from papercommons.errors import counted
from papercommons.metrics.bootstrap import Estimate
from papercommons.metrics.tables import ALL, Summary, summarize
from papercommons.report import Section

from d_tiil.measures import MEANS, Measured, Row, is_control
from d_tiil.set_measures import detection, token_scores, with_best

TITLES = {
    "iou": "IoU",
    "iou_best": "IoU, best threshold",
    "iou_changed": "IoU, changed pixels",
    "iou_changed_best": "IoU, changed pixels, best threshold",
    "pixel_ap": "pixel AP",
    "pixel_auc": "pixel AUC",
    "false_alarm_area": "false-alarm area",
    "control_area": "area on controls",
    "trace_iou": "IoU with traces",
    "trace_auc": "AUC of traces",
    "word_top1": "word top-1",
    "token_precision": "token precision",
    "token_recall": "token recall",
    "token_f1": "token F1",
    "auc": "detection AUC",
    "ap": "detection AP",
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "f1": "detection F1",
    "false_alarm_rate": "false alarms",
    "detection_rate": "detected",
    "control_auc": "AUC of controls",
}
"""Words for measures, in the order of tables."""

SHOWN = (
    "iou",
    "iou_best",
    "pixel_ap",
    "false_alarm_area",
    "word_top1",
    "token_f1",
    "auc",
    "ap",
    "accuracy",
)


@dataclass(frozen=True)
class Value:
    """A measure of one group of pairs.

    Attributes:
        group: a kind, or all.
        measure: of `TITLES`.
        value: NaN where it is not defined.
        low: end of its 95 % interval over sources.
        high: the other end.
        pairs: number of those it is of.
    """

    group: str
    measure: str
    value: float
    low: float
    high: float
    pairs: int


@dataclass(frozen=True)
class Judgement:
    """One method on one set of pairs.

    Attributes:
        method: its name.
        rows: one per pair, see `d_tiil.measures`.
        values: all measures by group.
        best: thresholds on the map that are best for the set.
        threshold: of the score, from another split; None: no decisions were judged.
    """

    method: str
    rows: tuple[Row, ...]
    values: tuple[Value, ...]
    best: dict[str, float]
    threshold: float | None

    @classmethod
    def of(
        cls,
        method: str,
        measured: Sequence[Measured],
        *,
        threshold: float | None = None,
        draws: int = 1000,
        seed: int = 0,
    ) -> Judgement:
        """Return the judgement of a method.

        Inconsistent pairs of a kind are told from consistent ones of that kind, or where it has
        none, from all.

        Args:
            method: its name.
            measured: of `d_tiil.measures.judge_all`.
            threshold: of `d_tiil.set_measures.fit_threshold` on another split.
            draws: resamples of sources for the intervals.
            seed: of the resampling.

        Raises:
            ValueError: nothing was measured.
        """
        if not measured:
            raise ValueError("no pairs were measured")
        rows, best = with_best(measured)
        by = "kind" if any(row["kind"] for row in rows) else None
        there = [name for name in MEANS if any(name in row for row in rows)]
        values = [
            _of_mean(found)
            for found in summarize(rows, there, by=by, draws=draws, seed=seed)
            if found.images
        ]
        for group, members in _groups(rows):
            whole = detection(members, threshold=threshold, draws=draws, seed=seed)
            tokens = token_scores(members, draws=draws, seed=seed)
            whole |= {f"token_{name}": value for name, value in tokens.items()}
            control = _controls(members, draws, seed)
            whole |= {} if control is None else {"control_auc": control}
            values += [Value(group, name, *found, len(members)) for name, found in whole.items()]
        return cls(method, tuple(rows), tuple(values), best, threshold)

    def groups(self) -> list[str]:
        """Return all, then the kinds in order."""
        return list(dict.fromkeys(value.group for value in self.values))

    def value(self, measure: str, group: str = ALL) -> Value | None:
        """Return one measure of one group; None where it was not taken."""
        return next((v for v in self.values if (v.group, v.measure) == (group, measure)), None)

    def table(self, measures: Sequence[str] = SHOWN) -> list[Row]:
        """Return one row per group with the measures that any group has.

        Args:
            measures: of `TITLES`.
        """
        there = [name for name in measures if any(v.measure == name for v in self.values)]
        found = []
        for group in self.groups():
            row: Row = {"kind": group, "pairs": self._pairs(group)}
            for name in there:
                value = self.value(name, group)
                row[TITLES[name]] = None if value is None else value.value
            found.append(row)
        return found

    def item_rows(self) -> list[Row]:
        """Return one row per pair: the truth, the decision if one was made, and all measures."""
        words: Mapping[int | None, str | None] = {1: "inconsistent", 0: "consistent", None: None}
        found = []
        for row in self.rows:
            measures = {name: value for name, value in row.items() if name != "inconsistent"}
            called = None
            if self.threshold is not None and row["score"] is not None:
                called = words[int(row["score"] > self.threshold)]
            label = words[row["inconsistent"]]
            found.append({"method": self.method, "label": label, "prediction": called, **measures})
        return found

    def long_table(self) -> list[Row]:
        """Return one row per group and measure with its interval."""
        order = list(TITLES)
        return [
            {
                "method": self.method,
                "kind": value.group,
                "measure": TITLES[value.measure],
                "value": value.value,
                "95 % low": value.low,
                "95 % high": value.high,
                "pairs": value.pairs,
            }
            for group in self.groups()
            for value in sorted(
                (v for v in self.values if v.group == group), key=lambda v: order.index(v.measure)
            )
        ]

    def numbers(self) -> dict[str, Any]:
        """Return all measures by group as plain values."""
        groups: dict[str, Any] = {group: {} for group in self.groups()}
        for v in self.values:
            groups[v.group][v.measure] = {
                "value": v.value,
                "interval": [v.low, v.high],
                "pairs": v.pairs,
            }
        return {"groups": groups, "best_thresholds": self.best, "threshold": self.threshold}

    def notes(self) -> list[str]:
        """Return what must be known beside the tables, a line each."""
        count = [sum(row["inconsistent"] == label for row in self.rows) for label in (1, 0, None)]
        sources = len({row["source"] or row["name"] for row in self.rows})
        lines = [
            f"{count[0]} inconsistent and {count[1]} consistent pairs of "
            + counted(sources, "source")
            + (f"; {count[2]} without a label" if count[2] else "")
        ]
        if controls := sum(map(is_control, self.rows)):
            lines.append(f"{controls} of the consistent pairs are controls with an edited image")
        if "iou" in self.best:
            level = f"{self.best['iou']:.3f}"
            lines.append(f"{self.method}: best threshold on the map, on these very pairs: {level}")
        if self.threshold is not None:
            score = f"{self.threshold:.6g}"
            lines.append(f"{self.method}: called inconsistent above a score of {score}")
        return lines

    def _pairs(self, group: str) -> int:
        return sum(group in (ALL, row["kind"]) for row in self.rows)


def comparison(
    judgements: Sequence[Judgement], measures: Sequence[str] = SHOWN, *, group: str = ALL
) -> list[Row]:
    """Return one row per method.

    Args:
        judgements: of the same pairs.
        measures: of `TITLES`.
        group: a kind, or all.
    """
    there = [name for name in measures if any(j.value(name, group) for j in judgements)]
    found = []
    for judgement in judgements:
        values = {name: judgement.value(name, group) for name in there}
        cells = {TITLES[name]: None if v is None else v.value for name, v in values.items()}
        found.append({"method": judgement.method, **cells})
    return found


def sections(judgements: Sequence[Judgement]) -> list[Section]:
    """Return the tables of a report beside that of all pairs: by kind, and every measure.

    Args:
        judgements: of the same pairs.
    """
    groups = list(dict.fromkeys(group for j in judgements for group in j.groups()))
    parts = [
        Section(
            f"Kind: {group}",
            rows=comparison(judgements, group=group),
        )
        for group in groups
        if group != ALL
    ]
    rows = [row for judgement in judgements for row in judgement.long_table()]
    about = "Intervals are 95 %, over resampled sources."
    return [*parts, Section("All measures", text=about, rows=rows)]


def _of_mean(found: Summary) -> Value:
    return Value(found.group, found.metric, found.value, found.low, found.high, found.images)


def _groups(rows: Sequence[Row]) -> Iterator[tuple[str, list[Row]]]:
    """Give all rows, then those of each kind with consistent ones to tell them from."""
    yield ALL, list(rows)
    consistent = [row for row in rows if row["inconsistent"] == 0 and not is_control(row)]
    for kind in sorted({row["kind"] for row in rows if row["kind"]}):
        own = [row for row in rows if row["kind"] == kind]
        if not any(row["inconsistent"] for row in own):
            continue  # a kind of consistent pairs
        told = any(row["inconsistent"] == 0 and not is_control(row) for row in own)
        yield kind, own if told else [*own, *consistent]


def _controls(rows: Sequence[Row], draws: int, seed: int) -> Estimate | None:
    """Return the AUC of controls against untouched consistent pairs; 0.5 is right."""
    told = [
        row | {"inconsistent": int(is_control(row)), "edited": ""}
        for row in rows
        if row["inconsistent"] == 0 and row["score"] is not None
    ]
    if not 0 < sum(row["inconsistent"] for row in told) < len(told):
        return None
    return detection(told, draws=draws, seed=seed)["auc"]
