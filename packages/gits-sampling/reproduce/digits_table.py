"""The experiment of the specification's section 7.2 on scikit-learn's digits, with its figures.

Model A is the closed-form denoiser of the 1797 images, model B that of ten class Gaussians. The
specification measured 33 rows with the authors' code; `compare_digits` runs ours in the same
setting: float64, sigma 0.002 to 80, 512 evaluation latents of one generator with seed 1234, their
ends by Heun on 1001 points.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from gits_sampling.comparison import Comparison, compare_schedules
from gits_sampling.end_points import EndPoints, end_points, training_points
from gits_sampling.models import Denoiser, digits_empirical, digits_gauss10
from gits_sampling.sigmas import polynomial
from gits_sampling.warming import warm_up, wide_search
from torch import Tensor

RANGE: dict[str, Any] = {"sigma_min": 0.002, "sigma_max": 80.0, "shape": (1, 8, 8)}
MODELS = {"digits-empirical": digits_empirical, "digits-gauss10": digits_gauss10}

_BASELINES = ("polynomial 7", "log_snr", "time_uniform 1", "time_uniform 2")
COLUMNS: dict[str, tuple[str, ...]] = {
    "digits-empirical": (
        *_BASELINES,
        *(f"gits {coeff}" for coeff in ("0.9", "1.0", "1.05", "1.15", "1.2")),
        "gits 1.0 l2",
    ),
    "digits-gauss10": (
        *_BASELINES,
        *(f"gits {coeff}" for coeff in ("0.95", "1.0", "1.05", "1.15", "1.2")),
        "gits 1.0 l2",
    ),
}
"""Columns of the specification's tables, as names for `compare_schedules`."""

_MEASURED = {  # solver, nfe, then the columns
    "digits-empirical": """
        euler  4  2.898 3.209 1.907 1.714 1.368 1.438 1.582 1.762 1.762 1.438
        euler  5  1.943 2.083 1.520 1.426 1.085 1.140 1.140 1.496 1.814 1.085
        euler  6  2.018 2.207 1.230 1.258 0.909 0.923 1.026 1.297 1.297 0.909
        euler  8  1.486 1.588 0.875 1.001 0.731 0.691 0.706 0.909 1.072 0.701
        euler 10  1.239 1.305 0.671 0.813 0.653 0.493 0.583 0.776 1.075 0.495
        ipndm  4  4.560 3.943 2.220 3.312 2.005 2.314 2.459 2.580 2.580 2.314
        ipndm  5  4.064 2.881 2.040 2.894 1.649 1.717 1.717 2.052 2.289 1.649
        ipndm  6  3.498 3.958 1.925 2.408 1.334 1.259 1.361 1.608 1.608 1.334
        ipndm  8  2.874 2.679 1.623 1.849 0.950 0.891 0.915 0.938 0.956 0.960
        ipndm 10  2.815 2.035 1.354 1.385 0.945 0.851 0.538 0.488 0.815 0.800
        dpmpp  4  2.293 2.837 1.753 1.336 1.177 1.278 1.482 1.679 1.679 1.278
        dpmpp  5  1.262 1.523 1.235 0.851 0.775 0.870 0.870 1.395 1.702 0.775
        dpmpp  6  1.362 1.521 0.863 0.610 0.523 0.630 0.822 1.178 1.178 0.523
        dpmpp  8  0.796 0.992 0.446 0.362 0.347 0.299 0.345 0.723 0.915 0.362
        dpmpp 10  0.536 0.682 0.252 0.244 0.319 0.146 0.237 0.533 0.915 0.118
        unipc  5  1.182 1.448 1.186 0.785 0.516 0.503 0.503 0.909 1.191 0.516
        unipc  6  1.359 1.465 0.826 0.495 0.372 0.335 0.349 0.582 0.582 0.372
        unipc  8  0.752 0.973 0.424 0.271 0.294 0.085 0.093 0.219 0.354 0.295
        unipc 10  0.569 0.613 0.189 0.178 0.299 0.069 0.056 0.136 0.374 0.086
    """,
    "digits-gauss10": """
        euler  5  1.850 1.892 1.503 1.357 1.299 1.260 1.232 1.352 1.464 1.202
        euler  6  1.708 1.766 1.319 1.184 1.137 1.048 1.064 1.179 1.304 1.037
        euler 10  1.142 1.195 0.891 0.775 0.758 0.676 0.678 0.859 0.962 0.674
        ipndm  5  0.981 0.864 1.092 0.599 0.940 0.819 0.714 0.846 0.996 0.595
        ipndm  6  0.649 0.628 0.849 0.414 0.679 0.452 0.474 0.670 0.823 0.401
        ipndm  8  0.394 0.353 0.553 0.205 0.272 0.239 0.282 0.403 0.641 0.216
        ipndm 10  0.270 0.246 0.388 0.107 0.221 0.152 0.165 0.385 0.490 0.138
        dpmpp  5  0.962 1.401 1.175 0.596 1.019 0.989 0.807 0.913 1.068 0.707
        dpmpp  6  1.020 1.340 0.923 0.479 0.847 0.649 0.629 0.833 0.941 0.591
        dpmpp 10  0.959 0.359 0.552 0.274 0.468 0.352 0.399 0.655 0.788 0.278
        unipc  6  1.169 1.571 0.889 0.581 0.771 0.554 0.502 0.546 0.638 0.599
        unipc 10  0.974 0.309 0.541 0.266 0.446 0.300 0.301 0.286 0.356 0.211
        deis   6  0.638 0.926 0.853 0.503 0.918 0.593 0.622 0.876 1.024 0.531
        deis  10  0.295 0.306 0.396 0.167 0.279 0.223 0.263 0.589 0.728 0.190
    """,
}


def measured(name: str) -> dict[tuple[str, int], dict[str, float]]:
    """Return the specification's table: (solver, nfe) -> column -> error.

    Args:
        name: ``digits-empirical`` (A) or ``digits-gauss10`` (B).

    Raises:
        ValueError: another name.

    Example:
        >>> measured("digits-empirical")["euler", 6]["gits 1.0"]
        0.923
    """
    _check(name)
    table = {}
    for line in _MEASURED[name].split("\n"):
        if line.strip():
            solver, nfe, *errors = line.split()
            row = zip(COLUMNS[name], map(float, errors), strict=True)
            table[solver, int(nfe)] = dict(row)
    return table


def evaluation_latents() -> Tensor:
    """Return the 512 start states of section 7.2, float64, shape (512, 1, 8, 8)."""
    generator = torch.Generator().manual_seed(1234)
    return 80.0 * torch.randn(512, 1, 8, 8, generator=generator, dtype=torch.float64)


def digits_evaluation(denoiser: Denoiser, samples: int = 512, *, points: int = 1001) -> EndPoints:
    """Return evaluation latents and where they end.

    Args:
        denoiser: of digits.
        samples: the first of the 512; fewer for a quick look.
        points: of Heun's grid.
    """
    grid = polynomial(points, 0.002, 80.0)
    return end_points(denoiser, evaluation_latents()[:samples], grid, batch=512, solver="heun")


def compare_digits(
    name: str,
    solver: str,
    evaluation: EndPoints,
    *,
    nfes: Sequence[int] | None = None,
    samples: int = 256,
    **refinement: Any,
) -> Comparison:
    """Return our table for a model of section 7.2 and one solver.

    Its columns are the specification's, then ``auto`` and ``refined``.

    Args:
        name: ``digits-empirical`` (A) or ``digits-gauss10`` (B).
        solver: of the specification's table.
        evaluation: of `digits_evaluation`.
        nfes: all of the specification's if not given.
        samples: of the warm-up, as many held out, and as many to refine on; seed 0.
        **refinement: options of `refine`.

    Raises:
        ValueError: another name, or an argument out of range.
    """
    wanted = [nfe for of, nfe in measured(name) if of == solver]
    model = MODELS[name]()
    size: dict[str, Any] = {"samples": samples, "held_out": samples, "batch": 256}
    like = torch.zeros((), dtype=torch.float64)
    warm = warm_up(model, **RANGE, **wide_search(0.002, 80.0), **size, like=like)
    return compare_schedules(
        model,
        **RANGE,
        nfes=wanted if nfes is None else nfes,
        solvers=(solver,),
        schedules=(*COLUMNS[name], "auto", "refined"),
        warm=warm,
        train=training_points(model, warm, samples, batch=256),
        evaluation=evaluation,
        batch=256,
        refinement=refinement,
    )


def _check(name: str) -> None:
    if name not in MODELS:
        raise ValueError(f"name must be one of {', '.join(MODELS)}, got {name!r}")
