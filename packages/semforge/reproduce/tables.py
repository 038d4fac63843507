"""Tables of the runs: the fold of speakers is what is compared, with seeds averaged inside.

A run is what `run.do` writes: ``seed, fold, arm, task``, and ``rows`` of one per test.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, stdev
from typing import Any

from scipy.stats import ttest_1samp

Run = dict[str, Any]
LEFT_OUT = "left out"
MEAN = "attribute left out, mean"
COMPARED = (  # settled before any run
    ("graph", "binary"),
    ("graph", "flat"),
    ("flat", "binary"),
    ("graph, Auto-lambda", "graph"),
    ("graph, nll", "graph"),
    ("graph, all labels", "graph"),
    ("flat, all labels", "flat"),
    ("graph, all labels", "flat, all labels"),
)
TESTS = ("seen", "unseen", MEAN)
MEASURES = {"auc": "AUC", "attributes": "AUC of attributes", "regions": "AUC of regions"}
SHOWN = {
    "auc": "AUC",
    "tpr_at_1_fpr": "TPR",
    "ece": "ECE",
    "attributes": "attributes",
    "regions": "regions",
    "exact": "exact",
}
NO_EFFECT = "no effect seen"


def values(runs: Sequence[Run], arm: str, test: str, measure: str) -> dict[tuple[int, int], float]:
    """Return (fold, seed) -> a measure; of `MEAN` where all attributes are there."""
    found: dict[tuple[int, int], list[float]] = {}
    tasks = {run["task"] for run in runs if run["rows"][0]["test"].endswith(LEFT_OUT)}
    for run in runs:
        for row in run["rows"]:
            fits = row["test"].endswith(LEFT_OUT) if test == MEAN else row["test"] == test
            if run["arm"] == arm and fits and measure in row:
                found.setdefault((run["fold"], run["seed"]), []).append(row[measure])
    whole = len(tasks) if test == MEAN else 1
    return {key: fmean(each) for key, each in found.items() if len(each) == whole}


def by_fold(found: dict[tuple[int, int], float]) -> dict[int, float]:
    """Return fold -> mean over its seeds."""
    return {
        fold: fmean(value for (own, _), value in found.items() if own == fold)
        for fold in sorted({fold for fold, _ in found})
    }


def summarize(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Return one row per test and arm."""
    arms = list(dict.fromkeys(run["arm"] for run in runs))
    tests = list(dict.fromkeys(row["test"] for run in runs for row in run["rows"]))
    table = []
    for test in [*tests, *([MEAN] if any(t.endswith(LEFT_OUT) for t in tests) else [])]:
        for arm in arms:
            there = values(runs, arm, test, "auc")
            if not there:
                continue
            line: dict[str, Any] = {"tested on": test, "arm": arm}
            line["seeds"] = len({seed for _, seed in there})
            for measure, word in SHOWN.items():
                line |= spread(word, [*by_fold(values(runs, arm, test, measure)).values()])
            table.append(line)
    return table


def spread(word: str, of_folds: Sequence[float]) -> dict[str, float | None]:
    """Return mean and standard deviation under their names."""
    mean = fmean(of_folds) if of_folds else None
    return {word: mean, f"{word} std": stdev(of_folds) if len(of_folds) > 1 else None}


def compared(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Return the differences of `COMPARED` with 95 % intervals of Student's t over folds.

    Each fold gives one difference: the mean over the seeds that both arms have in it. An effect is
    called one if the interval does not hold 0; intervals are not corrected for their number.
    """
    table = []
    for first, second in COMPARED:
        for test in TESTS:
            for measure, word in MEASURES.items():
                ours, others = (values(runs, arm, test, measure) for arm in (first, second))
                differences = {key: ours[key] - others[key] for key in ours.keys() & others.keys()}
                of_folds = [*by_fold(differences).values()]
                if len(of_folds) < 2:
                    continue
                tested = ttest_1samp(of_folds, 0)
                low, high = map(float, tested.confidence_interval())
                mean = fmean(of_folds)
                agree = sum(each * mean > 0 for each in of_folds)
                row: dict[str, Any] = {"first": first, "second": second, "tested on": test}
                row |= {"measure": word, "first - second": mean, "95 % low": low}
                row |= {"95 % high": high, "p": float(tested.pvalue)}
                row["folds that agree"] = f"{agree} of {len(of_folds)}"
                row["seeds"] = len({seed for _, seed in differences})
                row["reads"] = NO_EFFECT
                if low > 0 or high < 0:
                    row["reads"] = "higher" if low > 0 else "lower"
                table.append(row)
    return table


def curves(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Return one row per perturbation: AUC of each arm, mean and deviation over folds."""
    own = [run for run in runs if run["perturbed"]]
    table = []
    for change in dict.fromkeys(name for run in own for name in run["perturbed"]):
        line: dict[str, Any] = {"after": change}
        for arm in dict.fromkeys(run["arm"] for run in own):
            line |= spread(arm, [run["perturbed"][change] for run in own if run["arm"] == arm])
        table.append(line)
    return table
