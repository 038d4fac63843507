"""Checks of options, before anything slow begins: each error names its option. Needs no torch.

An option that was not given (None) passes.
"""

from __future__ import annotations

import math
from typing import Literal


def check_seed(seed: int) -> None:
    """Raise ValueError unless all generators take `seed`."""
    if not 0 <= seed < 2**32:
        raise ValueError(f"--seed must be in [0, 2^32), got {seed}")


def check_port(port: int) -> None:
    """Raise ValueError unless a server can listen on `port`."""
    if not 1 <= port <= 65535:
        raise ValueError(f"--port must be 1 to 65535, got {port}")


def check_at_least(least: float, /, **values: float | None) -> None:
    """Raise ValueError for a number below `least`.

    Args:
        least: the smallest one allowed.
        **values: numbers by the names of their options.

    Example:
        >>> check_at_least(1, epochs=3, batch_size=0)
        Traceback (most recent call last):
        ValueError: --batch-size must be >= 1, got 0
    """
    for name, value in values.items():
        if value is not None and not value >= least:
            raise ValueError(f"{_flag(name)} must be >= {least}, got {value}")


def check_positive(**values: float | None) -> None:
    """Raise ValueError for a number that is not > 0 and finite.

    Args:
        **values: numbers by the names of their options.
    """
    for name, value in values.items():
        if value is not None and not 0 < value < math.inf:
            raise ValueError(f"{_flag(name)} must be > 0, got {value}")


def check_fraction(
    within: Literal["[0, 1]", "[0, 1)", "(0, 1]", "(0, 1)"], /, **values: float | None
) -> None:
    """Raise ValueError for a number that is not between 0 and 1.

    Args:
        within: which of the two ends are allowed.
        **values: numbers by the names of their options.

    Example:
        >>> check_fraction("[0, 1)", warmup=0.0, dropout=1.0)
        Traceback (most recent call last):
        ValueError: --dropout must be in [0, 1), got 1.0
    """
    ends = [end for end, written in ((0, "[0"), (1, "1]")) if written in within]
    for name, value in values.items():
        if value is not None and not 0 < value < 1 and value not in ends:
            raise ValueError(f"{_flag(name)} must be in {within}, got {value}")


def check_held_out(val_fraction: float, test_fraction: float) -> None:
    """Raise ValueError unless both are >= 0 and leave something to train on."""
    if not (min(val_fraction, test_fraction) >= 0 and val_fraction + test_fraction < 1):
        raise ValueError(
            "--val-fraction and --test-fraction must be >= 0 and sum to less than 1, got "
            f"{val_fraction} and {test_fraction}"
        )


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
