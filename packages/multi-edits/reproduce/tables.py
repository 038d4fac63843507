"""Tables of the runs: scenes are what is drawn again in the bootstrap, seeds are averaged inside.

A run is what `run.do` writes: ``arm, seed, setting, rows``, the rows one per case.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from statistics import fmean
from typing import Any

import numpy as np
from arms import (
    ARMS,
    EQUAL_ROWS,
    KNOWN,
    LEDITS,
    PARALLEL,
    PER_WORD,
    REFERENCE,
    REVERSED,
    SEQUENTIAL,
    SHUFFLED,
    SINGLE,
)
from cases import COUNTS, STRATA
from judging import BOUND

Run = dict[str, Any]
COMPARED = (  # settled before any run, but for the last three
    (PARALLEL, SINGLE),
    (PARALLEL, PER_WORD),
    (PARALLEL, EQUAL_ROWS),
    (PARALLEL, SEQUENTIAL),
    (PARALLEL, REVERSED),
    (PARALLEL, REFERENCE),
    (PARALLEL, SHUFFLED),
    (PARALLEL, LEDITS),
    (PER_WORD, SINGLE),
    (KNOWN, PARALLEL),
    (KNOWN, SINGLE),
    (KNOWN, PER_WORD),
)
MEASURES = {"joint": "joint success", "accuracy": "edits right", "target": "PSNR to target"}
SUMMARIZED = ("accuracy", "leaks", "outside", "target", "branches", "network rows", "seconds")
MANY = 4  # edits, from which on the strata are told apart
DRAWS = 2000
NO_EFFECT = "no measurable effect at this scale"


def accuracy(row: Run) -> float:
    """Return the share of a case's edits that are right."""
    return fmean(ok for _, ok in row["right"])


def value_of(row: Run, measure: str) -> float | None:
    """Return a measure of a case, None where it is not defined; branches are those planned."""
    if measure == "accuracy":
        return accuracy(row)
    if measure == "branches":
        return len(row["kinds"]) or None
    value = row[measure]
    return None if value is None else float(value)


def choose(runs: Sequence[Run]) -> dict[str, dict[str, Any]]:
    """Return arm -> its frozen setting and what it was chosen by.

    Of the settings that keep at least `BOUND` dB outside the edits, in the mean over the tuning
    scenes, the one with most edits right; if none does, the one that keeps most.

    Args:
        runs: of tuning.
    """
    chosen = {}
    for arm in ARMS:
        points = tuning_points([run for run in runs if run["arm"] == arm])
        if not points:
            continue
        keeping = [point for point in points if point["outside"] >= BOUND]
        best = max(keeping, key=lambda p: (p["edits right"], p["outside"])) if keeping else None
        chosen[arm] = best or max(points, key=lambda p: p["outside"])
    return chosen


def tuning_points(runs: Iterable[Run]) -> list[dict[str, Any]]:
    """Return one row per arm and setting: the points of the Pareto plot."""
    return [
        {
            "arm": run["arm"],
            "setting": run["setting"],
            "edits right": fmean(map(accuracy, run["rows"])),
            "joint": fmean(row["joint"] for row in run["rows"]),
            "outside": fmean(row["outside"] for row in run["rows"] if row["outside"] is not None),
        }
        for run in runs
    ]


def by_scene(
    runs: Sequence[Run], arm: str, measure: str, wanted: Callable[[Run], bool]
) -> dict[int, float]:
    """Return scene -> mean of a measure over its wanted cases and the seeds."""
    found: dict[int, list[float]] = {}
    for run in runs:
        for row in run["rows"] if run["arm"] == arm else ():
            value = value_of(row, measure) if wanted(row) else None
            if value is not None:
                found.setdefault(row["scene"], []).append(value)
    return {scene: fmean(values) for scene, values in found.items()}


def groups() -> dict[str, Callable[[Run], bool]]:
    """Return the parts of the evaluation that are told apart, by name."""

    def of_count(count: int) -> Callable[[Run], bool]:
        return lambda row: bool(row["k"] == count)

    def of_stratum(stratum: str) -> Callable[[Run], bool]:
        return lambda row: row["stratum"] == stratum and row["k"] >= MANY

    parts = {f"k = {count}": of_count(count) for count in COUNTS}
    parts |= {f"{stratum}, k >= {MANY}": of_stratum(stratum) for stratum in STRATA}
    return parts | {"all": lambda row: True}


def summarize(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Return one row per part and arm; joint success with its 95 % interval."""
    table = []
    arms = list(dict.fromkeys(run["arm"] for run in runs))
    for name, wanted in groups().items():
        for arm in arms:
            joint = by_scene(runs, arm, "joint", wanted)
            if not joint:
                continue
            low, high = interval([*joint.values()])
            line = {"cases": name, "arm": arm, "scenes": len(joint), "joint": mean(joint)}
            line |= {"joint 95 % low": low, "joint 95 % high": high}
            for measure in SUMMARIZED:
                line[measure] = mean(by_scene(runs, arm, measure, wanted))
            table.append(line)
    return table


def by_kind(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Return one row per arm: how many edits of each kind are right."""
    table = []
    for arm in dict.fromkeys(run["arm"] for run in runs):
        own = [
            pair for run in runs if run["arm"] == arm for r in run["rows"] for pair in r["right"]
        ]
        line: dict[str, Any] = {"arm": arm}
        for kind in dict.fromkeys(kind for kind, _ in own):
            line[kind] = fmean(ok for each, ok in own if each == kind)
        table.append(line)
    return table


def compared(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Return the differences of `COMPARED`, scene by scene, with bootstrapped 95 % intervals.

    An effect is called one if its interval does not hold 0; intervals are not corrected for their
    number.
    """
    table = []
    for first, second in COMPARED:
        for name, wanted in groups().items():
            for measure, word in MEASURES.items():
                ours, others = (by_scene(runs, arm, measure, wanted) for arm in (first, second))
                apart = [ours[scene] - others[scene] for scene in ours.keys() & others.keys()]
                if len(apart) < 2:
                    continue
                low, high = interval(apart)
                row: dict[str, Any] = {"first": first, "second": second, "cases": name}
                row |= {"measure": word, "first - second": fmean(apart)}
                row |= {"95 % low": low, "95 % high": high, "scenes": len(apart)}
                row["reads"] = NO_EFFECT
                if low > 0 or high < 0:
                    row["reads"] = "higher" if low > 0 else "lower"
                table.append(row)
    return table


def by_cases(table: Sequence[Run]) -> list[dict[str, Any]]:
    """Return one row per arm: its joint success in each part of the evaluation.

    Args:
        table: of `summarize`.
    """
    arms = dict.fromkeys(row["arm"] for row in table)
    return [
        {"arm": arm} | {row["cases"]: row["joint"] for row in table if row["arm"] == arm}
        for arm in arms
    ]


def differences(table: Sequence[Run]) -> list[dict[str, Any]]:
    """Return one row per pair of arms: what they differ by in joint success, with intervals.

    Args:
        table: of `compared`.
    """
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for row in table:
        if row["measure"] == MEASURES["joint"]:
            pair = row["first"], row["second"]
            line = rows.setdefault(pair, {"first": pair[0], "second": pair[1]})
            apart, low, high = (row[key] for key in ("first - second", "95 % low", "95 % high"))
            line[row["cases"]] = f"{apart:+.3f} ({low:+.3f} to {high:+.3f})"
    return [*rows.values()]


def mean(found: dict[int, float]) -> float | None:
    """Return the mean over scenes, None without any."""
    return fmean(found.values()) if found else None


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % interval of a mean from drawing the scenes again."""
    array = np.sort(np.asarray(values, dtype=float))
    picked = np.random.default_rng(0).integers(len(array), size=(DRAWS, len(array)))
    low, high = np.quantile(array[picked].mean(1), (0.025, 0.975))
    return float(low), float(high)
