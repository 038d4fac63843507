"""Speed and memory of one implementation against another, for the files under ``bench/``.

Numbers here are for reading, never for assertions: they depend on the machine and its load.
"""

from __future__ import annotations

import gc
import math
import time
import tracemalloc
import weakref
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Speed(NamedTuple):
    """How long two functions take.

    Attributes:
        ours_s: median seconds per call of the first.
        reference_s: median seconds per call of the second.
        ratio: median over rounds of reference / ours; 3 means that ours is 3 times as fast.
        ratio_low: smallest ratio of a round.
        ratio_high: largest ratio of a round.
    """

    ours_s: float
    reference_s: float
    ratio: float
    ratio_low: float
    ratio_high: float

    def ratios(self) -> dict[str, float]:
        """Return what a table of measurements says: ratio, lowest and highest, two decimals."""
        found = {"ratio": self.ratio, "lowest": self.ratio_low, "highest": self.ratio_high}
        return {name: round(value, 2) for name, value in found.items()}


def compare_speed(
    ours: Callable[[], object],
    reference: Callable[[], object],
    *,
    rounds: int = 9,
    round_s: float = 0.02,
) -> Speed:
    """Time two functions in turn, so that a change in the machine's load meets both alike.

    Args:
        ours: function without arguments; called once before timing, as is the other.
        reference: what it is compared with. CUDA work of both is waited for.
        rounds: how often both are timed, >= 1; which goes first alternates.
        round_s: least seconds a function runs per round; quick ones are called several times.
    """
    if rounds < 1:
        raise ValueError(f"rounds must be >= 1, got {rounds}")
    functions = (ours, reference)
    calls = []
    for function in functions:
        function()
        calls.append(max(1, math.ceil(round_s / _seconds_per_call(function, 1))))
    seconds: tuple[list[float], list[float]] = ([], [])
    collecting = gc.isenabled()
    gc.disable()
    try:
        for turn in range(rounds):
            for which in (0, 1) if turn % 2 == 0 else (1, 0):
                seconds[which].append(_seconds_per_call(functions[which], calls[which]))
    finally:
        if collecting:
            gc.enable()
    ratios = [slow / fast for fast, slow in zip(*seconds, strict=True)]
    return Speed(median(seconds[0]), median(seconds[1]), median(ratios), min(ratios), max(ratios))


def peak_memory(function: Callable[[], object], device: torch.device | str = "cpu") -> int:
    """Return the most bytes that one call holds at a time beyond what was held before it.

    On CUDA, those of the caching allocator. On the CPU, the peak of tensors that operators return
    (not of their inner buffers) plus the peak of Python's and NumPy's allocations: an upper bound
    where these peaks differ in time. The function is called more than once.
    """
    function()
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        function()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with _Allocations() as allocations:
        function()
    tracemalloc.start()
    function()
    outside_torch = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return allocations.peak + outside_torch


class _Allocations(TorchDispatchMode):
    """Counts the bytes of the tensors that operators make, from their birth to their end."""

    def __init__(self) -> None:
        super().__init__()
        self.held = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for storage in self._unknown_storages((args, kwargs)):
            self._follow(storage, 0)  # it was there before
        made = func(*args, **(kwargs or {}))
        for storage in self._unknown_storages(made):
            self._follow(storage, storage.nbytes())
        return made

    def _unknown_storages(self, tree: Any) -> Iterator[torch.UntypedStorage]:
        for leaf in tree_leaves(tree):
            if isinstance(leaf, torch.Tensor):
                storage = leaf.untyped_storage()
                if storage._cdata not in self._known:
                    yield storage

    def _follow(self, storage: torch.UntypedStorage, size: int) -> None:
        self._known.add(storage._cdata)
        self.held += size
        self.peak = max(self.peak, self.held)
        weakref.finalize(storage, self._forget, storage._cdata, size)

    def _forget(self, address: int, size: int) -> None:
        self._known.discard(address)
        self.held -= size


def _seconds_per_call(function: Callable[[], object], calls: int) -> float:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(calls):
        function()
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / calls
