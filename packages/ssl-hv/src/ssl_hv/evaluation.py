"""What a verifier says about pairs, and what that comes to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from papercommons.data.pairs import Pairs
from papercommons.data.words import Words
from papercommons.metrics.bootstrap import Estimate
from papercommons.metrics.verification import (
    accuracy_threshold,
    fit_calibration,
    verification_metrics,
)
from torch import Tensor

from ssl_hv.verifier import SiameseVerifier

LABELS = {
    "accuracy": "accuracy",
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
    "auc": "ROC AUC",
    "eer": "equal error rate",
    "false_match_rate": "false match rate",
    "false_non_match_rate": "false non-match rate",
    "cllr": "Cllr",
    "min_cllr": "Cllr, least by calibration",
    "brier": "Brier score",
    "ece": "calibration error",
}


@dataclass
class Judgement:
    """What a verifier says about pairs.

    Attributes:
        pairs: places of the images.
        scores: float64, shape (P,).
        llr: natural-log likelihood ratios, float64, shape (P,).
        threshold: on the scores.
        metrics: name -> value with interval.
    """

    pairs: Pairs
    scores: np.ndarray
    llr: np.ndarray
    threshold: float
    metrics: dict[str, Estimate]

    def rows(self) -> list[dict[str, Any]]:
        """Return the result table, one row per metric."""
        return [
            {
                "metric": words,
                "value": self.metrics[name].value,
                "95 % low": self.metrics[name].low,
                "95 % high": self.metrics[name].high,
            }
            for name, words in LABELS.items()
        ]

    def numbers(self) -> dict[str, Any]:
        """Return every number by name, with intervals."""
        plain: dict[str, Any] = {name: metric.value for name, metric in self.metrics.items()}
        bounds = {name: [m.low, m.high] for name, m in self.metrics.items()}
        same = int(self.pairs.same.sum())
        return {
            **plain,
            "intervals": bounds,
            "threshold": self.threshold,
            "pairs": len(self.pairs),
            "same_writer_pairs": same,
        }


@torch.no_grad()
def score_pairs(verifier: SiameseVerifier, embeddings: Tensor, pairs: Pairs) -> np.ndarray:
    """Return the scores of pairs, float64, shape (P,).

    Args:
        verifier: its head scores.
        embeddings: of all images, float32 on the CPU, shape (N, dim).
        pairs: places in `embeddings`.
    """
    verifier.head.cpu().eval()
    parts = [
        verifier.score(embeddings[left], embeddings[right])
        for left, right in zip(
            torch.as_tensor(pairs.left).split(8192),
            torch.as_tensor(pairs.right).split(8192),
            strict=True,
        )
    ]
    found: np.ndarray = torch.cat(parts).double().numpy()
    return found


def calibrate(verifier: SiameseVerifier, embeddings: Tensor, pairs: Pairs) -> dict[str, Any]:
    """Set calibration and threshold from pairs of held-out training writers.

    Args:
        verifier: gets both.
        embeddings: of all images, float32 on the CPU, shape (N, dim).
        pairs: of writers that were not trained on, with both kinds.

    Returns:
        What a saved verifier remembers of them: 101 quantiles of the ln LR of either kind, and the
        numbers of pairs.
    """
    scores = score_pairs(verifier, embeddings, pairs)
    calibration = fit_calibration(scores, pairs.same)
    verifier.slope.fill_(calibration.slope)
    verifier.intercept.fill_(calibration.intercept)
    verifier.threshold.fill_(accuracy_threshold(scores, pairs.same))
    llr, steps = calibration.llr(scores), np.linspace(0, 1, 101)
    kinds = {"same": llr[pairs.same == 1], "different": llr[pairs.same == 0]}
    quantiles = {
        kind: [float(f"{v:.6g}") for v in np.quantile(values, steps)]
        for kind, values in kinds.items()
    }
    return {**quantiles, "pairs": {kind: len(values) for kind, values in kinds.items()}}


def judge(
    verifier: SiameseVerifier,
    embeddings: Tensor,
    words: Words,
    pairs: Pairs,
    *,
    threshold: float | None = None,
    draws: int = 1000,
    seed: int = 0,
) -> Judgement:
    """Return what a verifier says about pairs.

    Args:
        verifier: calibrated.
        embeddings: of all images, float32 on the CPU, shape (N, dim).
        words: gives the writers, whom the intervals resample.
        pairs: what is judged.
        threshold: on the scores; the verifier's own if not given.
        draws: resamples of writers.
        seed: of the resampling.
    """
    scores = score_pairs(verifier, embeddings, pairs)
    llr = verifier.log_likelihood_ratio(torch.from_numpy(scores)).numpy()
    threshold = float(verifier.threshold) if threshold is None else threshold
    writers = np.asarray(words.writers)
    metrics = verification_metrics(
        scores,
        llr,
        pairs.same,
        writers[pairs.left],
        writers[pairs.right],
        threshold=threshold,
        draws=draws,
        seed=seed,
    )
    return Judgement(pairs, scores, llr, threshold, metrics)


def notes_of(found: Judgement, words: Words) -> list[str]:
    """Return what is odd about the pairs, a line each.

    Args:
        found: what the verifier says.
        words: those left out are named.
    """
    same = int(found.pairs.same.sum())
    notes = [f"{same:,} of {len(found.pairs):,} pairs are of one writer"]
    if same in (0, len(found.pairs)):
        notes.append("ONLY ONE KIND OF PAIR: AUC, error rates and Cllr are not defined (–)")
    notes += [f"left out: {name}" for name in words.bad]
    return notes
