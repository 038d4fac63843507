"""Inpainting localization with dense feature interaction, DeFI-Net (arXiv 2408.02191).

The names below are loaded when first used; importing the package does not import torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from papercommons.versions import installed_version

if TYPE_CHECKING:
    from defi_net.attention import ReverseEdgeAttention
    from defi_net.data import InpaintingData
    from defi_net.edges import edge_label
    from defi_net.fusion import SpatialAdaptiveFusion
    from defi_net.lightning import DeFINetModule
    from defi_net.losses import boundary_loss, structure_loss
    from defi_net.model import DeFINet
    from defi_net.pyramid import DenseFeaturePyramid

__version__ = installed_version("defi-net")

_HOME = {
    "DeFINet": "defi_net.model",
    "DeFINetModule": "defi_net.lightning",
    "DenseFeaturePyramid": "defi_net.pyramid",
    "InpaintingData": "defi_net.data",
    "ReverseEdgeAttention": "defi_net.attention",
    "SpatialAdaptiveFusion": "defi_net.fusion",
    "boundary_loss": "defi_net.losses",
    "edge_label": "defi_net.edges",
    "structure_loss": "defi_net.losses",
}

__all__ = [
    "DeFINet",
    "DeFINetModule",
    "DenseFeaturePyramid",
    "InpaintingData",
    "ReverseEdgeAttention",
    "SpatialAdaptiveFusion",
    "__version__",
    "boundary_loss",
    "edge_label",
    "structure_loss",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module defi_net has no attribute {name}")


def __dir__() -> list[str]:
    return __all__
