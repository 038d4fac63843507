"""Choosing frames by time; needs NumPy alone."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import TypeVar

import numpy as np

T = TypeVar("T")

_TIE = 1e-6  # seconds; of two items as near, the earlier is taken


def at_rate(
    timed: Iterable[tuple[float, float, T]], fps: float, begin: float | None = None
) -> Iterator[T]:
    """Resample in time: item k is the one whose time is nearest to ``begin + k / fps``.

    Before a gap longer than 1 / fps and than the shortest step so far an item is held, as files
    leave out pictures that do not change: the next one comes half of the longer of these two before
    its time. As many are given as whole periods of 1 / fps fit before the end of the last item; an
    end that misses a period by less than 5 % of it counts as reached.

    Args:
        timed: begin and duration in seconds, and the item; begins do not decrease.
        fps: items per second, > 0.
        begin: seconds; None is the begin of the first item.
    """
    waiting: deque[T] = deque()  # chosen, but not yet known to fit before the end
    placed = given = 0
    held: tuple[float, T] | None = None
    end, step = 0.0, float("inf")
    for time, length, item in timed:
        if held is None:
            begin = time if begin is None else max(begin, time)
        assert begin is not None
        gap = time - held[0] if held else 0.0
        step = min(step, gap) if gap > _TIE else step
        turn = time - min(gap, max(step, 1 / fps)) / 2
        while True:
            if waiting and begin + (given + 1) / fps <= time:
                given += 1
                yield waiting.popleft()
            elif held is not None and begin + placed / fps <= turn + _TIE:
                placed += 1
                waiting.append(held[1])
            else:
                break
        held, end = (time, item), max(end, time + length)
    if held is None or begin is None:
        return
    for _ in range(given, whole_frames(end - begin, fps)):
        yield waiting.popleft() if waiting else held[1]


def whole_frames(seconds: float, fps: float) -> int:
    """Return how many periods of 1 / fps fit; one that misses less than 5 % of itself counts."""
    return int(seconds * fps + 0.05)


def spaced(total: int, count: int) -> np.ndarray:
    """Return ``min(total, count)`` numbers in [0, total), spaced evenly from first to last.

    Args:
        total: how many there are, >= 0.
        count: how many are wanted, >= 1.

    Example:
        >>> spaced(10, 4)
        array([0, 3, 6, 9])
    """
    return np.linspace(0, total - 1, min(total, count)).astype(np.int64)


def check_positive(**values: float | None) -> None:
    """Raise ValueError, with its name, for a value that is given and not positive and finite."""
    for name, value in values.items():
        if value is not None and not 0 < value < np.inf:
            raise ValueError(f"{name} must be > 0, got {value}")
