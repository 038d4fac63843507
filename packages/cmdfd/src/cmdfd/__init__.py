"""Cross-modal deepfake detection by correlation distillation (arXiv 2404.19171).

The names below are loaded when first used; importing the package does not import torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from papercommons.versions import installed_version

if TYPE_CHECKING:
    from cmdfd.clips import read_clip
    from cmdfd.data import AVData
    from cmdfd.lightning import CMDFDModule
    from cmdfd.losses import correlation_distillation_loss
    from cmdfd.mel import mfcc
    from cmdfd.model import CMDFDNet
    from cmdfd.official import load_official
    from cmdfd.preparation import prepare_clip
    from cmdfd.prepared import PreparedClips, open_prepared
    from cmdfd.prepared_data import PreparedData
    from cmdfd.saved import load_network, save_network
    from cmdfd.teachers import ContentTeacher
    from cmdfd.teaching_saved import open_teacher

__version__ = installed_version("cmdfd")

_HOME = {
    "AVData": "cmdfd.data",
    "CMDFDModule": "cmdfd.lightning",
    "CMDFDNet": "cmdfd.model",
    "ContentTeacher": "cmdfd.teachers",
    "PreparedClips": "cmdfd.prepared",
    "PreparedData": "cmdfd.prepared_data",
    "correlation_distillation_loss": "cmdfd.losses",
    "load_network": "cmdfd.saved",
    "load_official": "cmdfd.official",
    "mfcc": "cmdfd.mel",
    "open_prepared": "cmdfd.prepared",
    "open_teacher": "cmdfd.teaching_saved",
    "prepare_clip": "cmdfd.preparation",
    "read_clip": "cmdfd.clips",
    "save_network": "cmdfd.saved",
}

__all__ = [
    "AVData",
    "CMDFDModule",
    "CMDFDNet",
    "ContentTeacher",
    "PreparedClips",
    "PreparedData",
    "__version__",
    "correlation_distillation_loss",
    "load_network",
    "load_official",
    "mfcc",
    "open_prepared",
    "open_teacher",
    "prepare_clip",
    "read_clip",
    "save_network",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module cmdfd has no attribute {name}")


def __dir__() -> list[str]:
    return __all__
