"""How well a set of pairs is told apart and its words are found, with intervals over sources."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from papercommons.metrics.bootstrap import Estimate, with_intervals
from papercommons.metrics.detection import image_metrics
from papercommons.metrics.verification import accuracy_threshold

from d_tiil.measures import TOKENS, Measured, Row, is_control, precision_area

if TYPE_CHECKING:
    from torch import Tensor


def with_best(measured: Sequence[Measured]) -> tuple[list[Row], dict[str, float]]:
    """Return all rows with the IoU at the best threshold of the set, and those thresholds.

    Args:
        measured: of one method.

    Returns:
        rows, and for iou and iou_changed, where any pair has them, the threshold in [0, 1) of
        greatest mean.
    """
    rows, best = [dict(one.row) for one in measured], dict[str, float]()
    for name in ("iou", "iou_changed"):
        there = [one.curves[name] for one in measured if name in one.curves]
        if there:
            level = int(np.mean(there, axis=0).argmax())
            best[name] = level / 255
            for row, one in zip(rows, measured, strict=True):
                if name in one.curves:
                    row[f"{name}_best"] = float(one.curves[name][level])
    return rows, best


def fit_threshold(rows: Sequence[Row]) -> float:
    """Return the score above which pairs are called inconsistent for greatest accuracy.

    Take rows of another split than those judged with it.

    Args:
        rows: of `d_tiil.measures.measure_pair`; controls do not count.

    Raises:
        ValueError: no scores of one of the two kinds.
    """
    scores, truth = scores_of(rows)
    if not 0 < sum(truth) < len(truth):
        raise ValueError("a threshold needs scores of consistent and of inconsistent pairs")
    return math.nextafter(accuracy_threshold(scores, truth), -math.inf)


def scores_of(rows: Sequence[Row]) -> tuple[list[float], list[int]]:
    """Return scores and truth (1: inconsistent) of the rows that have both and are no controls."""
    there = _scored(rows)
    return [row["score"] for row in there], [row["inconsistent"] for row in there]


def _scored(rows: Sequence[Row]) -> list[Row]:
    return [
        row
        for row in rows
        if row["score"] is not None and row["inconsistent"] is not None and not is_control(row)
    ]


def detection(
    rows: Sequence[Row], *, threshold: float | None = None, draws: int = 1000, seed: int = 0
) -> dict[str, Estimate]:
    """Return how well scores tell inconsistent pairs from consistent ones, controls aside.

    Args:
        rows: of `d_tiil.measures.measure_pair`.
        threshold: of `fit_threshold`, on other pairs; without it only ``auc`` and ``ap`` are given.
        draws: resamples of sources for the intervals.
        seed: of the resampling.

    Returns:
        ``auc, ap`` and those of `papercommons.metrics.detection.image_metrics`; nothing where no
        pair has a score, no ``ap`` where all pairs are of one kind.
    """
    there = _scored(rows)
    if not there:
        return {}
    scores, truth = scores_of(rows)
    sources = [row["source"] or (place,) for place, row in enumerate(there)]
    found = image_metrics(
        scores,
        truth,
        threshold=0.0 if threshold is None else threshold,
        sources=sources,
        draws=draws,
        seed=seed,
    )
    kept = {name: found[name] for name in (["auc"] if threshold is None else found)}
    if 0 < sum(truth) < len(truth):
        kept["ap"] = _average_precision(scores, truth, sources, draws, seed)
    return kept


def _average_precision(
    scores: Sequence[float], truth: Sequence[int], sources: Sequence[Any], draws: int, seed: int
) -> Estimate:
    positive = np.array(truth) == 1
    levels, level = np.unique(np.array(scores), return_inverse=True)
    order = np.argsort(level, kind="stable")
    starts = np.searchsorted(level[order], np.arange(len(levels)))

    def area(weights: Tensor) -> dict[str, np.ndarray]:
        parts = ((weights.numpy() * kind)[:, order] for kind in (positive, ~positive))
        return {"ap": precision_area(*(np.add.reduceat(part, starts, axis=1) for part in parts))}

    return with_intervals(area, sources, draws=draws, seed=seed)["ap"]


def token_scores(rows: Sequence[Row], *, draws: int = 1000, seed: int = 0) -> dict[str, Estimate]:
    """Return ``precision, recall, f1`` of all tokens of a set together, as DGM4 has it.

    Args:
        rows: of `d_tiil.measures.measure_pair`; consistent pairs count by the words that they are
            accused of.
        draws: resamples of sources for the intervals.
        seed: of the resampling.

    Returns:
        nothing where no pair has words, or none is known to be wrong.
    """
    there = [row for row in rows if row.get("word_tp") is not None]
    if not any(row["word_tp"] + row["word_fn"] for row in there):
        return {}
    counts = np.array([[row[name] for name in TOKENS] for row in there], np.float64)
    sources = [row["source"] or (place,) for place, row in enumerate(there)]

    def rates(weights: Tensor) -> dict[str, np.ndarray]:
        tp, fp, fn = (weights.numpy() @ counts).T
        wholes = {"precision": tp + fp, "recall": tp + fn, "f1": tp + (fp + fn) / 2}
        return {name: tp / np.where(all_ > 0, all_, np.nan) for name, all_ in wholes.items()}

    return with_intervals(rates, sources, draws=draws, seed=seed)
