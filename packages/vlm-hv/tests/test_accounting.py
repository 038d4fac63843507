from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from papercommons.errors import DataError
from papercommons.metrics.roc import binary_auc
from papercommons.metrics.verification import pair_weights
from vlm_hv.accounting import ablation_gap, account

S, D, U = "same", "different", "unknown"


def record(number: int, label: int | None, decision: str, **more: Any) -> dict[str, Any]:
    writers = [f"w{number % 5}", f"w{number % 5 if label else (number + 1) % 5}"]
    hard = {S: 1.0, D: 0.0, U: None}[decision]
    fixed: dict[str, Any] = {"pair": number, "known": f"k{number}", "questioned": f"q{number}"}
    fixed |= {"label": label, "writers": writers, "prediction": decision, "score": hard}
    fixed |= {"status": "unknown" if decision == U else "answered", "opinions": []}
    fixed |= {"settings": {"mode": "cot2"}, "order_agrees": None, "cost": None, "seconds": 1.0}
    return fixed | {"tokens": {"prompt": 700, "completion": 20}} | more


def records(*pairs: tuple[int, str]) -> list[dict[str, Any]]:
    return [record(number, label, said) for number, (label, said) in enumerate(pairs)]


HAND = records((1, S), (1, S), (1, S), (1, D), (1, U), (0, D), (0, D), (0, S), (0, U), (0, U))


def test_hand_counts() -> None:
    """Answered: tp 3, fn 1, tn 2, fp 1. Over all: one more fn, two more fp."""
    found = account(HAND)
    values = {name: metric.value for name, metric in found.over_answered.items()}
    assert values == pytest.approx(
        {"accuracy": 5 / 7, "precision": 3 / 4, "recall": 3 / 4, "f1": 3 / 4}
    )
    values = {name: metric.value for name, metric in found.over_all.items()}
    assert values == pytest.approx(
        {"accuracy": 5 / 10, "precision": 3 / 6, "recall": 3 / 5, "f1": 6 / 11}
    )
    assert found.coverage.value == pytest.approx(0.7)
    assert found.majority == 0.5
    assert found.counts == {
        "pairs": 10,
        "same_writer_pairs": 5,
        "scored": 7,
        "answered": 7,
        "unknown": 3,
        "partial": 0,
        "failed": 0,
        "predicted_same": 4,
        "predicted_different": 3,
        "predicted_unknown": 3,
    }
    assert found.tokens == {"prompt": 7000, "completion": 200}


def test_dropping_unknowns_would_flatter() -> None:
    """Trap of the authors' scripts: a model that answers one sure pair is not perfect."""
    found = account(records((1, S), (1, U), (0, U), (0, U)))
    assert found.over_answered["accuracy"].value == 1
    assert found.over_all["accuracy"].value == 0.25


labels_and_words = st.lists(
    st.tuples(st.integers(0, 1), st.sampled_from([S, D, U])), min_size=2, max_size=30
).filter(lambda pairs: len({label for label, _ in pairs}) == 2)


@given(labels_and_words)
def test_identities(pairs: list[tuple[int, str]]) -> None:
    found = account(records(*pairs), draws=20)
    over_all, answered = found.over_all["accuracy"].value, found.over_answered["accuracy"].value
    if found.coverage.value:
        assert over_all == pytest.approx(answered * found.coverage.value)
    flipped = [(1 - label, {S: D, D: S, U: U}[said]) for label, said in pairs]
    assert account(records(*flipped), draws=20).over_all["accuracy"].value == over_all
    for metric in (found.over_all["accuracy"], found.coverage):
        assert 0 <= metric.low <= metric.high <= 1


def test_interval_is_that_of_the_writer_bootstrap() -> None:
    found = account(HAND, draws=200, seed=3).over_all["accuracy"]
    left, right = zip(*(r["writers"] for r in HAND), strict=True)
    weights = pair_weights(left, right, draws=200, seed=3).astype(float)
    hits = np.array([r["prediction"] == (S if r["label"] else D) for r in HAND])
    drawn = (weights @ hits) / weights.sum(1)
    drawn = drawn[~np.isnan(drawn)]
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])))


def test_without_writers_there_is_no_interval() -> None:
    found = account([r | {"writers": None, "score": 0.1 * r["pair"]} for r in HAND])
    for metric in (found.over_all["accuracy"], found.coverage, found.scores["auc"]):
        assert math.isfinite(metric.value)
        assert math.isnan(metric.low)


def test_scores() -> None:
    random = np.random.default_rng(0)
    made = [
        record(n, n % 2, S, score=float(random.beta(2 + n % 2, 2)), settings={"mode": "logprob"})
        for n in range(60)
    ]
    found = account(made).scores
    scores, labels = [r["score"] for r in made], [r["label"] for r in made]
    assert found["auc"].value == pytest.approx(binary_auc(scores, labels))
    brier = np.mean((np.array(scores) - labels) ** 2)
    assert found["brier"].value == pytest.approx(brier)
    assert set(found) == {"auc", "eer", "brier", "ece", "cllr"}
    assert set(account(HAND).scores) == {"auc", "eer"}  # 0 and 1 are no probabilities
    one_kind = records((1, S), (1, S), (0, U))
    assert account(one_kind).scores == {}


def test_order_disagreement_counts_pairs_asked_twice() -> None:
    agrees = [True, True, False, None, None, True, False, None, True, True]
    made = [r | {"order_agrees": a} for r, a in zip(HAND, agrees, strict=True)]
    found = account(made)
    assert found.order_disagreement.value == pytest.approx(2 / 7)
    assert any("orders disagree" in row["metric"] for row in found.rows())
    assert not any("orders disagree" in row["metric"] for row in account(HAND).rows())


def test_ablation_gap() -> None:
    control = [r | {"prediction": S} for r in HAND]
    gap = ablation_gap(HAND, control)
    assert gap.value == pytest.approx(0.5 - 0.5)
    blind = [r | {"prediction": U} for r in HAND]
    gap = ablation_gap(HAND, blind[:6])
    assert gap.value == pytest.approx((3 / 5 + 1) / 2)
    assert gap.low <= gap.value <= gap.high
    lopsided = [record(k, int(k < 5), S) for k in range(6)]  # five of one kind, one of the other
    perfect = [r | {"prediction": S if r["label"] else D} for r in lopsided]
    assert ablation_gap(perfect, lopsided).value == 0.5
    same = ablation_gap(HAND, HAND)
    assert (same.value, same.low, same.high) == (0, 0, 0)
    with pytest.raises(DataError, match="no pair in common"):
        ablation_gap(HAND, [record(77, 1, S)])


def test_rows_for_either_account() -> None:
    found = account(HAND)
    names = {u: [row["metric"] for row in found.rows(u)] for u in ("wrong", "drop", "both")}
    assert "accuracy, all pairs" in names["wrong"]
    assert "accuracy, all pairs" not in names["drop"]
    assert set(names["both"]) == set(names["wrong"]) | set(names["drop"])
    numbers = found.numbers()
    assert numbers["accuracy_over_all"] == 0.5
    assert len(numbers["intervals"]["accuracy_over_answered"]) == 2


def test_problems_are_counted_by_kind() -> None:
    problems = [
        "probability is 1.5",
        "probability is 'high'",
        "finding 3: no object",
        "empty answer",
    ]
    made = [HAND[0] | {"opinions": [{"problems": problems}]}, *HAND[1:]]
    assert account(made).problems == {
        "probability": 2,
        "finding departs from the schema": 1,
        "empty answer": 1,
    }


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ([], "no records"),
        ([*HAND[:2], record(9, None, S)], "1 of 3 pairs have no label, the first is k9 and q9"),
        (records((1, S), (1, D)), "all labels are 1"),
    ],
)
def test_what_cannot_be_judged(made: list[dict[str, Any]], said: str) -> None:
    with pytest.raises(DataError, match=said):
        account(made)
