"""The shortest paths: against brute force, and the identities of the specification, 7.1."""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
import pytest
import torch
from gits_sampling.path import optimal_path, optimal_paths, path_cost
from hypothesis import given
from hypothesis import strategies as st


def random_cost(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, n, generator=generator, dtype=torch.float64).triu(1)


def brute_force(cost, steps, coeff):
    """Return all paths with their costs, cheapest first, ties in the order of their indices."""
    n = len(cost)
    found = []
    for inner in combinations(range(1, n - 1), steps - 1):
        path = (0, *inner, n - 1)
        jumps = pairwise(path)
        found.append((sum(coeff**a * float(cost[i, j]) for a, (i, j) in enumerate(jumps)), path))
    return sorted(found)


@pytest.mark.parametrize("coeff", [0.8, 1.0, 1.15])
@pytest.mark.parametrize("steps", [2, 3, 4, 5])
def test_brute_force(steps, coeff):
    cost = random_cost(12)
    least, path = brute_force(cost, steps, coeff)[0]
    found = optimal_path(cost, steps, coeff)
    assert tuple(found.tolist()) == path
    assert path_cost(cost, found, coeff) == pytest.approx(least, rel=1e-12)
    assert found.dtype == torch.int64


@given(
    n=st.integers(2, 7),
    values=st.lists(st.integers(-2, 2), min_size=21, max_size=21),
    coeff=st.sampled_from([0.5, 1.0, 2.0]),
    data=st.data(),
)
def test_ties_go_to_the_smallest_index(n, values, coeff, data):
    """Small integers and powers of two are exact, so equal costs are equal."""
    steps = data.draw(st.integers(1, n - 1))
    cost = torch.zeros(n, n, dtype=torch.float64)
    upper = torch.triu_indices(n, n, 1)
    cost[upper[0], upper[1]] = torch.tensor(values[: upper.shape[1]], dtype=torch.float64)
    least, path = brute_force(cost, steps, coeff)[0]
    found = optimal_path(cost, steps, coeff)
    assert tuple(found.tolist()) == path
    assert path_cost(cost, found, coeff) == least


def test_zero_costs():
    assert optimal_path(torch.zeros(8, 8), 4, 1.15).tolist() == [0, 1, 2, 3, 7]


def test_shortest_and_longest():
    cost = random_cost(9)
    assert optimal_path(cost, 1, 1.0).tolist() == [0, 8]
    assert optimal_path(cost, 8, 1.0).tolist() == list(range(9))
    assert optimal_path(torch.tensor([[0.0, 3], [0, 0]]), 1, 1.0).tolist() == [0, 1]


def test_scaled_or_shifted_costs_have_the_same_path():
    cost = random_cost(20)
    for coeff in (0.8, 1.0, 1.2):
        path = optimal_path(cost, 6, coeff)
        assert torch.equal(optimal_path(3.7 * cost, 6, coeff), path)
        assert torch.equal(optimal_path(cost + 1.3, 6, coeff), path)


def test_coefficient_moves_the_path():
    """With c(i, j) = (j - i)^2: equal steps at 1, shorter late ones above, longer below."""
    at = torch.arange(25, dtype=torch.float64)
    cost = (at - at[:, None]).square().triu(1)
    assert optimal_path(cost, 4, 1.0).tolist() == [0, 6, 12, 18, 24]
    late, early = optimal_path(cost, 4, 1.5).diff(), optimal_path(cost, 4, 0.7).diff()
    assert late[0] > 6 > late[-1]
    assert early[0] < 6 < early[-1]


def test_all_budgets_and_coefficients_from_one_table():
    cost = random_cost(15, seed=3)
    coeffs = [0.8, 1.0, 1.2]
    paths = optimal_paths(cost, 14, coeffs)
    assert list(paths) == [(steps, coeff) for coeff in coeffs for steps in range(1, 15)]
    for (steps, coeff), path in paths.items():
        assert torch.equal(path, optimal_path(cost, steps, coeff))
    assert list(optimal_paths(cost, 2)) == [(1, 1.0), (2, 1.0)]


def test_lower_triangle_is_not_read():
    cost = random_cost(10)
    other = cost + torch.full_like(cost, torch.nan).tril()
    assert torch.equal(optimal_path(other, 4, 1.1), optimal_path(cost, 4, 1.1))
    assert torch.equal(optimal_path(cost.numpy(), 4, 1.1), optimal_path(cost, 4, 1.1))
    assert path_cost(other, [0, 4, 9], 2.0) == pytest.approx(float(cost[0, 4] + 2 * cost[4, 9]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.zeros(5, 5), 0, 1.0), "steps must be from 1 to 4.*got 0"),
        ((torch.zeros(5, 5), 5, 1.0), "a grid of 5 points, got 5"),
        ((torch.zeros(5, 5), 2.0, 1.0), "steps must be an integer, got 2.0"),
        ((torch.zeros(5, 5), True, 1.0), "steps must be an integer, got True"),
        ((torch.zeros(5, 5), 2, 0.0), "coeff must be a finite number > 0, got 0.0"),
        ((torch.zeros(5, 5), 2, float("nan")), "coeff must be a finite number > 0, got nan"),
        ((torch.ones(5, 5), 4, 1e300), "coeff must be smaller for 4 steps"),
        ((torch.zeros(5, 4), 2, 1.0), r"cost must be \(N, N\) with N >= 2, got \(5, 4\)"),
        ((torch.zeros(1, 1), 1, 1.0), "N >= 2"),
        ((torch.full((5, 5), np.inf), 2, 1.0), "cost must be finite above the diagonal"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        optimal_path(*arguments)


def test_bad_arguments_of_the_others():
    with pytest.raises(ValueError, match="max_steps must be from 1 to 4"):
        optimal_paths(torch.zeros(5, 5), 7)
    with pytest.raises(ValueError, match="coeff must be a finite number > 0, got none"):
        optimal_paths(torch.zeros(5, 5), 2, [])
    for path in ([0], [0, 0, 4], [0, 5], [-1, 4], [0, 3, 2]):
        with pytest.raises(ValueError, match="path must be at least two increasing indices"):
            path_cost(torch.zeros(5, 5), path)
