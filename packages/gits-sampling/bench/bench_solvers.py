"""What each solver costs beside the network's calls, the making of its weights included.

``python -m pytest packages/gits-sampling/bench/bench_solvers.py -s --device cpu`` (or cuda). The
network multiplies matrices until 20 ms have passed; what a run takes outside its calls is the
solver's. The CPU part uses one thread. Times and memory are only printed; ratio 0.98 means an
overhead of 2 %.
"""

from __future__ import annotations

import time
from statistics import median

import pytest
import torch
from gits_sampling.sigmas import polynomial
from gits_sampling.solvers import sample
from gits_sampling.stepping import ORDERS, TWO_CALLS
from papercommons.testing.timing import peak_memory

CALL, CALLS, ROUNDS = 0.02, 10, 5  # seconds of a call, calls of a run, runs
SIZES = {"16 x 3 x 32 x 32": (16, 3, 32, 32), "4 x 4 x 64 x 64": (4, 4, 64, 64)}


@pytest.fixture(autouse=True)
def _one_thread(device):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Clock:
    """A network that takes 20 ms, and knows how long it was called, and how often."""

    def __init__(self, denoised):
        self.denoised, self.calls, self.seconds = denoised, 0, 0.0
        self.matrices = torch.randn(3, 256, 256)

    def __call__(self, x, sigma):
        start = time.perf_counter()
        while (taken := time.perf_counter() - start) < CALL:
            torch.mm(self.matrices[0], self.matrices[1], out=self.matrices[2])
        self.calls, self.seconds = self.calls + 1, self.seconds + taken
        return self.denoised


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("solver", ORDERS)
def test_overhead(solver, size, device, record):
    denoised = torch.zeros(SIZES[size], device=device)
    x = 80 * torch.randn(SIZES[size], device=device)
    sigmas = polynomial(CALLS // (2 if solver in TWO_CALLS else 1) + 1, 0.002, 80.0)
    ratios, outside = [], []
    for turn in range(ROUNDS + 1):
        network = Clock(denoised)
        start = time.perf_counter()
        sample(network, x, sigmas, solver=solver)
        if torch.device(device).type == "cuda":
            torch.cuda.synchronize(device)
        seconds = time.perf_counter() - start
        assert network.calls == CALLS
        if turn:  # the first run warms up
            ratios.append(network.seconds / seconds)
            outside.append((seconds - network.seconds) / CALLS)
    memory = peak_memory(lambda: sample(network, x, sigmas, solver=solver), device) / 2**20
    record(
        measured=f"calls of {1e3 * CALL:.0f} ms with {solver}",
        size=f"{size}, {CALLS} calls",
        ours=f"{1e6 * median(outside):.0f} us more per call, {memory:.1f} MiB",
        plain="the calls alone",
        ratio=round(median(ratios), 4),
        lowest=round(min(ratios), 4),
        highest=round(max(ratios), 4),
        memory=None,
    )
