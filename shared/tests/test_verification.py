from __future__ import annotations

import doctest
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from papercommons.metrics import calibration, verification
from papercommons.metrics.verification import (
    accuracy_threshold,
    embedding_spread,
    equal_error_rate,
    pair_weights,
    verification_metrics,
)


@st.composite
def scored(draw):
    """Scores with ties, and both classes."""
    count = draw(st.integers(2, 40))
    random = np.random.default_rng(draw(st.integers(0, 999)))
    same = random.integers(0, 2, count)
    same[:2] = 1, 0
    return (random.integers(0, 9, count) + 3 * same) / 7, same


def errors(scores, same, threshold):
    """False non-match and false match rate, counted."""
    accepted = scores >= threshold
    return (~accepted)[same == 1].mean(), accepted[same == 0].mean()


@given(scored())
def test_equal_error_rate_lies_where_the_errors_cross(given):
    scores, same = given
    rate, threshold = equal_error_rate(scores, same)
    cuts = np.concatenate([[-1.0], np.unique(scores) + 1e-6])
    rates = np.array([errors(scores, same, cut) for cut in cuts])
    after = (rates[:, 0] >= rates[:, 1]).argmax()
    (m0, f0), (m1, f1) = rates[after - 1], rates[after]
    part = (f0 - m0) / ((f0 - m0) + (m1 - f1))
    assert rate == pytest.approx(m0 + part * (m1 - m0))
    assert rate == pytest.approx(f0 + part * (f1 - f0))
    assert scores.min() <= threshold <= np.nextafter(scores.max(), np.inf)


def test_equal_error_rate_of_perfect_reversed_and_useless_scores():
    assert equal_error_rate([0, 1, 2, 3], [0, 0, 1, 1]) == (0, 1.5)
    assert equal_error_rate([0, 1, 2, 3], [1, 1, 0, 0])[0] == 1
    assert equal_error_rate([1, 1], [0, 1])[0] == pytest.approx(0.5)
    assert all(map(math.isnan, equal_error_rate([0, 1], [1, 1])))


def test_equal_error_rate_of_normal_scores():
    random = np.random.default_rng(0)
    same = np.repeat([1, 0], [60_000, 30_000])
    rate, threshold = equal_error_rate(random.normal(2.0 * same), same)
    assert rate == pytest.approx(0.5 * math.erfc(1 / math.sqrt(2)), abs=0.004)
    assert threshold == pytest.approx(1, abs=0.03)


@given(scored())
def test_no_threshold_is_more_accurate(given):
    scores, same = given
    threshold = accuracy_threshold(scores, same)
    accuracy = ((scores >= threshold) == same).mean()
    for other in np.concatenate([[-1.0], np.unique(scores) + 1e-6]):
        assert accuracy >= ((scores >= other) == same).mean() - 1e-12


def test_the_threshold_lies_midway_and_is_the_lowest_of_equal_ones():
    assert accuracy_threshold([0.0, 1.0, 3.0, 4.0], [0, 0, 1, 1]) == 2
    assert accuracy_threshold([0.0, 1.0, 2.0, 3.0], [0, 1, 0, 1]) == 0.5
    assert accuracy_threshold([1.0, 2.0], [1, 1]) == 1
    assert accuracy_threshold([1.0, 2.0], [0, 0]) > 2
    close = [1.0, np.nextafter(1.0, 2.0)]
    assert accuracy_threshold(close, [0, 1]) == close[1]


def test_pair_weights_are_those_of_resampled_writers():
    left, right = list("aabc"), list("abcc")
    weights = pair_weights(left, right, draws=4000, seed=1)
    assert (weights.shape, weights.dtype) == ((4000, 4), np.float32)
    aa, ab, bc, cc = weights.T
    # a pair of one writer counts as often as it was drawn, a pair of two as the product
    np.testing.assert_array_equal(ab, aa * (3 - aa - cc))
    np.testing.assert_array_equal(bc, cc * (3 - aa - cc))
    assert weights.mean(0) == pytest.approx([1, 2 / 3, 2 / 3, 1], abs=0.04)
    np.testing.assert_array_equal(weights, pair_weights(left, right, draws=4000, seed=1))
    assert (weights != pair_weights(left, right, draws=4000, seed=2)).any()


def some_pairs(count=400, writers=30, seed=0):
    random = np.random.default_rng(seed)
    left = random.integers(0, writers, count)
    right = np.where(random.random(count) < 0.5, left, (left + 1) % writers)
    same = (left == right).astype(int)
    return random.normal(1.5 * same), same, left.tolist(), right.tolist()


def judge(scores, same, left, right, **options):
    options = {"threshold": 0.75, "draws": 200} | options
    return verification_metrics(scores, 1.5 * scores - 1.125, same, left, right, **options)


def test_values_are_those_of_a_count_by_hand():
    scores, same, left, right = some_pairs()
    found = judge(scores, same, left, right)
    accepted, llr = scores >= 0.75, 1.5 * scores - 1.125
    tp, fp = (accepted & (same == 1)).sum(), (accepted & (same == 0)).sum()
    fn, tn = (~accepted & (same == 1)).sum(), (~accepted & (same == 0)).sum()
    probability = 1 / (1 + np.exp(-llr))
    expected = {
        "accuracy": (tp + tn) / 400,
        "precision": tp / (tp + fp),
        "recall": tp / (tp + fn),
        "f1": 2 * tp / (2 * tp + fp + fn),
        "false_match_rate": fp / (fp + tn),
        "false_non_match_rate": fn / (fn + tp),
        "auc": (scores[same == 1][:, None] > scores[same == 0]).mean(),
        "eer": equal_error_rate(scores, same)[0],
        "min_cllr": calibration.min_cllr(scores, same),
        "accuracy_at_half": ((probability >= 0.5) == same).mean(),
        "brier": calibration.brier(probability, same),
        "ece": calibration.ece(probability, same),
        "cllr": calibration.cllr(llr, same),
    }
    assert {name: metric.value for name, metric in found.items()} == pytest.approx(expected)
    for name, metric in found.items():
        assert metric.low < metric.high, name
        if name != "ece":  # biased upwards in resamples, as it is in small sets
            assert metric.low < metric.value < metric.high, name


def test_intervals_are_those_of_repeated_pairs():
    """A draw in which writers come n times is the set with their pairs repeated."""
    scores, same, left, right = some_pairs(60, writers=6)
    weights = pair_weights(left, right, draws=7, seed=3).astype(int)
    estimate = verification._measures_of(scores, 1.5 * scores, same.astype(bool), 0.75)
    found = estimate(weights.astype(np.float32))
    for row, times in enumerate(weights):
        index = np.repeat(np.arange(60), times)
        alone = judge(scores[index], same[index], [0] * len(index), [1] * len(index), draws=1)
        for name in ("accuracy", "precision", "f1", "auc", "eer", "min_cllr"):
            assert found[name][row] == pytest.approx(alone[name].value, nan_ok=True), name


def test_chunks_of_draws_give_the_same(monkeypatch):
    pairs = some_pairs()
    whole = judge(*pairs)
    monkeypatch.setattr(verification, "_CHUNK", 400 * 7)
    chunked = judge(*pairs)
    for name, metric in whole.items():
        assert metric == pytest.approx(chunked[name]), name


def test_intervals_over_writers_are_wider_than_over_pairs():
    """A writer whose pairs all fail is one draw, not a hundred."""
    random = np.random.default_rng(0)
    left = np.repeat(np.arange(12), 100)
    scores = random.random(12)[left]
    same = np.ones(1200, int)
    found = judge(scores, same, left.tolist(), left.tolist(), threshold=0.5)["recall"]
    binomial = 1.96 * math.sqrt(found.value * (1 - found.value) / 1200)
    assert (found.high - found.low) / 2 > 4 * binomial


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_alone_is_not_defined_but_no_crash(label):
    scores = np.array([0.1, 0.9, 0.8])
    found = judge(scores, np.full(3, label), list("abc"), list("bca"), draws=20)
    for name in ("auc", "eer", "min_cllr", "cllr"):
        assert all(map(math.isnan, found[name])), name
    undefined = "false_match_rate" if label else "false_non_match_rate"
    assert math.isnan(found[undefined].value)
    assert found["accuracy"].value == pytest.approx(2 / 3 if label else 1 / 3)


def test_swapped_labels_are_seen():
    scores, same, left, right = some_pairs()
    assert judge(scores, 1 - same, left, right)["auc"].value < 0.5
    assert judge(scores, 1 - same, left, right)["cllr"].value > 1


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"scores": np.array([0.1, math.inf])}, "must be finite"),
        ({"threshold": math.nan}, "threshold not NaN"),
        ({"left_writers": ["a"]}, "2 pairs, but writers of 1"),
        ({"right_writers": ["a"]}, "2 left writers, but 1 right ones"),
        ({"draws": 0}, "draws >= 1"),
    ],
)
def test_bad_input_is_refused(changed, message):
    given = {
        "scores": np.array([0.1, 0.9]),
        "llr": np.zeros(2),
        "same": np.array([0, 1]),
        "left_writers": ["a", "b"],
        "right_writers": ["b", "b"],
        "threshold": 0.5,
    }
    with pytest.raises(ValueError, match=message):
        verification_metrics(**(given | changed))


@given(writers=st.text("abcd", min_size=2, max_size=15), seed=st.integers(0, 99))
def test_spread_is_that_of_the_matrix_of_cosines(writers, seed):
    rows = np.random.default_rng(seed).normal(size=(len(writers), 5)) + 0.3
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    cosine, names = unit @ unit.T, np.array(list(writers))
    equal, upper = names[:, None] == names, np.triu(np.ones(cosine.shape, bool), 1)
    blocks = {
        (a, b): cosine[np.ix_(names == a, names == b)] for a in set(writers) for b in set(writers)
    }
    own = [
        b[np.triu_indices(len(b), 1)].mean()
        for (a, c), b in blocks.items()
        if a == c and len(b) > 1
    ]
    other = [block.mean() for (a, c), block in blocks.items() if a != c]
    expected = {
        "intra_pairs": mean(cosine[equal & upper]),
        "inter_pairs": mean(cosine[~equal & upper]),
        "intra_writers": mean(own),
        "inter_writers": mean(other),
    }
    found = embedding_spread(rows, list(writers))
    assert {k: found[k] for k in expected} == pytest.approx(expected, nan_ok=True)
    gap = expected["intra_pairs"] - expected["inter_pairs"]
    assert found["gap_pairs"] == pytest.approx(gap, nan_ok=True)


def mean(values):
    return float(np.mean(values)) if len(values) else math.nan


def test_spread_agrees_with_the_reference(shared_files):
    with np.load(shared_files / "parity" / "ssl-hv" / "ssl_losses.npz") as file:
        found = embedding_spread(file["emb"], file["emb_writer"].tolist())
        for ours, theirs in (
            ("intra_pairs", "intra_pairs_mean"),
            ("inter_pairs", "inter_pairs_mean"),
            ("intra_writers", "intra_writer_macro"),
        ):
            assert found[ours] == pytest.approx(float(file[theirs]), rel=1e-9)


def test_spread_input():
    assert embedding_spread([[0.0, 0.0], [1.0, 0.0]], "aa")["intra_pairs"] == 0
    for rows, message in ((np.zeros(3), r"must be \(N, D\)"), ([[math.nan]] * 3, "finite")):
        with pytest.raises(ValueError, match=message):
            embedding_spread(rows, "abc")


@pytest.mark.parametrize("module", [verification, calibration])
def test_examples_in_docstrings(module):
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0
