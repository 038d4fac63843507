"""What the records of a run come to: both accounts, calibrated measures, gaps to its controls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from papercommons.errors import DataError
from papercommons.metrics.bootstrap import Estimate
from papercommons.metrics.calibration import Calibration, fit_calibration
from papercommons.metrics.verification import verification_metrics

from vlm_hv.accounting import Account, ablation_gap, account
from vlm_hv.records import Record
from vlm_hv.runs import Run

LEAST = 1e-6  # a score of 0 or 1 counts as this far from it
CALIBRATED = {
    "cllr": "Cllr, calibrated on other pairs",
    "min_cllr": "Cllr, least by calibration",
    "accuracy_at_half": "accuracy, LLR above 0",
    "ece": "calibration error, calibrated",
}
NONE = Estimate(float("nan"), float("nan"), float("nan"))


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
    calibrated: dict[str, Estimate] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def same(self) -> np.ndarray:
        """Labels, int64, shape (P,)."""
        return np.array([record["label"] for record in self.run.records], np.int64)


def judge_run(
    run: Run, val: Sequence[Record] | None, *, draws: int = 1000, seed: int = 0
) -> Judged:
    """Return what a run comes to.

    Args:
        run: with labels of both kinds.
        val: records of the same system on other pairs, to calibrate on.
        draws: resamples of writers.
        seed: of the resampling.

    Raises:
        DataError: see `account`, `calibrate`.
    """
    found = account(run.records, draws=draws, seed=seed)
    if val is None:
        return Judged(run, found)
    fitted, notes = calibrate(run, val)
    llr = np.array([ratio(fitted, record) for record in run.records])
    writers = [record.get("writers") for record in run.records]
    known = all(pair is not None for pair in writers)
    left, right = zip(*(writers if known else [("", "")] * len(writers)), strict=True)
    same = [record["label"] for record in run.records]
    measured = verification_metrics(
        llr, llr, same, left, right, threshold=0.0, draws=draws if known else 1, seed=seed
    )
    metrics = {
        name: measured[name] if known else measured[name]._replace(low=NONE.low, high=NONE.high)
        for name in CALIBRATED
    }
    return Judged(run, found, llr, metrics, notes)


def calibrate(run: Run, val: Sequence[Record]) -> tuple[Calibration, list[str]]:
    """Return the map from log-odds of scores to log-likelihood ratios, and what to know of it.

    Args:
        run: that is judged.
        val: records of the same system on other pairs.

    Raises:
        DataError: another system, the same pairs, or scores of one kind only.
    """
    for name in ("backend", "model", "weights", "mode", "prompt_sha256", "swap", "ablation"):
        ours, theirs = run.settings.get(name), val[0]["settings"].get(name)
        if ours != theirs:
            raise DataError(
                f"--calibration of {run.name}: its {name} is {theirs!r}, that of the run {ours!r}; "
                "give the same system's run on other pairs"
            )
    names = {(record["known"], record["questioned"]) for record in run.records}
    if shared := sum((record["known"], record["questioned"]) in names for record in val):
        raise DataError(
            f"--calibration of {run.name}: {shared} of its pairs are judged too; calibrate on "
            "others, such as --split val"
        )
    scored = [r for r in val if r["score"] is not None and r["label"] is not None]
    if len({record["label"] for record in scored}) < 2:
        raise DataError(
            f"--calibration of {run.name}: needs pairs with label and score, of both kinds"
        )
    ours, theirs = writers_of(run.records), writers_of(val)
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
    """Return the log-likelihood ratio of a pair; without a score it is 0: no evidence.

    Args:
        fitted: see `calibrate`.
        record: of the pair.
    """
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


def numbers(one: Judged) -> dict[str, Any]:
    """Return every number of a run by name."""
    found = one.account.numbers()
    intervals = found["intervals"] | {
        f"calibrated_{name}": [metric.low, metric.high] for name, metric in one.calibrated.items()
    }
    more = {f"calibrated_{name}": metric.value for name, metric in one.calibrated.items()}
    return {**found, **more, "intervals": intervals}
