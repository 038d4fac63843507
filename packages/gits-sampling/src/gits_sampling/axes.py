"""Axes of this package's pictures: noise levels and logarithms, with plain numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor


def as_array(values: Any) -> np.ndarray:
    """Return a tensor or a sequence as float64 on the CPU."""
    if isinstance(values, Tensor):
        values = values.detach().cpu().numpy()
    return np.asarray(values, dtype=np.float64)


def sigma_axis(axes: Any) -> None:
    """Make the horizontal axis one of noise levels: logarithmic, sigma_max on the left."""
    log_axis(axes.xaxis, "log")
    axes.set_xlabel("sigma (sampling runs to the right)")
    if not axes.xaxis_inverted():
        axes.invert_xaxis()


def log_axis(axis: Any, scale: str, *, label_minor: bool = False, **options: Any) -> None:
    """Make an axis logarithmic with plain numbers; matplotlib's own are formulas.

    Args:
        axis: x or y axis of matplotlib's axes.
        scale: log or symlog.
        label_minor: numbers at 2 and 5 times the powers too.
        options: for the scale, e.g. linthresh.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    (axis.axes.set_xscale if axis.axis_name == "x" else axis.axes.set_yscale)(scale, **options)
    axis.set_major_formatter(FuncFormatter(plain_number))
    axis.set_minor_formatter(FuncFormatter(plain_number) if label_minor else NullFormatter())
    if label_minor:
        axis.set_minor_locator(LogLocator(subs=(2, 5)))


def plain_number(value: float, _: Any = None) -> str:
    """Return 1e-05 as it is, and 0.01, 100, -3."""
    return f"{value:.6g}"
