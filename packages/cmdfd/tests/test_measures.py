from __future__ import annotations

import math

import numpy as np
import pytest
from cmdfd.measures import clip_measures
from hypothesis import given
from hypothesis import strategies as st


def test_measures_are_the_references(parity):
    example = parity("batching_metrics")
    order = clip_measures(example["scores"], example["labels"])
    for name, key in (("auc", "auc"), ("eer", "eer"), ("ap", "ap")):
        assert order[name] == pytest.approx(example[key].item(), abs=1e-12)
    decided = clip_measures(example["pred"], example["labels"], threshold=0.5)
    pairs = (("accuracy", "acc"), ("f1", "f1"), ("balanced_accuracy", "bacc"), ("hter", "hter"))
    for name, key in pairs:
        assert decided[name] == pytest.approx(example[key].item(), abs=1e-12)


def test_the_published_result():
    # 643 true and 357 false real clips, 996 and 2 fake ones
    scores = [-1] * 643 + [1] * 357 + [-1] * 2 + [1] * 996
    found = clip_measures(scores, [0] * 1000 + [1] * 998)
    assert found["accuracy"] == pytest.approx(0.8203, abs=5e-5)
    assert found["f1"] == pytest.approx(0.8473, abs=5e-5)
    assert found["real_recall"] == pytest.approx(0.643)
    assert found["fake_recall"] == pytest.approx(0.998, abs=5e-5)


@given(scores=st.lists(st.integers(-3, 3), min_size=2, max_size=25), seed=st.integers(0, 999))
def test_measures_by_brute_force(scores, seed):
    fake = np.random.default_rng(seed).integers(0, 2, len(scores)).astype(bool)
    scores = np.array(scores, float)
    found = clip_measures(scores, fake)
    called = scores > 0
    assert found["accuracy"] == pytest.approx((called == fake).mean())
    if not fake.any() or fake.all():
        assert all(math.isnan(found[name]) for name in ("auc", "eer", "balanced_accuracy", "hter"))
        return
    pairs = [(a > b) + (a == b) / 2 for a in scores[fake] for b in scores[~fake]]
    assert found["auc"] == pytest.approx(np.mean(pairs))
    best, precision, recall_before = (9.0, 0.0), 0.0, 0.0
    for threshold in [np.inf, *np.unique(scores)[::-1]]:
        alarms, hits = (scores[~fake] >= threshold).mean(), (scores[fake] >= threshold).mean()
        best = min(best, (abs(1 - hits - alarms), alarms))
        if np.isfinite(threshold):
            share = fake[scores >= threshold].mean()
            precision += share * (hits - recall_before)
            recall_before = hits
    assert found["ap"] == pytest.approx(precision)
    assert abs(found["eer"] - best[1]) < 1e-9 or best[0] == pytest.approx(
        min(abs(1 - (scores[fake] >= t).mean() - found["eer"]) for t in [np.inf, *scores])
    )
    assert found["hter"] == pytest.approx((called[~fake].mean() + (~called)[fake].mean()) / 2)


def test_wrong_arguments_are_told():
    with pytest.raises(ValueError, match="finite"):
        clip_measures([float("nan")], [0])
    with pytest.raises(ValueError, match="labels must hold 0 and 1"):
        clip_measures([1.0], [2])
    with pytest.raises(ValueError, match=r"must be \(N,\)"):
        clip_measures([1.0, 2.0], [1])
