"""Explainable 3-D CT diagnosis with a residual attention non-local network (arXiv 2408.04300).

The names below are loaded when first used; importing the package does not import torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from papercommons.versions import installed_version

if TYPE_CHECKING:
    from nlran.attention import AttentionModule3d
    from nlran.data import CTData
    from nlran.lightning import NLRANModule
    from nlran.model import NLRAN, nlran_base, nlran_large, nlran_tiny
    from nlran.non_local import NonLocalBlock3d
    from nlran.saved import load_network
    from nlran.volumes import read_volume

__version__ = installed_version("nlran")

_HOME = {
    "AttentionModule3d": "attention",
    "CTData": "data",
    "NLRAN": "model",
    "NLRANModule": "lightning",
    "NonLocalBlock3d": "non_local",
    "load_network": "saved",
    "nlran_base": "model",
    "nlran_large": "model",
    "nlran_tiny": "model",
    "read_volume": "volumes",
}

__all__ = [
    "NLRAN",
    "AttentionModule3d",
    "CTData",
    "NLRANModule",
    "NonLocalBlock3d",
    "__version__",
    "load_network",
    "nlran_base",
    "nlran_large",
    "nlran_tiny",
    "read_volume",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"nlran.{_HOME[name]}"), name)
    raise AttributeError(f"module nlran has no attribute {name}")


def __dir__() -> list[str]:
    return __all__
