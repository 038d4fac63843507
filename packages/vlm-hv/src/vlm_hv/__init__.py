"""Handwriting verification by vision-language models (arXiv 2407.21788).

The names below are loaded when first used; importing the package does not import torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from papercommons.versions import installed_version

if TYPE_CHECKING:
    from vlm_hv import prompts
    from vlm_hv.conversation import Answer, Backend, Failure, Message, Picture, Request
    from vlm_hv.data import PairData
    from vlm_hv.endpoint import Endpoint
    from vlm_hv.lightning import VLMHVModule
    from vlm_hv.local import LocalModel
    from vlm_hv.parsing import parse_decision, parse_decision_compat
    from vlm_hv.verifier import VLMVerifier

__version__ = installed_version("vlm-hv")

_HOME = {
    "Answer": "vlm_hv.conversation",
    "Backend": "vlm_hv.conversation",
    "Endpoint": "vlm_hv.endpoint",
    "Failure": "vlm_hv.conversation",
    "LocalModel": "vlm_hv.local",
    "Message": "vlm_hv.conversation",
    "PairData": "vlm_hv.data",
    "Picture": "vlm_hv.conversation",
    "Request": "vlm_hv.conversation",
    "VLMHVModule": "vlm_hv.lightning",
    "VLMVerifier": "vlm_hv.verifier",
    "parse_decision": "vlm_hv.parsing",
    "parse_decision_compat": "vlm_hv.parsing",
}

__all__ = [
    "Answer",
    "Backend",
    "Endpoint",
    "Failure",
    "LocalModel",
    "Message",
    "PairData",
    "Picture",
    "Request",
    "VLMHVModule",
    "VLMVerifier",
    "__version__",
    "parse_decision",
    "parse_decision_compat",
    "prompts",
]


def __getattr__(name: str) -> Any:
    if name == "prompts":
        return importlib.import_module("vlm_hv.prompts")
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module vlm_hv has no attribute {name}")


def __dir__() -> list[str]:
    return __all__
