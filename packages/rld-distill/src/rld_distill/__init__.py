"""Knowledge distillation with refined logits (Sun et al. 2024, arXiv 2408.07703).

The names below are loaded when first used; importing the package does not import torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from papercommons.versions import installed_version

if TYPE_CHECKING:
    from rld_distill.baselines import dkd_loss, kd_loss
    from rld_distill.data import DistillData
    from rld_distill.lightning import RLDModule
    from rld_distill.losses import RLDLoss, mcd_loss, rld_loss, scd_loss
    from rld_distill.saved import load_network
    from rld_distill.zoo import create_model, list_models

__version__ = installed_version("rld-distill")

_HOME = {
    "rld_loss": "losses",
    "scd_loss": "losses",
    "mcd_loss": "losses",
    "RLDLoss": "losses",
    "kd_loss": "baselines",
    "dkd_loss": "baselines",
    "RLDModule": "lightning",
    "DistillData": "data",
    "create_model": "zoo",
    "list_models": "zoo",
    "load_network": "saved",
}

__all__ = [
    "DistillData",
    "RLDLoss",
    "RLDModule",
    "__version__",
    "create_model",
    "dkd_loss",
    "kd_loss",
    "list_models",
    "load_network",
    "mcd_loss",
    "rld_loss",
    "scd_loss",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"rld_distill.{_HOME[name]}"), name)
    raise AttributeError(f"module rld_distill has no attribute {name}")


def __dir__() -> list[str]:
    return __all__
