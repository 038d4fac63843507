"""What records come to: twice, once with every missing decision wrong, once without them.

Precision, recall and F1 are of "same". Intervals are 95 % over resampled writers
(`papercommons.metrics.verification`); where writers are not known there are none.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

import numpy as np
from papercommons.errors import DataError
from papercommons.metrics.bootstrap import Estimate
from papercommons.metrics.verification import pair_weights, verification_metrics

from vlm_hv.records import Record

LABELS = {"accuracy": "accuracy", "precision": "precision", "recall": "recall", "f1": "F1"}
SCORE_LABELS = {"auc": "ROC AUC", "eer": "equal error rate"}
PROBABILITY_LABELS = {"brier": "Brier score", "ece": "calibration error", "cllr": "Cllr"}
GRADED = ("json", "logprob", "baseline")  # modes whose scores are probabilities
_LEAST = 1e-6  # a stated probability of 0 or 1 counts as this far from it
_NONE = float("nan")


@dataclass(frozen=True)
class Account:
    """What a run's records come to.

    Attributes:
        over_all: accuracy, precision, recall, f1; a pair without a decision counts as wrong: as
            different if one writer wrote both, else as same.
        over_answered: the same over pairs with a decision.
        scores: auc and eer over pairs with a score; brier, ece and cllr where scores are
            probabilities (modes json and logprob).
        coverage: share of pairs with a decision.
        order_disagreement: share of pairs whose two orders led to different decisions.
        majority: accuracy of always giving the more frequent answer.
        counts: pairs, scored, and of each status and decision.
        problems: how often answers departed from what was asked.
        tokens: prompt and completion, where told.
        cost: None without prices.
        seconds: median per pair.
    """

    over_all: dict[str, Estimate]
    over_answered: dict[str, Estimate]
    scores: dict[str, Estimate]
    coverage: Estimate
    order_disagreement: Estimate
    majority: float
    counts: dict[str, int]
    problems: dict[str, int]
    tokens: dict[str, int]
    cost: float | None
    seconds: float

    def rows(self, unknown: Literal["wrong", "drop", "both"] = "both") -> list[dict[str, Any]]:
        """Return the result table.

        Args:
            unknown: which of both accounts is shown: wrong is over all pairs, drop over answered.
        """
        parts = {"wrong": [("all", self.over_all)], "drop": [("answered", self.over_answered)]}
        parts["both"] = parts["wrong"] + parts["drop"]
        rows = [
            _row(f"{words}, {over} pairs", found[name])
            for over, found in parts[unknown]
            for name, words in LABELS.items()
        ]
        rows.append(_row("coverage", self.coverage))
        for name, words in (SCORE_LABELS | PROBABILITY_LABELS).items():
            if name in self.scores:
                rows.append(_row(f"{words}, scored pairs", self.scores[name]))
        if not math.isnan(self.order_disagreement.value):
            rows.append(_row("orders disagree", self.order_disagreement))
        return rows

    def numbers(self) -> dict[str, Any]:
        """Return every number by name, intervals apart."""
        metrics = {f"{name}_over_all": m for name, m in self.over_all.items()}
        metrics |= {f"{name}_over_answered": m for name, m in self.over_answered.items()}
        metrics |= self.scores
        metrics |= {"coverage": self.coverage, "order_disagreement": self.order_disagreement}
        return {
            **{name: metric.value for name, metric in metrics.items()},
            "intervals": {name: [m.low, m.high] for name, m in metrics.items()},
            "majority": self.majority,
            "counts": self.counts,
            "problems": self.problems,
            "tokens": self.tokens,
            "cost": self.cost,
            "seconds_per_pair": self.seconds,
        }


def _row(words: str, metric: Estimate) -> dict[str, Any]:
    return {"metric": words, "value": metric.value, "95 % low": metric.low} | {
        "95 % high": metric.high
    }


def account(records: Sequence[Record], *, draws: int = 1000, seed: int = 0) -> Account:
    """Return what records come to.

    Args:
        records: of pairs with labels.
        draws: resamples of writers, >= 1.
        seed: of the resampling.

    Raises:
        DataError: there are no records, one has no label, or all labels are the same.
    """
    same = _labels(records)
    said = [record["prediction"] for record in records]
    answered = np.array([decision != "unknown" for decision in said])
    weights = _weights(records, draws, seed)
    right = np.array([d == ("same" if s else "different") for d, s in zip(said, same, strict=True)])
    disagrees = np.array([record.get("order_agrees") is False for record in records])
    twice = np.array([record.get("order_agrees") is not None for record in records])
    costs = [record["cost"] for record in records if record.get("cost") is not None]
    return Account(
        over_all=_confusion(same, right, np.ones_like(answered), weights),
        over_answered=_confusion(same, right, answered, weights),
        scores=_score_metrics(records, draws, seed),
        coverage=_share(answered, np.ones_like(answered), weights),
        order_disagreement=_share(disagrees, twice, weights),
        majority=float(max(same.mean(), 1 - same.mean())),
        counts=_counts(records),
        problems=dict(Counter(p for r in records for o in r["opinions"] for p in _kinds(o))),
        tokens=_tokens(records),
        cost=math.fsum(costs) if costs else None,
        seconds=median(float(record.get("seconds") or 0) for record in records),
    )


def ablation_gap(
    records: Sequence[Record], control: Sequence[Record], *, draws: int = 1000, seed: int = 0
) -> Estimate:
    """Return balanced accuracy (unknown = wrong) minus a control's, over the pairs both have.

    Near 0 means that the pictures do not matter: they may never have reached the model. Both kinds
    of pair weigh the same, in every resample too: a control that always says one thing is at 1/2.

    Args:
        records: of the run itself.
        control: of the run with ``--ablate``.
        draws: resamples of writers, both runs with the same.
        seed: of the resampling.

    Raises:
        DataError: they have no pair in common, or a label is missing.
    """
    found = {_identity(record): record for record in control}
    both = [(record, found[_identity(record)]) for record in records if _identity(record) in found]
    if not both:
        raise DataError("the control run has no pair in common with this run; give the same pairs")
    own, other = zip(*both, strict=True)
    same = _labels(own, kinds=1)
    gains = np.array(
        [_is_right(o, s) - _is_right(c, s) for o, c, s in zip(own, other, same, strict=True)]
    )
    kinds = [same == kind for kind in np.unique(same)]
    return _metric(
        lambda w: np.mean([(w[:, k] @ gains[k]) / w[:, k].sum(1) for k in kinds], axis=0),
        len(gains),
        _weights(own, draws, seed),
    )


def _identity(record: Record) -> tuple[int, str, str]:
    return record["pair"], record["known"], record["questioned"]


def _is_right(record: Record, same: int) -> int:
    return int(record["prediction"] == ("same" if same else "different"))


def _labels(records: Sequence[Record], kinds: int = 2) -> np.ndarray:
    """Return the labels as int64, (P,)."""
    if not records:
        raise DataError("there are no records to judge")
    if missing := [record for record in records if record["label"] is None]:
        first = f"{missing[0]['known']} and {missing[0]['questioned']}"
        raise DataError(
            f"{len(missing)} of {len(records)} pairs have no label, the first is {first}; a "
            "judgement needs the label of every pair"
        )
    same = np.array([record["label"] for record in records], np.int64)
    if len(np.unique(same)) < kinds:
        raise DataError(f"all labels are {same[0]}; a judgement needs pairs of both kinds")
    return same


def _weights(records: Sequence[Record], draws: int, seed: int) -> np.ndarray | None:
    """Return how often each pair counts in each resample, (R, P); None without writers."""
    writers = [record.get("writers") for record in records]
    if any(pair is None for pair in writers):
        return None
    left, right = zip(*writers, strict=True)
    return pair_weights(left, right, draws=draws, seed=seed)


def _metric(
    estimate: Callable[[np.ndarray], np.ndarray], count: int, weights: np.ndarray | None
) -> Estimate:
    with np.errstate(invalid="ignore", divide="ignore"):
        value = float(estimate(np.ones((1, count)))[0])
        drawn = np.empty(0) if weights is None else estimate(weights.astype(np.float64))
    drawn = drawn[~np.isnan(drawn)]
    if not len(drawn) or math.isnan(value):
        return Estimate(value, _NONE, _NONE)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Estimate(value, float(low), float(high))


def _share(hits: np.ndarray, among: np.ndarray, weights: np.ndarray | None) -> Estimate:
    return _metric(lambda w: (w @ (hits & among)) / (w @ among), len(hits), weights)


def _confusion(
    same: np.ndarray, right: np.ndarray, among: np.ndarray, weights: np.ndarray | None
) -> dict[str, Estimate]:
    """Return the measures over the pairs in `among`; a pair that is not right is wrong."""
    positive = same.astype(bool)
    cells = [positive & right, ~positive & right, ~positive & ~right, positive & ~right]
    table = np.stack([cell & among.astype(bool) for cell in cells], axis=1).astype(np.float64)

    def measures(w: np.ndarray) -> dict[str, np.ndarray]:
        tp, tn, fp, fn = (w @ table).T
        return {
            "accuracy": (tp + tn) / (tp + tn + fp + fn),
            "precision": tp / (tp + fp),
            "recall": tp / (tp + fn),
            "f1": 2 * tp / (2 * tp + fp + fn),
        }

    def one(name: str) -> Callable[[np.ndarray], np.ndarray]:
        return lambda w: measures(w)[name]

    return {name: _metric(one(name), len(same), weights) for name in LABELS}


def _score_metrics(records: Sequence[Record], draws: int, seed: int) -> dict[str, Estimate]:
    scored = [record for record in records if record["score"] is not None]
    if not scored or len({record["label"] for record in scored}) < 2:
        return {}
    scores = np.array([record["score"] for record in scored], np.float64)
    clipped = scores.clip(_LEAST, 1 - _LEAST)
    writers = [record.get("writers") for record in scored]
    known = all(pair is not None for pair in writers)
    left, right = zip(*(writers if known else [("", "")] * len(scored)), strict=True)
    found = verification_metrics(
        scores,
        np.log(clipped) - np.log1p(-clipped),
        [record["label"] for record in scored],
        left,
        right,
        threshold=0.5,
        draws=draws if known else 1,
        seed=seed,
    )
    probabilities = all(record["settings"].get("mode") in GRADED for record in scored)
    names = [*SCORE_LABELS, *(PROBABILITY_LABELS if probabilities else ())]
    return {n: found[n] if known else Estimate(found[n].value, _NONE, _NONE) for n in names}


def _counts(records: Sequence[Record]) -> dict[str, int]:
    status = Counter(record["status"] for record in records)
    said = Counter(record["prediction"] for record in records)
    return {
        "pairs": len(records),
        "same_writer_pairs": sum(record["label"] == 1 for record in records),
        "scored": sum(record["score"] is not None for record in records),
        **{name: status[name] for name in ("answered", "unknown", "partial", "failed")},
        **{f"predicted_{name}": said[name] for name in ("same", "different", "unknown")},
    }


def _kinds(opinion: dict[str, Any]) -> list[str]:
    """Return the kinds of an opinion's problems, without what is particular to it."""
    problems = [str(problem) for problem in opinion.get("problems") or []]
    kinds = ["finding departs from the schema" if p.startswith("finding ") else p for p in problems]
    return [kind.partition(" is ")[0] for kind in kinds]


def _tokens(records: Sequence[Record]) -> dict[str, int]:
    tokens = [record.get("tokens") or {} for record in records]
    return {kind: sum(t.get(kind) or 0 for t in tokens) for kind in ("prompt", "completion")}
