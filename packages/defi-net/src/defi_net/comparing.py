"""`defi-net-compare`: two results on the same photographs, image by image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from papercommons.errors import DataError
from papercommons.files import hash_files, prepare_out, write_csv
from papercommons.metrics.tables import Difference, compare
from papercommons.report import Result, Section, write_report

from defi_net.evaluation import Row, metric_columns, read_rows, undistorted
from defi_net.options import PACKAGE
from defi_net.pictures import differences_png, metric_name

LIMITS = (
    "Only photographs that both results have are compared. Many measures and groups are looked at: "
    "of twenty intervals at 95 % one excludes zero by chance. Photographs of one source are drawn "
    "together; whether these sources stand for others the interval does not say."
)
_LONG = ("second higher", "second lower", "undefined")  # only in the long table
_USUAL = ("f1", "f1_best", "f1_fixed", "false_positive_rate")


def table_path(place: str | Path) -> Path:
    """Return the table of photographs that a path means.

    Args:
        place: --out folder of defi-net-eval or -train, its result.json, or items.csv itself.

    Raises:
        DataError: it is not there.
    """
    path = Path(place)
    if path.suffix == ".json":
        path = path.parent
    if path.is_dir():
        path = path / "items.csv"
    if not path.is_file():
        raise DataError(
            f"{place}: no items.csv there; give the --out folder of defi-net-eval or its "
            "result.json"
        )
    return path


def compare_results(
    first: str,
    second: str,
    metrics: Sequence[str] | None,
    by: str | None,
    bootstrap: int,
    out: str | None,
    seed: int,
    overwrite: bool,
) -> Result:
    """Compare two tables and return the result.

    Args:
        first: see `table_path`.
        second: likewise; differences are this one minus the first.
        metrics: columns; those of the main protocol if not given.
        by: method or source, or None.
        bootstrap: resamples of sources for the intervals.
        out: folder for the report; None writes nothing.
        seed: of the resampling.
        overwrite: empty `out` first.

    Raises:
        DataError: a table is missing or broken, or they are not of the same photographs.
        ValueError: there is no such measure.
    """
    paths = [table_path(place) for place in (first, second)]
    tables = [undistorted(read_rows(path)) for path in paths]
    one, two = ({row["name"]: row for row in table} for table in tables)
    both = [name for name in one if name in two]
    if not both:
        raise DataError(f"{first} and {second} have no photograph in common")
    for name in both:
        if one[name]["label"] != two[name]["label"]:
            raise DataError(f"{name} is forged in one result and authentic in the other")
    known = [name for name in metric_columns(tables[0]) if name in metric_columns(tables[1])]
    for name in metrics or ():
        if name not in known:
            raise ValueError(f"--metrics: no {name} in both; there are {', '.join(known)}")
    found = compare(tables[0], tables[1], known, by=by, draws=bootstrap, seed=seed)
    shown = list(metrics) if metrics else _usual(known)
    settings: dict[str, Any] = {"first": first, "second": second, "metrics": shown, "by": by}
    settings |= {"bootstrap": bootstrap, "out": out, "seed": seed}
    alone = [len(table) - len(both) for table in (one, two)]
    result = Result(
        package=PACKAGE,
        command="defi-net-compare",
        title=f"{second} minus {first}: {len(both):,} photographs",
        rows=[
            {name: cell for name, cell in _row(d, by).items() if name not in _LONG}
            for metric in shown
            for d in found
            if d.metric == metric
        ],
        metrics={"photographs": len(both), "differences": _numbers(found)},
        settings=settings,
        limits=LIMITS,
        data_hash=hash_files(paths),
        device="cpu",
        notes=[
            *([f"only in one of the two, left out: {alone[0]} and {alone[1]}"] * any(alone)),
            "an interval that excludes 0 shows a difference",
        ],
    )
    if out is not None:
        folder = prepare_out(out, settings, overwrite=overwrite)
        write_csv(folder / "comparison.csv", [_row(d, by) for d in found])
        result.files["comparison"] = str(folder / "comparison.csv")
        sections = [
            Section(
                "Second minus first",
                figure=differences_png(found, shown),
                caption="Means over photographs of the differences, 95 % intervals over sources.",
            ),
            Section("All measures", rows=[_row(d, by) for d in found]),
        ]
        write_report(folder / "report.html", result, sections)
        result.save(folder)
    return result


def _usual(known: Sequence[str]) -> list[str]:
    """Return the measures that a table shows: of one protocol, imdl where it is there."""
    for protocol in ("imdl", "official", "trufor"):
        own = [f"{protocol}_{name}" for name in _USUAL if f"{protocol}_{name}" in known]
        if own:
            return [name for name in (*own, "auc", "boundary_f1") if name in known]
    return list(known)


def _row(d: Difference, by: str | None) -> Row:
    return {
        by or "group": d.group,
        "measure": metric_name(d.metric),
        "first": d.first,
        "second": d.second,
        "difference": d.value,
        "95 % low": d.low,
        "95 % high": d.high,
        "second higher": d.higher,
        "second lower": d.lower,
        "photographs": d.images,
        "undefined": d.undefined,
    }


def _numbers(found: Sequence[Difference]) -> dict[str, dict[str, Any]]:
    groups: dict[str, dict[str, Any]] = {}
    for d in found:
        groups.setdefault(d.group, {})[d.metric] = {
            "first": d.first,
            "second": d.second,
            "difference": d.value,
            "interval": [d.low, d.high],
            "photographs": d.images,
            "undefined": d.undefined,
        }
    return groups
