"""Tables of the runs: means over seeds, paired differences, and the rule settled beforehand.

A run is ``{"variant", "seed", "parameters", "seconds", "rows"}`` with one row per crop and engine.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, stdev
from typing import Any

from crops import SEEN, UNSEEN
from papercommons.metrics.tables import compare

Run = dict[str, Any]
COMPARED = (  # settled before any run
    ("full", "FPN"),
    ("full", "FPN, as large as full"),
    ("full", "U-Net"),
    ("DFPL + sum", "FPN"),
    ("full, edge weight 0", "DFPL + sum"),
    ("full", "full, edge weight 0"),
    ("full", "full, official SAFF start"),
    ("full, weighted BCE", "full"),
)
MEASURES = (  # words, measure, group of engines
    ("F1", "imdl_f1", "all"),
    ("F1, engines unseen in training", "imdl_f1", "unseen"),
    ("boundary F1", "boundary_f1", "all"),
    ("false alarms", "imdl_false_positive_rate", "authentic"),
)
ENGINES = {"all": (*SEEN, *UNSEEN), "unseen": UNSEEN, "authentic": ("authentic",)}
NO_EFFECT = "no measurable effect at this scale"


def mean(rows: Sequence[Run], measure: str) -> float:
    """Return the mean of a measure over the rows that have it."""
    return fmean(row[measure] for row in rows if measure in row)


def over_seeds(runs: Sequence[Run], measure: str, *engines: str) -> list[float]:
    """Return a measure of each run: its mean over the engines, each counting the same."""
    return [
        fmean(mean([r for r in run["rows"] if r["engine"] == e], measure) for e in engines)
        for run in runs
    ]


def summarize(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Return one row per variant, of the crops."""
    table = []
    engines = (*SEEN, *UNSEEN)
    for name, own in by_variant(runs).items():
        line: dict[str, Any] = {"variant": name, "parameters": own[0]["parameters"]}
        line["seeds"] = len(own)
        line |= {engine: fmean(over_seeds(own, "imdl_f1", engine)) for engine in engines}
        for word, measure, kinds in (
            ("f1", "imdl_f1", engines),
            ("boundary f1", "boundary_f1", engines),
            ("auc", "auc", engines),
            ("false alarms", "imdl_false_positive_rate", ("authentic",)),
        ):
            line |= spread(word, over_seeds(own, measure, *kinds))
        table.append(line)
    return table


def of_new_photos(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Return F1 and false alarms on the earlier and on the new test photographs."""
    table = []
    for name, own in by_variant(runs).items():
        line: dict[str, Any] = {"variant": name}
        for photos in ("earlier", "new"):
            parts = [{"rows": [r for r in run["rows"] if r["photos"] == photos]} for run in own]
            line |= spread(f"f1, {photos}", over_seeds(parts, "imdl_f1", *SEEN, *UNSEEN))
            alarms = over_seeds(parts, "imdl_false_positive_rate", "authentic")
            line |= spread(f"false alarms, {photos}", alarms)
        table.append(line)
    return table


def of_deepfill(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Return one row per variant, of the whole photographs that a deep network inpainted."""
    table = []
    for name, own in by_variant(runs).items():
        line: dict[str, Any] = {"variant": name}
        for word, measure in (
            ("f1", "imdl_f1"),
            ("auc", "auc"),
            ("boundary f1", "boundary_f1"),
            ("false alarms", "imdl_false_positive_rate"),
        ):
            line |= spread(word, over_seeds(own, measure, "deepfill"))
        table.append(line)
    return table


def by_variant(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Return the runs of each variant."""
    names = dict.fromkeys(run["variant"] for run in runs)
    return {name: [run for run in runs if run["variant"] == name] for name in names}


def spread(word: str, values: Sequence[float]) -> dict[str, float | None]:
    """Return mean and standard deviation under their names."""
    return {word: fmean(values), f"{word} std": stdev(values) if len(values) > 1 else None}


def averaged(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Return the rows of crops with their measures averaged over seeds."""
    measures = {measure for _, measure, _ in MEASURES}
    table = []
    for same in zip(*(run["rows"] for run in runs), strict=True):
        if same[0]["engine"] == "deepfill":
            continue
        row = {key: same[0][key] for key in ("name", "kind", "crop", "source")}
        there = measures & same[0].keys()
        table.append(row | {key: fmean(each[key] for each in same) for key in there})
    return table


def compared(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Return the differences of `COMPARED`, crop by crop, with 95 % intervals.

    The seeds of a variant are averaged first. Once crops are resampled, each with all its engines,
    and once photographs. An effect is called one if neither interval holds 0 and the difference
    has the same sign for every seed.
    """
    of, table = by_variant(runs), []
    for first, second in COMPARED:
        if first not in of or second not in of:
            continue
        ours, others = averaged(of[first]), averaged(of[second])
        of_crops, of_photos = (
            {(d.group, d.metric): d for d in compare(others, ours, by="kind", source=source)}
            for source in ("crop", "source")
        )
        for words, measure, group in MEASURES:
            one, other = of_crops[group, measure], of_photos[group, measure]
            by_seed = seed_differences(of[first], of[second], measure, ENGINES[group])
            agree = sum(each * one.value > 0 for each in by_seed)
            low, high = min(one.low, other.low), max(one.high, other.high)
            effect = (low > 0 or high < 0) and agree == len(by_seed)
            table.append(
                {
                    "first": first,
                    "second": second,
                    "measure": words,
                    "first - second": one.value,
                    "95 % low": one.low,
                    "95 % high": one.high,
                    "over photographs low": other.low,
                    "over photographs high": other.high,
                    "seeds that agree": f"{agree} of {len(by_seed)}",
                    "reads": ("higher" if low > 0 else "lower") if effect else NO_EFFECT,
                }
            )
    return table


def seed_differences(
    first: Sequence[Run], second: Sequence[Run], measure: str, engines: Sequence[str]
) -> list[float]:
    """Return first - second for each seed that both have."""
    ours, others = (
        {run["seed"]: over_seeds([run], measure, *engines)[0] for run in runs}
        for runs in (first, second)
    )
    return [ours[seed] - others[seed] for seed in ours.keys() & others.keys()]


def rule(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return whether the rule that was settled beforehand is met."""
    of = {row["variant"]: row for row in rows}
    if "full" not in of or "FPN" not in of:
        return []
    full, fpn = of["full"], of["FPN"]
    tests = (
        ("F1 of full is at least FPN's", "f1", full["f1"] >= fpn["f1"]),
        (
            "full has fewer false alarms than FPN",
            "false alarms",
            full["false alarms"] < fpn["false alarms"],
        ),
    )
    return [
        {"rule": words, "full": full[key], "FPN": fpn[key], "met": "yes" if met else "no"}
        for words, key, met in tests
    ]
