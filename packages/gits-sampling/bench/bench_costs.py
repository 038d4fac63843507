"""`cost_matrix` against a loop over grid pairs, as the reference implementation has it.

``python -m pytest packages/gits-sampling/bench/bench_costs.py -s --device cpu`` (or cuda). The CPU
part uses one thread. The loop works in the states' own dtype, ours in float64. Values are tested;
times and memory are only printed. The loop is timed on some of its rows and scaled by their pairs.
"""

from __future__ import annotations

import pytest
import torch
from gits_sampling.costs import cost_matrix
from papercommons.testing.timing import compare_speed, peak_memory

POINTS, SAMPLES = 61, 256
SIZES = {"d = 64": ((64,), torch.float64), "d = 3x32x32": ((3, 32, 32), torch.float32)}
ROWS = range(0, POINTS - 1, 12)  # the loop's rows that are timed


def to_line(points, start, end):
    """Return the mean distance of points (B, ...) to the line from start to end."""
    points, end = (points - start).flatten(1), (end - start).flatten(1)
    axis = end / torch.linalg.vector_norm(end, dim=1, keepdim=True)
    across = points - (points * axis).sum(1, keepdim=True) * axis
    return torch.linalg.vector_norm(across, dim=1).mean()


def loop_over_pairs(states, slopes, sigmas, metric, rows, own):
    """Return the costs in `rows`, one pair of grid points after the other.

    `own` holds the distances of the teacher's states to the line.
    """
    n = len(sigmas)
    cost = torch.zeros(n, n, dtype=states.dtype, device=states.device)
    for i in rows:
        for j in range(i + 1, n):
            landing = states[i] + (sigmas[j] - sigmas[i]) * slopes[i]
            if metric == "dev":
                cost[i, j] = to_line(landing, states[0], states[-1])
                if j < n - 1:
                    cost[i, j] -= own[j]
            else:
                miss = (landing - states[j]).flatten(1)
                order = int(metric[1])
                cost[i, j] = torch.linalg.vector_norm(miss, ord=order, dim=1).mean()
    return cost


def gaussian_trajectory(shape, dtype, device):
    """Return exact trajectories for one Gaussian with many variances."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(SAMPLES, *shape, generator=generator, dtype=torch.float64)
    variance = torch.rand(shape, generator=generator, dtype=torch.float64)
    sigmas = torch.linspace(80 ** (1 / 7), 0.002 ** (1 / 7), POINTS, dtype=torch.float64) ** 7
    level = sigmas.reshape(-1, 1, *(1 for _ in shape))
    variance = variance[None, None]
    start = noise[None] * 80
    states = torch.sqrt((variance + level**2) / (variance + 80**2)) * start
    slopes = (level * states / (variance + level**2))[:-1]
    return states.to(device, dtype), slopes.to(device, dtype), sigmas.to(device)


@pytest.fixture(autouse=True)
def _one_thread(device):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("size", SIZES)
def test_cost_matrix(size, device, record):
    states, slopes, sigmas = gaussian_trajectory(*SIZES[size], device)
    pairs = sum(POINTS - 1 - i for i in ROWS)
    share = pairs / (POINTS * (POINTS - 1) / 2)
    bytes_in = (states.nbytes + slopes.nbytes) / 2**20
    own = [to_line(state, states[0], states[-1]) for state in states]
    for metric in ("dev", "l1", "l2"):

        def ours(metric=metric):
            return cost_matrix(states, slopes, sigmas, metric=metric)

        def plain(metric=metric):
            return loop_over_pairs(states, slopes, sigmas, metric, ROWS, own)

        close = {"rtol": 1e-9, "atol": 1e-10}
        if states.dtype == torch.float32:
            close = {"rtol": 1e-3, "atol": 1e-3 if metric != "l1" else 3e-2}
        rows = torch.tensor(ROWS)
        torch.testing.assert_close(ours()[rows], plain().cpu().double()[rows], **close)
        speed = compare_speed(ours, plain, rounds=3)
        memory = [peak_memory(function, device) / 2**20 for function in (ours, plain)]
        record(
            measured=f"cost matrix, {metric}",
            size=f"{POINTS} points, {SAMPLES} samples, {size}, {states.dtype}: {bytes_in:.0f} MiB",
            ours=f"{1e3 * speed.ours_s:.0f} ms, {memory[0]:.1f} MiB more",
            plain=f"{1e3 * speed.reference_s / share:.0f} ms, {memory[1]:.1f} MiB more",
            ratio=round(speed.ratio / share, 2),
            lowest=round(speed.ratio_low / share, 2),
            highest=round(speed.ratio_high / share, 2),
            memory=round(memory[0] / memory[1], 3),
        )
