"""Many edits of one image at once with Stable Diffusion (arXiv 2406.00985).

The names below are loaded when first used; importing the package does not import torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from papercommons.versions import installed_version

if TYPE_CHECKING:
    from multi_edits.branches import SamplingSettings
    from multi_edits.ddcm import ddcm_step
    from multi_edits.edits import Edit, apply_edits, derive_edits
    from multi_edits.grouping import Aspect, AspectGroup, GroupingSettings, group_aspects
    from multi_edits.lightning import MultiEditsModule
    from multi_edits.pipeline import MultiEditsOutput, MultiEditsPipeline
    from multi_edits.sampling import sample_branches

__version__ = installed_version("multi-edits")

_HOME = {
    "Aspect": "grouping",
    "AspectGroup": "grouping",
    "Edit": "edits",
    "GroupingSettings": "grouping",
    "MultiEditsModule": "lightning",
    "MultiEditsOutput": "pipeline",
    "MultiEditsPipeline": "pipeline",
    "SamplingSettings": "branches",
    "apply_edits": "edits",
    "ddcm_step": "ddcm",
    "derive_edits": "edits",
    "group_aspects": "grouping",
    "sample_branches": "sampling",
}

__all__ = [
    "Aspect",
    "AspectGroup",
    "Edit",
    "GroupingSettings",
    "MultiEditsModule",
    "MultiEditsOutput",
    "MultiEditsPipeline",
    "SamplingSettings",
    "__version__",
    "apply_edits",
    "ddcm_step",
    "derive_edits",
    "group_aspects",
    "sample_branches",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"multi_edits.{_HOME[name]}"), name)
    raise AttributeError(f"module multi_edits has no attribute {name}")


def __dir__() -> list[str]:
    return __all__
