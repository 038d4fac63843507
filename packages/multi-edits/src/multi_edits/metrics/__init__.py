"""Metrics of edited images: PIE-Bench's and those of aspects.

The names below are loaded when first used; importing the package does not import torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from multi_edits.metrics.aspects import Scorer, aspect_accuracy, list_scores
    from multi_edits.metrics.clip import clip_similarity, directional_similarity, load_clip
    from multi_edits.metrics.columns import COLUMNS
    from multi_edits.metrics.measuring import (
        MetricModels,
        load_models,
        measure_edit,
    )
    from multi_edits.metrics.perceptual import Lpips, load_lpips
    from multi_edits.metrics.pixels import mse, psnr, ssim
    from multi_edits.metrics.structure import DinoKeys, load_dino, structure_distance

_HOME = {
    "COLUMNS": "columns",
    "DinoKeys": "structure",
    "Lpips": "perceptual",
    "MetricModels": "measuring",
    "Scorer": "aspects",
    "aspect_accuracy": "aspects",
    "clip_similarity": "clip",
    "directional_similarity": "clip",
    "list_scores": "aspects",
    "load_clip": "clip",
    "load_dino": "structure",
    "load_lpips": "perceptual",
    "load_models": "measuring",
    "measure_edit": "measuring",
    "mse": "pixels",
    "psnr": "pixels",
    "ssim": "pixels",
    "structure_distance": "structure",
}

__all__ = [
    "COLUMNS",
    "DinoKeys",
    "Lpips",
    "MetricModels",
    "Scorer",
    "aspect_accuracy",
    "clip_similarity",
    "directional_similarity",
    "list_scores",
    "load_clip",
    "load_dino",
    "load_lpips",
    "load_models",
    "measure_edit",
    "mse",
    "psnr",
    "ssim",
    "structure_distance",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"multi_edits.metrics.{_HOME[name]}"), name)
    raise AttributeError(f"module multi_edits.metrics has no attribute {name}")


def __dir__() -> list[str]:
    return __all__
