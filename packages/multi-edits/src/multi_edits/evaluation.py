"""Tables and pictures of measured edits: means with intervals, by category, editor by editor."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from papercommons.metrics.tables import Summary, compare, summarize
from papercommons.report import PALETTE, Section, figure_png

from multi_edits import scene_truth
from multi_edits.metrics.columns import COLUMNS, Column

Row = Mapping[str, Any]
SUCCESS = ("edits_right", "aspect_accuracy", "d_clip", "clip", "target_psnr")
KEEPING = "background_psnr"
GROUPS = {
    "category": "By category",
    "edits": "By number of edits",
    "background": "By what is to become of the background",
}
SORTING = ("target_psnr", "d_clip", "clip", KEEPING)


class Measured(NamedTuple):
    """What was measured of one set of edited images.

    Attributes:
        label: of the set.
        rows: one per record, in the same order for all sets, with ``record``, ``category``,
            ``edits`` (their number), ``background`` and the measures.
    """

    label: str
    rows: Sequence[Row]


def known_columns(unavailable: Collection[str], *, scenes: bool) -> list[Column]:
    """Return the measures that there are, those of scenes first.

    Args:
        unavailable: names of those that lack a network.
        scenes: whether the records are made-up scenes.
    """
    exact = scene_truth.COLUMNS if scenes else ()
    return [*exact, *(column for column in COLUMNS if column.name not in unavailable)]


class Tables:
    """Means of measures over records.

    Args:
        measured: at least one set.
        columns: the measures.
        draws: resamples of the intervals.
        seed: of the resampling.
    """

    def __init__(
        self, measured: Sequence[Measured], columns: Sequence[Column], draws: int, seed: int
    ) -> None:
        self.measured = measured
        self.columns = [
            column
            for column in columns
            if any(row.get(column.name) is not None for part in measured for row in part.rows)
        ]
        self._names = [column.name for column in self.columns]
        self._title = {column.name: column.title for column in self.columns}
        self._factor = {column.name: column.factor for column in self.columns}
        self._draws, self._seed = draws, seed
        self._all = {part.label: self._summarize(part.rows) for part in measured}

    def overall(self) -> list[dict[str, Any]]:
        """Return one line per set: its means, in the units of published tables."""
        return [
            {"edited": part.label, "records": len(part.rows), **self._means(self._all[part.label])}
            for part in self.measured
        ]

    def means(self, label: str) -> dict[str, dict[str, Any]]:
        """Return mean, interval and number of records of each measure of a set, as measured."""
        return {
            found.metric: {
                "mean": found.value,
                "low": found.low,
                "high": found.high,
                "records": found.images,
            }
            for found in self._all[label]
        }

    def _means(self, found: Sequence[Summary]) -> dict[str, float]:
        return {self._title[s.metric]: s.value * self._factor[s.metric] for s in found}

    def all_rows(self) -> list[dict[str, Any]]:
        """Return what was measured, one line per set and record."""
        return [{"edited": part.label, **row} for part in self.measured for row in part.rows]

    def summaries(self) -> list[dict[str, Any]]:
        """Return means and intervals as lines of a file: of all, and of each group."""
        return [
            {
                "edited": part.label,
                "by": by or "",
                "group": group,
                "metric": found.metric,
                "mean": found.value,
                "low": found.low,
                "high": found.high,
                "records": found.images,
            }
            for part in self.measured
            for by in (None, *GROUPS)
            for group, rows in _groups(part.rows, by)
            for found in self._summarize(rows)
        ]

    def sections(self) -> list[Section]:
        """Return the tables and the picture of a report."""
        sections = [*self._pareto(), Section("Means and 95 % intervals", rows=self._intervals())]
        for by, words in GROUPS.items():
            rows = self._by(by)
            if len({row[by] for row in rows}) > 1:
                sections.append(Section(words, rows=rows))
        if len(self.measured) > 1:
            sections.append(
                Section(
                    f"Against {self.measured[0].label}",
                    text="Record by record: mean difference and its 95 % interval; an interval "
                    "without 0 shows a difference.",
                    rows=list(self._differences()),
                )
            )
        return sections

    def _intervals(self) -> list[dict[str, Any]]:
        lines = []
        for name in self._names:
            for part in self.measured:
                found = next((s for s in self._all[part.label] if s.metric == name), None)
                if found is None:
                    continue
                factor = self._factor[found.metric]
                low, high = found.low * factor, found.high * factor
                lines.append(
                    {
                        "measure": self._title[name],
                        "edited": part.label,
                        "mean": found.value * factor,
                        "95 %": f"{low:.3f} to {high:.3f}",
                        "records": found.images,
                    }
                )
        return lines

    def _by(self, by: str) -> list[dict[str, Any]]:
        lines = [
            (group, {"edited": part.label, by: group, "records": len(rows)}, rows)
            for part in self.measured
            for group, rows in _groups(part.rows, by)
        ]
        lines.sort(key=lambda line: line[0])
        return [{**about, **self._means(self._summarize(rows))} for _, about, rows in lines]

    def _summarize(self, rows: Sequence[Row]) -> list[Summary]:
        return summarize(rows, self._names, source="record", draws=self._draws, seed=self._seed)

    def _differences(self) -> Iterator[dict[str, Any]]:
        first, *others = self.measured
        for part in others:
            found = compare(
                first.rows,
                part.rows,
                self._names,
                key="record",
                source="record",
                draws=self._draws,
                seed=self._seed,
            )
            for d in found:
                factor = self._factor[d.metric]
                yield {
                    "edited": part.label,
                    "measure": self._title[d.metric],
                    "difference": d.value * factor,
                    "95 %": f"{d.low * factor:.3f} to {d.high * factor:.3f}",
                    "records": d.images,
                }

    def sorting(self, name: str | None) -> Column:
        """Return the measure that orders records: the one named, or the first of `SORTING`."""
        known = {column.name: column for column in self.columns}
        chosen = [known[n] for n in ((name,) if name else SORTING) if n in known]
        return (chosen or self.columns or list(COLUMNS))[0]

    def _pareto(self) -> list[Section]:
        """Return the picture of success against keeping, where there are two sets and both."""
        known = {column.name: column for column in self.columns}
        success = next((known[name] for name in SUCCESS if name in known), None)
        if len(self.measured) < 2 or success is None or KEEPING not in known:
            return []
        points = {}
        for part in self.measured:
            found = {s.metric: s for s in self._all[part.label]}
            if {success.name, KEEPING} <= found.keys():
                points[part.label] = (found[KEEPING], found[success.name])
        return [
            Section(
                "Keeping and success",
                figure=figure_png(
                    lambda figure: _draw_pareto(figure, points, known[KEEPING], success), height=4.2
                ),
                caption="Each editor's means with 95 % intervals; up and to the right is better. "
                "The line joins those that no other one beats in both.",
            )
        ]


def _groups(rows: Sequence[Row], by: str | None) -> list[tuple[Any, list[Row]]]:
    """Return the values of a column in order, each with its rows; without a column all rows."""
    if by is None:
        return [("all", list(rows))]
    groups: dict[Any, list[Row]] = {}
    for row in rows:
        groups.setdefault(row[by], []).append(row)
    return sorted(groups.items())


def _draw_pareto(
    figure: Any, points: Mapping[str, tuple[Summary, Summary]], across: Column, up: Column
) -> None:
    axes = figure.subplots()
    for number, (label, both) in enumerate(points.items()):
        x, y = (
            (s.value * c.factor, s.low * c.factor, s.high * c.factor)
            for s, c in zip(both, (across, up), strict=True)
        )
        color = PALETTE[number % len(PALETTE)]
        spread = {"xerr": _ends(x), "yerr": _ends(y)}
        axes.errorbar(x[0], y[0], **spread, fmt="o", color=color, capsize=2, label=label)
    best = front([(x.value, y.value) for x, y in points.values()])
    line = [(x * across.factor, y * up.factor) for x, y in best]
    axes.plot(*zip(*line, strict=True), color="0.6", linewidth=1, zorder=0)
    axes.set_xlabel(across.title)
    axes.set_ylabel(up.title)
    axes.legend(loc="best")


def _ends(value: tuple[float, float, float]) -> list[list[float]]:
    mean, low, high = value
    return [[max(0.0, mean - low)], [max(0.0, high - mean)]]


def front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the points that no other one reaches in both numbers, by the first.

    Args:
        points: greater is better, in both.

    Example:
        >>> front([(1, 3), (2, 2), (1, 2), (3, 1)])
        [(1, 3), (2, 2), (3, 1)]
    """
    best, highest = [], -math.inf
    for x, y in sorted(set(points), reverse=True):
        if y > highest:
            best.append((x, y))
            highest = y
    return best[::-1]
