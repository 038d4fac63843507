"""Tables with one row per image: means with intervals, by group, and two tables compared.

A row holds what is known of an image by name. A measure that does not apply to it is missing, None
or an empty text; one that is not defined there is NaN, and is counted. Intervals are percentiles
over resampled sources: images made from one photo, or by one camera, are drawn together.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch

from papercommons.metrics.bootstrap import group_weights

Row = Mapping[str, Any]
ALL = "all"
_CHUNK = 20_000_000  # weights at a time: 80 MB


class Summary(NamedTuple):
    """The mean of a measure over images.

    Attributes:
        group: value of the column that groups; "all" is every row.
        metric: name of the measure.
        value: mean over the images where it is defined; NaN without any.
        low: end of the interval of the mean, NaN with less than two sources.
        high: the other end.
        images: number of those where it is defined.
        undefined: number of those where it is not.
    """

    group: str
    metric: str
    value: float
    low: float
    high: float
    images: int
    undefined: int


class Difference(NamedTuple):
    """How much higher a measure is in a second table, image by image.

    Attributes:
        group: value of the column that groups; "all" is every row.
        metric: name of the measure.
        first: mean of the first table over the images compared.
        second: mean of the second.
        value: mean of second - first.
        low: end of the interval of that mean.
        high: the other end.
        higher: share of images with a higher number in the second table.
        lower: share of images with a lower one.
        images: number of those compared: in both tables, and defined in both.
        undefined: number of those in both tables where it is undefined in one.
    """

    group: str
    metric: str
    first: float
    second: float
    value: float
    low: float
    high: float
    higher: float
    lower: float
    images: int
    undefined: int


def summarize(
    rows: Sequence[Row],
    metrics: Iterable[str] | None = None,
    *,
    by: str | None = None,
    source: str = "source",
    level: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> list[Summary]:
    """Return the mean of each measure over all rows and, if asked for, over each group.

    Args:
        rows: one per image.
        metrics: names of the measures; None is every column that holds floats.
        by: column that groups; None is no groups.
        source: column of what is resampled; rows without it are sources of their own.
        level: share of the intervals, in (0, 1).
        draws: resamples, >= 1.
        seed: of the resampling.

    Returns:
        one per group and measure that applies there: first all rows, then the groups by name.

    Raises:
        ValueError: no rows, level or draws out of range, or no row has the column `by`.

    Example:
        >>> rows = [{"f1": 0.5}, {"f1": 0.5}, {"f1": math.nan}]
        >>> summarize(rows)
        [Summary(group='all', metric='f1', value=0.5, low=0.5, high=0.5, images=2, undefined=1)]
    """
    _check(rows, level, draws)
    names = list(metrics) if metrics is not None else float_columns(rows)
    found = []
    for group, members in _groups(rows, by):
        sources = _sources(members, source)
        for name in names:
            held = [(number(row.get(name)), s) for row, s in zip(members, sources, strict=True)]
            there = [(value, s) for value, s in held if value is not None]
            defined = [(value, s) for value, s in there if not math.isnan(value)]
            if there:
                mean, low, high = _mean(defined, level, draws, seed)
                undefined = len(there) - len(defined)
                found.append(Summary(group, name, mean, low, high, len(defined), undefined))
    return found


def compare(
    first: Sequence[Row],
    second: Sequence[Row],
    metrics: Iterable[str] | None = None,
    *,
    key: str = "name",
    by: str | None = None,
    source: str = "source",
    level: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> list[Difference]:
    """Return how the measures of two tables differ on the images that are in both.

    Args:
        first: one row per image.
        second: likewise; images that only one table has are left out.
        metrics: names of the measures; None is every column of floats that both have.
        key: column that names an image, once per table.
        by: column of the first table that groups; None is no groups.
        source: column of the first table of what is resampled.
        level: share of the intervals, in (0, 1).
        draws: resamples, >= 1.
        seed: of the resampling.

    Returns:
        as `summarize` does; an interval that excludes 0 shows a difference.

    Raises:
        ValueError: a table has no rows or a name twice, no image is in both, or as `summarize`.
    """
    _check(first, level, draws)
    _check(second, level, draws)
    others = _by_key(second, key)
    paired = [row for name, row in _by_key(first, key).items() if name in others]
    if not paired:
        raise ValueError(f"the tables share no {key}: nothing to compare")
    shared = set(float_columns(second))
    names = metrics if metrics is not None else [n for n in float_columns(first) if n in shared]
    names, found = list(names), []
    for group, members in _groups(paired, by):
        sources = _sources(members, source)
        for name in names:
            both = [(number(row.get(name)), number(others[row[key]].get(name))) for row in members]
            there = [
                (a, b, s)
                for (a, b), s in zip(both, sources, strict=True)
                if a is not None and b is not None
            ]
            defined = [(a, b, s) for a, b, s in there if not math.isnan(a + b)]
            if not there:
                continue
            mean, low, high = _mean([(b - a, s) for a, b, s in defined], level, draws, seed)
            found.append(
                Difference(
                    group=group,
                    metric=name,
                    first=_average([a for a, _, _ in defined]),
                    second=_average([b for _, b, _ in defined]),
                    value=mean,
                    low=low,
                    high=high,
                    higher=_average([float(b > a) for a, b, _ in defined]),
                    lower=_average([float(b < a) for a, b, _ in defined]),
                    images=len(defined),
                    undefined=len(there) - len(defined),
                )
            )
    return found


def float_columns(rows: Sequence[Row]) -> list[str]:
    """Return the names of the columns that hold floats, in their order.

    Args:
        rows: a whole number is no float: it counts or says yes and no.
    """
    return list(dict.fromkeys(k for row in rows for k, v in row.items() if isinstance(v, float)))


def number(value: Any) -> float | None:
    """Return a cell as a number; None where nothing is in it.

    Args:
        value: a number, None or an empty text.
    """
    return None if value is None or value == "" else float(value)


def _check(rows: Sequence[Row], level: float, draws: int) -> None:
    if not rows:
        raise ValueError("a table without rows")
    if not 0 < level < 1 or draws < 1:
        raise ValueError(f"needs level in (0, 1) and draws >= 1, got {level} and {draws}")


def _by_key(rows: Sequence[Row], key: str) -> dict[Any, Row]:
    table: dict[Any, Row] = {}
    for row in rows:
        if key not in row:
            raise ValueError(f"a row has no {key}, which pairs the tables")
        if row[key] in table:
            raise ValueError(f"{key} {row[key]!r} is there twice in one table")
        table[row[key]] = row
    return table


def _groups(rows: Sequence[Row], by: str | None) -> Iterator[tuple[str, Sequence[Row]]]:
    yield ALL, rows
    if by is None:
        return
    groups: dict[str, list[Row]] = {}
    for row in rows:
        if row.get(by) not in (None, ""):
            groups.setdefault(str(row[by]), []).append(row)
    if not groups:
        raise ValueError(f"no row has a {by} to group by; columns: {', '.join(rows[0])}")
    yield from sorted(groups.items())


def _sources(rows: Sequence[Row], column: str) -> list[Any]:
    """Return what each row is drawn with: its source, or itself."""
    return [
        (place,) if row.get(column) in (None, "") else row[column] for place, row in enumerate(rows)
    ]


def _average(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def _mean(
    values: Sequence[tuple[float, Any]], level: float, draws: int, seed: int
) -> tuple[float, float, float]:
    """Return the mean of values with sources, and its interval over resampled sources."""
    if not values:
        return math.nan, math.nan, math.nan
    numbers = {source: place for place, source in enumerate(dict.fromkeys(s for _, s in values))}
    place = torch.tensor([numbers[source] for _, source in values])
    value = torch.tensor([v for v, _ in values], dtype=torch.double)
    count = torch.zeros(len(numbers), dtype=torch.double)
    if len(numbers) == 1:
        return float(value.mean()), math.nan, math.nan
    sums = count.scatter_add(0, place, value)
    counts = count.scatter_add(0, place, torch.ones_like(value))
    chunk = max(1, _CHUNK // len(numbers))
    means = []
    for turn, start in enumerate(range(0, draws, chunk)):
        size = min(chunk, draws - start)
        times = group_weights(range(len(numbers)), draws=size, seed=seed + turn).double()
        means.append((times @ sums) / (times @ counts))
    tail = (1 - level) / 2
    ends = torch.quantile(torch.cat(means), torch.tensor([tail, 1 - tail], dtype=torch.double))
    return float(value.mean()), float(ends[0]), float(ends[1])
