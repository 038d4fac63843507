"""Few-step noise schedules from the geometry of diffusion trajectories (arXiv 2405.11326).

The names below are loaded when first used; importing the package does not import torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from papercommons.versions import installed_version

if TYPE_CHECKING:
    from gits_sampling.adapters import EDMDenoiser, EpsDenoiser, FlowDenoiser, Guided, VDenoiser
    from gits_sampling.afs import add_first_step
    from gits_sampling.analysis import chord_frame, pca_reconstruction, trajectory_statistics
    from gits_sampling.callbacks import (
        GITSScheduleCallback,
        SampleGridCallback,
        TrajectoryStatsCallback,
    )
    from gits_sampling.comparison import compare_schedules
    from gits_sampling.costs import cost_matrix
    from gits_sampling.data import ImageData
    from gits_sampling.diffusers_schedulers import GITSIPNDMScheduler, to_diffusers
    from gits_sampling.features import frechet_distance
    from gits_sampling.fit import fit_schedule
    from gits_sampling.lightning import GITSModule
    from gits_sampling.loading import load_denoiser
    from gits_sampling.models import EmpiricalDenoiser, GaussianMixtureDenoiser
    from gits_sampling.path import optimal_path, optimal_paths
    from gits_sampling.schedule import Schedule
    from gits_sampling.solvers import sample, trajectory
    from gits_sampling.warming import warm_up

__version__ = installed_version("gits-sampling")

_HOME = {
    "EDMDenoiser": "adapters",
    "EmpiricalDenoiser": "models",
    "EpsDenoiser": "adapters",
    "FlowDenoiser": "adapters",
    "GITSIPNDMScheduler": "diffusers_schedulers",
    "GITSModule": "lightning",
    "GITSScheduleCallback": "callbacks",
    "GaussianMixtureDenoiser": "models",
    "Guided": "adapters",
    "ImageData": "data",
    "SampleGridCallback": "callbacks",
    "Schedule": "schedule",
    "TrajectoryStatsCallback": "callbacks",
    "VDenoiser": "adapters",
    "add_first_step": "afs",
    "chord_frame": "analysis",
    "compare_schedules": "comparison",
    "cost_matrix": "costs",
    "fit_schedule": "fit",
    "frechet_distance": "features",
    "load_denoiser": "loading",
    "optimal_path": "path",
    "optimal_paths": "path",
    "pca_reconstruction": "analysis",
    "sample": "solvers",
    "to_diffusers": "diffusers_schedulers",
    "trajectory": "solvers",
    "trajectory_statistics": "analysis",
    "warm_up": "warming",
}

__all__ = [
    "EDMDenoiser",
    "EmpiricalDenoiser",
    "EpsDenoiser",
    "FlowDenoiser",
    "GITSIPNDMScheduler",
    "GITSModule",
    "GITSScheduleCallback",
    "GaussianMixtureDenoiser",
    "Guided",
    "ImageData",
    "SampleGridCallback",
    "Schedule",
    "TrajectoryStatsCallback",
    "VDenoiser",
    "__version__",
    "add_first_step",
    "chord_frame",
    "compare_schedules",
    "cost_matrix",
    "fit_schedule",
    "frechet_distance",
    "load_denoiser",
    "optimal_path",
    "optimal_paths",
    "pca_reconstruction",
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
