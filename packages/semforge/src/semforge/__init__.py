"""Graph-aware detection of face forgery (arXiv 2405.08487).

The names below are loaded when first used; importing the package does not import torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from papercommons.versions import installed_version

if TYPE_CHECKING:
    from semforge.auto_lambda import AutoLambda
    from semforge.data import FaceForgeryData
    from semforge.graph import LabelGraph
    from semforge.lightning import SemForgeModule
    from semforge.losses import task_losses
    from semforge.model import SemForgeNet
    from semforge.saved import load_network, save_network

__version__ = installed_version("semforge")

_HOME = {
    "AutoLambda": "semforge.auto_lambda",
    "FaceForgeryData": "semforge.data",
    "LabelGraph": "semforge.graph",
    "SemForgeModule": "semforge.lightning",
    "SemForgeNet": "semforge.model",
    "load_network": "semforge.saved",
    "save_network": "semforge.saved",
    "task_losses": "semforge.losses",
}

__all__ = [
    "AutoLambda",
    "FaceForgeryData",
    "LabelGraph",
    "SemForgeModule",
    "SemForgeNet",
    "__version__",
    "load_network",
    "save_network",
    "task_losses",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module semforge has no attribute {name}")


def __dir__() -> list[str]:
    return __all__
