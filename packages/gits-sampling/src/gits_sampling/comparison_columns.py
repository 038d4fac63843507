"""What a comparison of schedules is made of: names of columns, and solvers with their budgets."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from papercommons.errors import nearest
from torch import Tensor

from gits_sampling.costs import METRICS
from gits_sampling.sigmas import ays, has_vp_time
from gits_sampling.solvers import steps_for
from gits_sampling.stepping import ORDERS

FIXED = ("polynomial 7", "log_snr", "time_uniform 1", "time_uniform 2")
PUBLISHED = ("ays sd", "ays sdxl", "ays svd")
SCHEDULES = (*FIXED, *PUBLISHED, "own", "gits 1.0", "gits 1.15", "auto", "refined")
"""Columns of the table; 1.15 is the paper's coefficient for pixels."""


def settings(
    solvers: Sequence[str], nfes: Sequence[int]
) -> tuple[list[tuple[str, int, int]], list[str]]:
    """Return (solver, order, nfe) for all that exist, and why others do not.

    Args:
        solvers: names, with an order as in ``dpmpp 2`` or without.
        nfes: budgets, evaluations of the model.

    Raises:
        ValueError: a name, order or budget that no solver has, or nothing is left.
    """
    found: list[tuple[str, int, int]] = []
    left_out: list[str] = []
    for text in dict.fromkeys(solvers):
        solver, _, order = text.partition(" ")
        if solver not in ORDERS or (order and not order.isdigit()):
            raise ValueError(
                f"solvers must be of {', '.join(ORDERS)}, with an order as in 'dpmpp 2', "
                f"got {text!r}{nearest(solver, tuple(ORDERS))}"
            )
        low, high = ORDERS[solver]  # type: ignore[index]
        if order and not low <= int(order) <= high:
            raise ValueError(f"order of {solver} must be {low} to {high}, got {order}")
        for nfe in dict.fromkeys(nfes):
            if nfe < 1:
                raise ValueError(f"nfes must be >= 1, got {nfe}")
            try:
                steps_for(solver, nfe)  # type: ignore[arg-type]
            except ValueError as error:
                left_out.append(f"{text}, nfe {nfe}: {error}")
                continue
            found.append((solver, int(order or high), nfe))
    if not found:
        raise ValueError("solvers and nfes must leave something to compare, got " + str(left_out))
    return found, left_out


def columns(
    schedules: Sequence[str],
    sigma_min: float,
    sigma_max: float,
    own: Callable[[int], Tensor] | None,
    left_out: list[str],
) -> list[str]:
    """Return the names of the columns that exist here; add why others do not to `left_out`.

    Args:
        schedules: names, see `SCHEDULES`.
        sigma_min: least noise level, > 0.
        sigma_max: greatest.
        own: the model's own schedule; None without one.
        left_out: gets the reasons.

    Raises:
        ValueError: an unknown name, or nothing is left.
    """
    names: list[str] = []
    for name in dict.fromkeys(schedules):
        why = ""
        if name in PUBLISHED:
            table = ays(model=name.split()[1])  # type: ignore[arg-type]
            ratios = [sigma_max / float(table[0]), sigma_min / float(table[-1])]
            if not all(0.95 < ratio < 1.05 for ratio in ratios):
                why = f"its model has sigma {float(table[-1]):.3g} to {float(table[0]):.3g}"
        elif name == "own":
            why = "" if own is not None else "no default was given"
        elif name.startswith("time_uniform") and name in FIXED:
            why = "" if has_vp_time(sigma_min, sigma_max) else "no such time with these ends"
        elif name not in SCHEDULES:
            path_of(name)
        if why:
            left_out.append(f"{name}: {why}")
        else:
            names.append(name)
    if not names:
        raise ValueError("schedules must leave something to compare, got " + str(left_out))
    return names


def path_of(name: str) -> tuple[float, str]:
    """Return coefficient and metric of ``gits 1.0`` or ``gits 1.0 l2``.

    Raises:
        ValueError: another name.
    """
    words = name.split()
    try:
        coeff = float(words[1]) if words[0] == "gits" and len(words) in (2, 3) else math.nan
    except (ValueError, IndexError):
        coeff = math.nan
    metric = words[2] if len(words) == 3 else "dev"
    if not 0 < coeff < math.inf or metric not in METRICS:
        raise ValueError(
            f"schedules must be of {', '.join(SCHEDULES)}, or such as 'gits 0.9 l2', "
            f"got {name!r}{nearest(name, SCHEDULES)}"
        )
    return coeff, metric


def is_ours(name: str) -> bool:
    """Return whether a column is a path, a choice or a refinement of this package."""
    return name in ("auto", "refined") or name.startswith("gits ")


def taken(solver: str, options: dict[str, Any]) -> dict[str, Any]:
    """Return the options that a solver takes.

    Args:
        solver: its name.
        options: of several solvers, by name.

    Raises:
        ValueError: an option that none of them takes.
    """
    of = {
        "prediction": ("dpmpp", "unipc"),
        "thresholding": ("dpmpp", "unipc"),
        "lower_order_final": ("dpmpp", "unipc"),
        "variant": ("unipc",),
        "r": ("dpm",),
    }
    for name in options:
        if name not in of:
            raise ValueError(f"options must be of {', '.join(of)}, got {name!r}{nearest(name, of)}")
    return {name: value for name, value in options.items() if solver in of[name]}
