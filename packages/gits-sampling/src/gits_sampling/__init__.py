"""Few-step noise schedules from the geometry of diffusion trajectories (arXiv 2405.11326).

The names below are loaded when first used; importing the package does not import torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from papercommons.versions import installed_version

if TYPE_CHECKING:
    from gits_sampling.analysis import trajectory_statistics
    from gits_sampling.costs import cost_matrix
    from gits_sampling.diffusers_schedulers import GITSIPNDMScheduler, to_diffusers
    from gits_sampling.fit import fit_schedule, warm_up
    from gits_sampling.path import optimal_path, optimal_paths
    from gits_sampling.schedule import Schedule
    from gits_sampling.solvers import sample, trajectory

__version__ = installed_version("gits-sampling")

_HOME = {
    "GITSIPNDMScheduler": "diffusers_schedulers",
    "Schedule": "schedule",
    "cost_matrix": "costs",
    "fit_schedule": "fit",
    "optimal_path": "path",
    "optimal_paths": "path",
    "sample": "solvers",
    "to_diffusers": "diffusers_schedulers",
    "trajectory": "solvers",
    "trajectory_statistics": "analysis",
    "warm_up": "fit",
}

__all__ = [
    "GITSIPNDMScheduler",
    "Schedule",
    "__version__",
    "cost_matrix",
    "fit_schedule",
    "optimal_path",
    "optimal_paths",
    "sample",
    "to_diffusers",
    "trajectory",
    "trajectory_statistics",
    "warm_up",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"gits_sampling.{_HOME[name]}"), name)
    raise AttributeError(f"module gits_sampling has no attribute {name}")


def __dir__() -> list[str]:
    return __all__
