"""The cost matrix: against the reference, against its definition, and its identities."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from gits_sampling.costs import METRICS, cost_matrix
from gits_sampling.path import optimal_paths
from papercommons.testing.timing import peak_memory

HERE = Path(__file__).parent / "data"
TEACHERS = ("euler1", "heun1", "ipndm4", "dpmpp3")


def read(path):
    with np.load(path) as file:
        return {name: torch.from_numpy(file[name]) for name in file.files}


def definition(states, slopes, sigmas, metric):
    """Return the costs pair by pair, with distances as vectors minus their projection."""
    n = len(sigmas)
    cost = torch.zeros(n, n, dtype=torch.float64)
    x = states.reshape(n, states.shape[1], -1).double()
    d = slopes.reshape(n - 1, states.shape[1], -1).double()
    axis = (x[0] - x[-1]) / torch.linalg.vector_norm(x[0] - x[-1], dim=1, keepdim=True)

    def to_chord(points):
        v = points - x[-1]
        return torch.linalg.vector_norm(v - (v * axis).sum(1, keepdim=True) * axis, dim=1)

    for i in range(n - 1):
        for j in range(i + 1, n):
            landing = x[i] + (sigmas[j] - sigmas[i]) * d[i]
            if metric == "dev":
                own = to_chord(x[j]) if j < n - 1 else torch.zeros(len(axis), dtype=torch.float64)
                cost[i, j] = to_chord(landing).mean() - own.mean()
            else:
                order = 1 if metric == "l1" else 2
                cost[i, j] = torch.linalg.vector_norm(landing - x[j], ord=order, dim=1).mean()
    return cost


def gaussian(points=12, samples=5, shape=(2, 3), dtype=torch.float64):
    """Return exact states and slopes for one Gaussian with unequal variances."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(samples, *shape, generator=generator, dtype=torch.float64)
    variance = torch.linspace(0.05, 2, noise[0].numel(), dtype=torch.float64).reshape(shape)
    sigmas = torch.linspace(80 ** (1 / 7), 0.002 ** (1 / 7), points, dtype=torch.float64) ** 7
    t = sigmas.reshape(-1, 1, *(1 for _ in shape))
    states = ((variance + t**2) / (variance + 80**2)).sqrt() * 80 * noise
    slopes = (t * states / (variance + t**2))[:-1]
    return states.to(dtype), slopes.to(dtype), sigmas


@pytest.fixture(params=TEACHERS)
def teacher(request):
    if request.param == "euler1":  # the file that travels with the package
        return read(HERE / "dp_euler1.npz")
    shared = request.getfixturevalue("shared_files")
    return read(shared / f"parity/gits-sampling/dp_{request.param}.npz")


@pytest.mark.parametrize("metric", METRICS)
def test_reference(teacher, metric):
    """Costs, and from them all chosen indices, over three metrics and four teachers."""
    cost = cost_matrix(teacher["trajectory"], teacher["eps"], teacher["t_grid"], metric=metric)
    expected = teacher[f"cost_{metric}"].triu(1)
    torch.testing.assert_close(cost, expected, rtol=1e-9, atol=1e-12)
    chosen = {name: path for name, path in teacher.items() if name.startswith(f"idx_{metric}_")}
    coeffs = {name: float(name.split("_g")[1].split("_")[0]) for name in chosen}
    paths = optimal_paths(cost, 10, sorted(set(coeffs.values())))
    assert len(chosen) == 30
    for name, path in chosen.items():
        assert torch.equal(paths[len(path) - 1, coeffs[name]], path), name


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("shape", [(7,), (2, 3), ()], ids=str)
def test_definition(metric, shape):
    given = gaussian(shape=shape or (1,))
    if not shape:
        given = (given[0][..., 0], given[1][..., 0], given[2])
    cost = cost_matrix(*given, metric=metric)
    torch.testing.assert_close(cost, definition(*given, metric), rtol=1e-9, atol=1e-11)
    assert cost.dtype == torch.float64
    assert cost.shape == (12, 12)
    assert not cost.tril().any()


@pytest.mark.parametrize("metric", METRICS)
def test_float32_states_are_not_squared_in_float32(metric):
    states, slopes, sigmas = gaussian(dtype=torch.float32)
    cost = cost_matrix(states, slopes, sigmas, metric=metric)
    expected = definition(states, slopes, sigmas, metric)
    torch.testing.assert_close(cost, expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("metric", METRICS)
def test_chunks_and_batches(metric):
    states, slopes, sigmas = gaussian()
    whole = cost_matrix(states, slopes, sigmas, metric=metric)
    for chunk in (1, 2, 5, 100):
        part = cost_matrix(states, slopes, sigmas, metric=metric, chunk=chunk)
        torch.testing.assert_close(part, whole, rtol=1e-12, atol=1e-13)
    parts = [cost_matrix(states[:, s], slopes[:, s], sigmas, metric=metric) for s in ([0, 1], [2])]
    three = cost_matrix(states[:, :3], slopes[:, :3], sigmas, metric=metric)
    torch.testing.assert_close((2 * parts[0] + parts[1]) / 3, three, rtol=1e-12, atol=1e-13)


def test_teacher_with_euler_steps_costs_nothing_from_point_to_point():
    generator = torch.Generator().manual_seed(1)
    sigmas = torch.linspace(80 ** (1 / 7), 0.002 ** (1 / 7), 21, dtype=torch.float64) ** 7
    slopes = torch.randn(20, 4, 6, generator=generator, dtype=torch.float64)
    steps = sigmas.diff()[:, None, None] * slopes
    states = torch.cat([torch.zeros(1, 4, 6), steps.cumsum(0)]).double()
    for metric in METRICS:
        cost = cost_matrix(states, slopes, sigmas, metric=metric)
        assert cost.diagonal(1).abs().max() < 1e-11
        assert cost.diagonal(2).abs().max() > 1e-3


def test_straight_trajectories_do_not_deviate():
    """Of an isotropic Gaussian at 0 every trajectory is a straight line."""
    sigmas = torch.linspace(80 ** (1 / 7), 0.002 ** (1 / 7), 30, dtype=torch.float64) ** 7
    noise = torch.randn(3, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    t = sigmas[:, None, None]
    states = ((0.25 + t**2) / (0.25 + 80**2)).sqrt() * 80 * noise
    slopes = (t * states / (0.25 + t**2))[:-1]
    assert cost_matrix(states, slopes, sigmas).abs().max() < 1e-11
    assert cost_matrix(states, slopes, sigmas, metric="l2")[0, -1] > 1


@pytest.mark.parametrize("metric", METRICS)
def test_turned_and_moved_data_cost_the_same(metric):
    states, slopes, sigmas = gaussian(shape=(6,))
    turn = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(2)).double())
    if metric == "l1":  # only permutations keep this norm
        turn = (torch.eye(6, dtype=torch.float64)[[3, 1, 0, 5, 2, 4]],)
    cost = cost_matrix(states, slopes, sigmas, metric=metric)
    moved = cost_matrix(3 * states @ turn[0] + 5, 3 * slopes @ turn[0], sigmas, metric=metric)
    torch.testing.assert_close(moved, 3 * cost, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("metric", METRICS)
def test_memory_is_bounded(metric):
    """Of 61 points and 32 samples with d = 768, all pairs would take 731 MB."""
    states, slopes, sigmas = gaussian(points=61, samples=32, shape=(768,), dtype=torch.float32)
    used = peak_memory(lambda: cost_matrix(states, slopes, sigmas, metric=metric, chunk=1))
    assert used < 8 * 61 * 768 * 8  # a few copies of one sample's trajectory


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"metric": "bdev"}, "metric must be dev, l1, l2, got 'bdev'; did you mean dev"),
        ({"states": torch.zeros(12)}, r"states must be \(N, B"),
        ({"states": torch.zeros(1, 5, 2, 3)}, "N >= 2"),
        ({"slopes": torch.zeros(12, 5, 2, 3)}, r"slopes must be \(11, 5, 2, 3\)"),
        ({"sigmas": torch.arange(11.0).flip(0)}, r"sigmas must be \(12,\)"),
        ({"sigmas": torch.arange(12.0)}, "strictly decreasing"),
        ({"sigmas": torch.full((12,), torch.nan)}, "finite"),
        ({"chunk": 0}, "chunk must be >= 1, got 0"),
    ],
)
def test_bad_arguments(change, message):
    states, slopes, sigmas = gaussian()
    given = {"states": states, "slopes": slopes, "sigmas": sigmas, **change}
    with pytest.raises(ValueError, match=message):
        cost_matrix(**given)


def test_bad_values_are_named():
    states, slopes, sigmas = gaussian()
    bad = slopes.clone()
    bad[4, 2, 0, 1] = torch.nan
    with pytest.raises(ValueError, match=r"slopes must be finite, .* at point 4, sample 2"):
        cost_matrix(states, bad, sigmas)
    same = states.clone()
    same[-1, 3] = same[0, 3]
    with pytest.raises(ValueError, match="got equal ends in sample 3"):
        cost_matrix(same, slopes, sigmas)
    assert cost_matrix(same, slopes, sigmas, metric="l2").isfinite().all()
