from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from papercommons.metrics.bootstrap import (
    Estimate,
    bootstrap_interval,
    estimate,
    group_weights,
    with_intervals,
)


def test_interval_has_the_normal_theory_width():
    values = torch.randn(2000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    low, high = bootstrap_interval(values)
    half = 1.96 * float(values.std()) / math.sqrt(len(values))
    assert low == pytest.approx(float(values.mean()) - half, abs=0.1 * half)
    assert high == pytest.approx(float(values.mean()) + half, abs=0.1 * half)


def test_interval_covers_the_mean_as_often_as_it_says():
    generator = torch.Generator().manual_seed(1)
    covered = 0
    for seed in range(200):
        values = torch.rand(60, generator=generator)
        low, high = bootstrap_interval(values, level=0.8, draws=400, seed=seed)
        covered += low <= 0.5 <= high
    assert 0.8 * 200 - 25 < covered < 0.8 * 200 + 20


def test_levels_are_nested():
    values = torch.rand(50, generator=torch.Generator().manual_seed(2))
    narrow, wide = bootstrap_interval(values, level=0.5), bootstrap_interval(values, level=0.99)
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


def test_equal_seeds_give_equal_intervals():
    values = torch.rand(50, generator=torch.Generator().manual_seed(3))
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    assert bootstrap_interval(values) == bootstrap_interval(values.float())
    assert bootstrap_interval(values) != bootstrap_interval(values, seed=1)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.float16])
def test_any_real_dtype(dtype):
    values = torch.tensor([0, 1, 1, 0, 1], dtype=dtype)
    assert bootstrap_interval(values) == bootstrap_interval(values.double())


def test_large_inputs_are_drawn_in_parts():
    low, high = bootstrap_interval(torch.tensor([0.0, 2.0]).repeat(600_000), draws=20)
    assert 0.99 < low < high < 1.01


def test_values_without_spread():
    assert all(map(math.isnan, bootstrap_interval(torch.tensor([0.25]))))
    assert bootstrap_interval(torch.full((9,), 1.0, requires_grad=True)) == (1.0, 1.0)


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        (torch.zeros(0), {}, r"values must be \(N,\) with N >= 1, got \(0,\)"),
        (torch.zeros(2, 2), {}, r"got \(2, 2\)"),
        (torch.tensor(1.0), {}, r"got \(\)"),
        (torch.tensor([1.0, math.nan]), {}, "values must be finite"),
        (torch.tensor([1.0, math.inf]), {}, "values must be finite"),
        (torch.ones(3), {"level": 1.0}, r"level must be in \(0, 1\), got 1.0"),
        (torch.ones(3), {"level": 0}, r"level must be in \(0, 1\), got 0"),
        (torch.ones(3), {"draws": 0}, "draws must be >= 1, got 0"),
    ],
)
def test_what_is_refused(values, options, message):
    with pytest.raises(ValueError, match=message):
        bootstrap_interval(values, **options)


def test_groups_are_drawn_whole_and_the_number_of_groups_stays():
    groups = ["a", "b", "a", "c", "b", "b"]
    weights = group_weights(groups, draws=500, seed=1)
    assert weights.shape == (500, 6)
    torch.testing.assert_close(weights[:, 0], weights[:, 2])
    torch.testing.assert_close(weights[:, 1], weights[:, 5])
    one_of_each = weights[:, [0, 1, 3]]
    assert (one_of_each.sum(1) == 3).all()
    assert one_of_each.mean(0).sub(1).abs().max() < 0.15
    torch.testing.assert_close(weights, group_weights(groups, draws=500, seed=1))
    assert not torch.equal(weights, group_weights(groups, draws=500, seed=2))


@pytest.mark.parametrize(("groups", "draws"), [([], 10), (["a"], 0)])
def test_group_weights_need_items_and_draws(groups, draws):
    with pytest.raises(ValueError, match="needs items and draws"):
        group_weights(groups, draws=draws)


def test_percentiles_of_what_is_defined():
    drawn = np.append(np.arange(1001.0), [math.nan] * 9)
    assert estimate(3.0, drawn) == pytest.approx(Estimate(3.0, 25.0, 975.0))


@pytest.mark.parametrize(("value", "drawn"), [(math.nan, [1.0, 2.0]), (1.0, [math.nan])])
def test_no_interval_of_what_is_not_defined(value, drawn):
    assert estimate(value, drawn) == pytest.approx(Estimate(value, math.nan, math.nan), nan_ok=True)


@pytest.mark.parametrize("at_once", [5_000_000, 700])
def test_intervals_of_a_mean_are_those_of_normal_theory(monkeypatch, at_once):
    monkeypatch.setattr("papercommons.metrics.bootstrap._AT_ONCE", at_once)
    values = torch.randn(300, generator=torch.Generator().manual_seed(4), dtype=torch.double)
    twice = values.repeat_interleave(2)  # of each group two equal items
    found = with_intervals(
        lambda weights: {"mean": (weights @ twice) / weights.sum(1)},
        [k // 2 for k in range(600)],
        draws=2000,
    )["mean"]
    half = 1.96 * float(values.std()) / math.sqrt(300)
    assert found.value == pytest.approx(float(values.mean()))
    assert found.low == pytest.approx(found.value - half, abs=0.1 * half)
    assert found.high == pytest.approx(found.value + half, abs=0.1 * half)


@pytest.mark.parametrize(("groups", "draws"), [([], 10), (["a"], 0)])
def test_intervals_need_items_and_draws(groups, draws):
    with pytest.raises(ValueError, match="needs items and draws"):
        with_intervals(lambda weights: {"sum": weights.sum(1)}, groups, draws=draws)


def test_one_group_has_no_interval():
    found = with_intervals(lambda weights: {"mean": weights.mean(1)}, ["a", "a", "a"], draws=9)
    assert found["mean"].value == 1
    assert all(map(math.isnan, found["mean"][1:]))
