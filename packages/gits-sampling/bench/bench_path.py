"""`optimal_path` and `optimal_paths` against the triple loop of the reference implementation.

``python -m pytest packages/gits-sampling/bench/bench_path.py -s``. Paths are tested to be equal;
times and memory are only printed. The loop reads an array, as the reference does, or plain lists,
which Python indexes faster.
"""

from __future__ import annotations

import pytest
import torch
from gits_sampling.path import optimal_path, optimal_paths
from papercommons.testing.timing import compare_speed, peak_memory

COEFFS = [0.8 + 0.05 * k for k in range(9)]
READ = {"array": torch.Tensor.numpy, "lists": torch.Tensor.tolist}


def triple_loop(cost, steps, coeff):
    """Return the cheapest path; `cost` is an array or nested lists."""
    n = len(cost)
    value = [[float("inf")] * (steps + 1) for _ in range(n)]
    following = [[n - 1] * (steps + 1) for _ in range(n)]
    for i in range(n - 1):
        value[i][1] = cost[i][n - 1]
    for k in range(2, steps + 1):
        for i in range(n - 2, -1, -1):
            for j in range(i + 1, n - 1):
                through = cost[i][j] + coeff * value[j][k - 1]
                if through < value[i][k]:
                    value[i][k], following[i][k] = through, j
    path = [0]
    for k in range(steps, 0, -1):
        path.append(following[path[-1]][k])
    return torch.tensor(path)


def jump_cost(n):
    """Return costs that grow with the jump, with noise, so that paths are not trivial."""
    at = torch.linspace(0, 1, n, dtype=torch.float64)
    noise = torch.rand(n, n, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return ((at - at[:, None]).square() * (0.5 + noise)).triu(1)


def keep(record, measured, size, ours, plain, rounds):
    speed = compare_speed(ours, plain, rounds=rounds)
    memory = [peak_memory(function) / 2**10 for function in (ours, plain)]
    record(
        measured=measured,
        size=size,
        ours=f"{1e3 * speed.ours_s:.2f} ms, {memory[0]:.0f} KiB",
        plain=f"{1e3 * speed.reference_s:.2f} ms, {memory[1]:.0f} KiB",
        **speed.ratios(),
        memory=round(memory[0] / memory[1], 3),
    )


@pytest.mark.parametrize("kind", ["array", "lists"])
@pytest.mark.parametrize(("n", "steps"), [(61, 6), (61, 10), (201, 20)])
def test_one_path(n, steps, kind, record):
    cost = jump_cost(n)

    def ours():
        return optimal_path(cost, steps, 1.15)

    def plain():
        return triple_loop(READ[kind](cost), steps, 1.15)

    assert torch.equal(ours(), plain())
    keep(record, f"one path, loop over {kind}", f"{n} points, {steps} steps", ours, plain, 3)


@pytest.mark.parametrize("kind", ["array", "lists"])
def test_all_paths(kind, record):
    cost, steps = jump_cost(61), 10

    def ours():
        return optimal_paths(cost, steps, COEFFS)

    def plain():
        return {
            (k, coeff): triple_loop(READ[kind](cost), k, coeff)
            for coeff in COEFFS
            for k in range(1, steps + 1)
        }

    expected = plain()
    assert all(torch.equal(path, expected[key]) for key, path in ours().items())
    size = f"61 points, 1 to {steps} steps, {len(COEFFS)} coefficients"
    keep(record, f"all paths, loop over {kind}", size, ours, plain, 3)
