"""Schedules of noise levels that need no model call (specification, section 3.3).

Each returns float64 sigmas of shape (n,), strictly decreasing, with the two ends exact. They serve
as the teacher's fine grid and as the baselines that a fitted schedule has to beat.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_VP_START = 1e-3  # e: the VP time of sigma_min; that of sigma_max is 1
# Align Your Steps (arXiv:2404.14507), 10 steps, as published by its authors.
# fmt: off
_AYS = {
    "sd": (14.6146412293, 6.4745760956, 3.8636745985, 2.694615152, 1.8841921177, 1.3943805092,
           0.9642583904, 0.6523686016, 0.3977456272, 0.1515232662, 0.0291671582),
    "sdxl": (14.6146412293, 6.3184485287, 3.7681790315, 2.1811480769, 1.3405244945, 0.8620721141,
             0.5550693289, 0.3798540708, 0.2332364134, 0.1114188177, 0.0291671582),
    "svd": (700.0, 54.5, 15.886, 7.977, 4.248, 1.789, 0.981, 0.403, 0.173, 0.034, 0.002),
}
# fmt: on


def polynomial(n: int, sigma_min: float, sigma_max: float, rho: float = 7.0) -> Tensor:
    """Return n sigmas uniform in sigma^(1/rho) (EDM's grid; 7 is the paper's teacher grid).

    Args:
        n: number of points, >= 2.
        sigma_min: last sigma, > 0.
        sigma_max: first sigma, > sigma_min.
        rho: > 0; 1 is uniform in sigma, larger puts more points at small sigma.

    Returns:
        float64, shape (n,), strictly decreasing.

    Raises:
        ValueError: an argument is outside its range.

    Example:
        >>> polynomial(3, 1.0, 9.0, rho=2.0)
        tensor([9., 4., 1.], dtype=torch.float64)
    """
    _check(n, sigma_min, sigma_max, rho)
    start, stop = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    return _with_ends((start + _unit(n) * (stop - start)) ** rho, sigma_min, sigma_max)


def log_snr(n: int, sigma_min: float, sigma_max: float) -> Tensor:
    """Return n sigmas uniform in ln sigma, so in the logarithm of the signal-to-noise ratio.

    Args:
        n: number of points, >= 2.
        sigma_min: last sigma, > 0.
        sigma_max: first sigma, > sigma_min.

    Returns:
        float64, shape (n,), strictly decreasing.

    Raises:
        ValueError: an argument is outside its range.
    """
    _check(n, sigma_min, sigma_max)
    start, stop = math.log(sigma_max), math.log(sigma_min)
    return _with_ends((start + _unit(n) * (stop - start)).exp(), sigma_min, sigma_max)


def time_uniform(n: int, sigma_min: float, sigma_max: float, rho: float = 1.0) -> Tensor:
    """Return n sigmas uniform in the time tau of a variance-preserving process, to the power rho.

    tau runs from 1 (sigma_max) to 1e-3 (sigma_min); ln(1 + sigma^2) is quadratic in it.

    Args:
        n: number of points, >= 2.
        sigma_min: last sigma, > 0.
        sigma_max: first sigma, > sigma_min.
        rho: > 0; 1 and 2 are the usual ones.

    Returns:
        float64, shape (n,), strictly decreasing.

    Raises:
        ValueError: an argument is outside its range, or no such process has these ends.
    """
    _check(n, sigma_min, sigma_max, rho)
    slope, offset = _vp_time(sigma_min, sigma_max)
    if slope + offset <= 0:
        raise ValueError(
            f"sigma_min and sigma_max: no variance-preserving time between {sigma_min} and "
            f"{sigma_max}; expected a smaller sigma_min or a larger sigma_max"
        )
    tau = (1 + _unit(n) * (_VP_START ** (1 / rho) - 1)) ** rho
    sigmas = torch.expm1(slope / 2 * tau**2 + offset * tau).sqrt()
    return _with_ends(sigmas, sigma_min, sigma_max)


def has_vp_time(sigma_min: float, sigma_max: float) -> bool:
    """Return whether `time_uniform` exists between two sigmas.

    Args:
        sigma_min: least noise level, > 0.
        sigma_max: greatest.

    Example:
        >>> has_vp_time(0.002, 80.0), has_vp_time(0.5, 80.0)
        (True, False)
    """
    return sum(_vp_time(sigma_min, sigma_max)) > 0


def discrete(
    n: int,
    model_sigmas: Tensor | NDArray[np.floating] | Sequence[float],
    *,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
    rho: float = 1.0,
    rounded: bool = False,
) -> Tensor:
    """Return n sigmas uniform in a trained model's own time steps, to the power rho.

    Between two training steps ln alpha = -ln(1 + sigma^2) / 2 is linear, as the reference has it.

    Args:
        n: number of points, >= 2.
        model_sigmas: sigma of every training step, shape (M,), M >= 2, increasing, > 0, as of
            ``sqrt((1 - abar) / abar)``.
        sigma_min: last sigma, within the model's; None: the model's first.
        sigma_max: first sigma, within the model's; None: the model's last.
        rho: > 0; only 1 is common.
        rounded: take the nearest training step for each, for models that look their time up in a
            table. The ends are then those of the steps nearest to sigma_min and sigma_max.

    Returns:
        float64, shape (n,), strictly decreasing.

    Raises:
        ValueError: an argument is outside its range, or rounding makes two points equal.
    """
    table = torch.as_tensor(model_sigmas, dtype=torch.float64).detach().cpu().numpy()
    if table.ndim != 1 or len(table) < 2 or not (np.diff(table) > 0).all() or not table[0] > 0:
        raise ValueError(
            f"model_sigmas must be (M,), increasing and > 0, M >= 2, got shape {table.shape}"
            + (f" from {table[0]:g} to {table[-1]:g}" if table.ndim == 1 and len(table) else "")
        )
    low = float(table[0]) if sigma_min is None else sigma_min
    high = float(table[-1]) if sigma_max is None else sigma_max
    _check(n, low, high, rho)
    if not (table[0] <= low and high <= table[-1]):
        raise ValueError(
            f"sigma_min and sigma_max must be within the model's {table[0]:g} to {table[-1]:g}, "
            f"got {low:g} and {high:g}"
        )
    log_alpha = -0.5 * np.log1p(table**2)
    steps = np.arange(1.0, len(table) + 1)  # M times the time s in (0, 1]
    ends = np.interp([-0.5 * math.log1p(s**2) for s in (low, high)], log_alpha[::-1], steps[::-1])
    stop, start = ends ** (1 / rho)
    at = np.clip((start + _unit(n).numpy() * (stop - start)) ** rho, ends[0], ends[1])
    if not rounded:
        sigmas = np.sqrt(np.expm1(-2 * np.interp(at, steps, log_alpha)))
        return _with_ends(torch.from_numpy(sigmas), low, high)
    index = np.rint(at - 1).astype(np.int64)
    if (np.diff(index) >= 0).any():
        raise ValueError(f"n must leave distinct training steps, got {n} points on {len(table)}")
    return torch.from_numpy(table[index].copy())


def ays(
    n: int = 11,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
    *,
    model: Literal["sd", "sdxl", "svd"] = "sd",
) -> Tensor:
    """Return the published Align-Your-Steps schedule, log-linearly interpolated to n sigmas.

    The authors published 10 steps (n = 11) for three models and this interpolation for other n.
    Other ends are reached by an affine map of ln sigma, which is ours: there it is only a shape.

    Args:
        n: number of points, >= 2.
        sigma_min: last sigma, > 0; None: the table's (sd, sdxl 0.0291671582; svd 0.002).
        sigma_max: first sigma, > sigma_min; None: the table's (14.6146412293; svd 700).
        model: "sd" (Stable Diffusion 1.5), "sdxl" or "svd" (Stable Video Diffusion).

    Returns:
        float64, shape (n,), strictly decreasing.

    Raises:
        ValueError: an argument is outside its range.
    """
    if model not in _AYS:
        raise ValueError(f"model must be one of {', '.join(_AYS)}, got {model!r}")
    logs = np.log(_AYS[model])
    low = _AYS[model][-1] if sigma_min is None else sigma_min
    high = _AYS[model][0] if sigma_max is None else sigma_max
    _check(n, low, high)
    share = (logs[0] - logs) / (logs[0] - logs[-1])
    share = np.interp(_unit(n).numpy(), np.linspace(0, 1, len(logs)), share)
    sigmas = np.exp(math.log(high) + share * (math.log(low) - math.log(high)))
    return _with_ends(torch.from_numpy(sigmas), low, high)


def _vp_time(sigma_min: float, sigma_max: float) -> tuple[float, float]:
    """Return (slope, offset): ln(1 + sigma^2) = slope / 2 tau^2 + offset tau, tau in [1e-3, 1]."""
    low, high = (math.log1p(sigma**2) for sigma in (sigma_min, sigma_max))
    slope = 2 * (low / _VP_START - high) / (_VP_START - 1)
    return slope, high - slope / 2


def _unit(n: int) -> Tensor:
    return torch.arange(n, dtype=torch.float64) / (n - 1)


def _with_ends(sigmas: Tensor, sigma_min: float, sigma_max: float) -> Tensor:
    sigmas[0], sigmas[-1] = sigma_max, sigma_min
    if not bool((sigmas.diff() < 0).all()):
        raise ValueError(
            f"n must leave distinct sigmas, got {len(sigmas)} between {sigma_min} and {sigma_max}"
        )
    return sigmas


def _check(n: int, sigma_min: float, sigma_max: float, rho: float = 1.0) -> None:
    if n < 2:
        raise ValueError(f"n must be at least 2 points, got {n}")
    if not 0 < sigma_min < sigma_max < math.inf:
        raise ValueError(
            f"sigma_min and sigma_max must be 0 < min < max, got {sigma_min} and {sigma_max}"
        )
    if not 0 < rho < math.inf:
        raise ValueError(f"rho must be > 0, got {rho}")
