"""Self-supervised handwriting verification (arXiv 2405.18320).

The names below are loaded when first used; importing the package does not import torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from papercommons.versions import installed_version

if TYPE_CHECKING:
    from papercommons.handwriting.gsc import gsc_bits, gsc_features

    from ssl_hv.data import WordData
    from ssl_hv.encoders import create_encoder
    from ssl_hv.lightning import (
        AIMModule,
        BarlowTwinsModule,
        BiGANModule,
        BYOLModule,
        DINOModule,
        FastSiamModule,
        FlowModule,
        MAEModule,
        MoCoModule,
        SimCLRModule,
        SimSiamModule,
        VAEModule,
        VICRegModule,
    )
    from ssl_hv.objectives.barlow_twins import barlow_twins_loss
    from ssl_hv.objectives.simclr import nt_xent_loss
    from ssl_hv.objectives.vicreg import vicreg_loss
    from ssl_hv.supervised import VerifierModule, WriterModule
    from ssl_hv.verifier import SiameseVerifier

__version__ = installed_version("ssl-hv")

_HOME = {
    "AIMModule": "ssl_hv.lightning",
    "BYOLModule": "ssl_hv.lightning",
    "BarlowTwinsModule": "ssl_hv.lightning",
    "BiGANModule": "ssl_hv.lightning",
    "DINOModule": "ssl_hv.lightning",
    "FastSiamModule": "ssl_hv.lightning",
    "FlowModule": "ssl_hv.lightning",
    "MAEModule": "ssl_hv.lightning",
    "MoCoModule": "ssl_hv.lightning",
    "SiameseVerifier": "ssl_hv.verifier",
    "SimCLRModule": "ssl_hv.lightning",
    "SimSiamModule": "ssl_hv.lightning",
    "VAEModule": "ssl_hv.lightning",
    "VICRegModule": "ssl_hv.lightning",
    "VerifierModule": "ssl_hv.supervised",
    "WordData": "ssl_hv.data",
    "WriterModule": "ssl_hv.supervised",
    "barlow_twins_loss": "ssl_hv.objectives.barlow_twins",
    "create_encoder": "ssl_hv.encoders",
    "gsc_bits": "papercommons.handwriting.gsc",
    "gsc_features": "papercommons.handwriting.gsc",
    "nt_xent_loss": "ssl_hv.objectives.simclr",
    "vicreg_loss": "ssl_hv.objectives.vicreg",
}

__all__ = [
    "AIMModule",
    "BYOLModule",
    "BarlowTwinsModule",
    "BiGANModule",
    "DINOModule",
    "FastSiamModule",
    "FlowModule",
    "MAEModule",
    "MoCoModule",
    "SiameseVerifier",
    "SimCLRModule",
    "SimSiamModule",
    "VAEModule",
    "VICRegModule",
    "VerifierModule",
    "WordData",
    "WriterModule",
    "__version__",
    "barlow_twins_loss",
    "create_encoder",
    "gsc_bits",
    "gsc_features",
    "nt_xent_loss",
    "vicreg_loss",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module ssl_hv has no attribute {name}")


def __dir__() -> list[str]:
    return __all__
