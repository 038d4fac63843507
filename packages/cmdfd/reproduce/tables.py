"""Tables of the runs. A seed is what is compared: its people, clips, teachers and start are one.

A run is what `run.do` writes: ``seed, arm, seconds``, and ``auc``: kind of fake -> number;
those of students also ``by correlation`` and ``sync``, likewise, and ``moved``: frames -> mean
correlation.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from statistics import fmean, stdev
from typing import Any

import numpy as np
from corpora import SEEN, UNSEEN
from scipy.stats import ttest_1samp

Run = dict[str, Any]
MEAN = "unseen, mean"
TESTS = (SEEN, *UNSEEN, MEAN)
PLAIN, JEFFREYS, JS = "plain", "+ Jeffreys target", "+ JS target"
COMPARED = (  # settled before any run; the first two, on the mean of the unseen kinds, are the aim
    (JS, PLAIN),
    (JEFFREYS, PLAIN),
    (JS, JEFFREYS),
    ("+ JS, L_dist alone", PLAIN),
    ("+ JS, L_con alone", PLAIN),
    ("+ JS, real clips", JS),
)
FAR = 6  # frames: a shift that nobody takes for a natural lag
NO_EFFECT = "no effect seen"


def number(run: Run, test: str, score: str = "auc") -> float:
    """Return the AUC of a run for a kind of fakes, or the mean over the unseen kinds."""
    found = run[score]
    return fmean(found[kind] for kind in UNSEEN) if test == MEAN else float(found[test])


def spread(word: str, values: Sequence[float]) -> dict[str, float | None]:
    """Return mean and standard deviation under their names."""
    return {word: fmean(values), f"{word} std": stdev(values) if len(values) > 1 else None}


def by_arm(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Return arm -> its runs, in the order of the runs."""
    found: dict[str, list[Run]] = {}
    for run in runs:
        found.setdefault(run["arm"], []).append(run)
    return found


def summarize(runs: Sequence[Run], score: str = "auc") -> list[dict[str, Any]]:
    """Return one row per arm: the AUC of each kind.

    Args:
        runs: of all seeds.
        score: ``auc``, of what the arm says; ``by correlation``, of minus the mean c_t; ``sync``,
            of its embeddings' offset, see `cmdfd.baselines.sync_scores`.
    """
    table = []
    for arm, own in by_arm(runs).items():
        if score not in own[0]:
            continue
        line: dict[str, Any] = {"arm": arm, "seeds": len(own)}
        for test in TESTS:
            line |= spread(test, [number(run, test, score) for run in own])
        table.append(line)
    return table


def flipped(differences: Sequence[float]) -> float:
    """Return p of the exact test by signs: how often is a sum as large if signs are chance?

    Args:
        differences: one per seed; n of them give no p below 2 ** (1 - n).
    """
    values = np.array(differences)
    sums = np.array([*product((-1, 1), repeat=len(values))]) @ values
    return float((np.abs(sums) >= abs(values.sum()) - 1e-12).mean())


def compared(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Return the paired differences of `COMPARED`: interval and p of Student's t over seeds."""
    of_seeds = {arm: {run["seed"]: run for run in own} for arm, own in by_arm(runs).items()}
    table = []
    for first, second in COMPARED:
        ours, others = of_seeds.get(first, {}), of_seeds.get(second, {})
        seeds = sorted(ours.keys() & others.keys())
        if len(seeds) < 2:
            continue
        for test in (MEAN, SEEN, *UNSEEN):
            differences = [number(ours[s], test) - number(others[s], test) for s in seeds]
            table.append({"first": first, "second": second, "AUC of": test} | verdict(differences))
    return table


def verdict(differences: Sequence[float]) -> dict[str, Any]:
    """Return mean, interval, both p, and what they say; intervals are not corrected for number."""
    mean = fmean(differences)
    low = high = mean
    p = 1.0 if mean == 0 else 0.0
    if len(set(differences)) > 1:
        tested = ttest_1samp(differences, 0)
        low, high = map(float, tested.confidence_interval())
        p = float(tested.pvalue)
    reads = NO_EFFECT
    if low > 0 or high < 0:
        reads = "higher" if low > 0 else "lower"
    return {
        "first - second": mean,
        "95 % low": low,
        "95 % high": high,
        "p (t)": p,
        "p (signs)": flipped(differences),
        "seeds that agree": f"{sum(d * mean > 0 for d in differences)} of {len(differences)}",
        "reads": reads,
    }


def curves(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Return one row per student: mean c_t of real clips by how late their sound is.

    ``falls``: the mean over lags up to 1 frame minus that over lags from `FAR` frames on.
    """
    table = []
    for arm, own in by_arm(runs).items():
        if "moved" not in own[0]:
            continue
        line: dict[str, Any] = {"arm": arm, "seeds": len(own)}
        line |= spread("falls", [fall(run["moved"]) for run in own])
        for lag in own[0]["moved"]:
            line[f"{int(lag):+d}" if int(lag) else "0"] = fmean(run["moved"][lag] for run in own)
        table.append(line)
    return table


def fall(moved: dict[str, float]) -> float:
    """Return how much lower the correlation of clips is whose sound is far off.

    Args:
        moved: frames -> mean correlation.
    """
    near = [value for lag, value in moved.items() if abs(int(lag)) <= 1]
    far = [value for lag, value in moved.items() if abs(int(lag)) >= FAR]
    return fmean(near) - fmean(far)


def teachers(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Return one row: the share of the frames of real test clips that the teachers understand."""
    own = list({run["seed"]: run["understood"] for run in runs if "understood" in run}.values())
    if not own:
        return []
    line: dict[str, Any] = {"seeds": len(own)}
    for word in own[0]:
        line |= spread(word, [understood[word] for understood in own])
    return [line]
