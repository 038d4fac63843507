"""Which word and which region do not belong together, with Stable Diffusion (arXiv 2404.18033).

The names below are loaded when first used; importing the package does not import torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from papercommons.versions import installed_version

if TYPE_CHECKING:
    from d_tiil.alignment import Alignment, align_embedding
    from d_tiil.calibration import Calibration
    from d_tiil.clip import ClipModel
    from d_tiil.editing import inpaint
    from d_tiil.evaluation import Judgement
    from d_tiil.findings import Finding
    from d_tiil.layouts import open_pairs
    from d_tiil.lightning import DTIILModule
    from d_tiil.maps import noise_difference_map
    from d_tiil.phrases import Phrase, content_phrases, content_words
    from d_tiil.pipeline import DTIILPipeline
    from d_tiil.records import Record
    from d_tiil.result import DTIILResult
    from d_tiil.scene_pairs import ScenePairOptions, draw_scene_pairs
    from d_tiil.scores import DenoisingGap, denoising_gap
    from d_tiil.settings import AlignmentSettings, EditSettings, LocateSettings, MapSettings
    from d_tiil.synthesizing import make_scene_pairs
    from d_tiil.word_scores import WordScore

__version__ = installed_version("d-tiil")

_HOME = {
    "Alignment": "alignment",
    "AlignmentSettings": "settings",
    "Calibration": "calibration",
    "ClipModel": "clip",
    "DTIILModule": "lightning",
    "DTIILPipeline": "pipeline",
    "DTIILResult": "result",
    "DenoisingGap": "scores",
    "EditSettings": "settings",
    "Finding": "findings",
    "Judgement": "evaluation",
    "LocateSettings": "settings",
    "MapSettings": "settings",
    "Phrase": "phrases",
    "Record": "records",
    "ScenePairOptions": "scene_pairs",
    "WordScore": "word_scores",
    "align_embedding": "alignment",
    "content_phrases": "phrases",
    "content_words": "phrases",
    "denoising_gap": "scores",
    "draw_scene_pairs": "scene_pairs",
    "inpaint": "editing",
    "make_scene_pairs": "synthesizing",
    "noise_difference_map": "maps",
    "open_pairs": "layouts",
}

__all__ = [
    "Alignment",
    "AlignmentSettings",
    "Calibration",
    "ClipModel",
    "DTIILModule",
    "DTIILPipeline",
    "DTIILResult",
    "DenoisingGap",
    "EditSettings",
    "Finding",
    "Judgement",
    "LocateSettings",
    "MapSettings",
    "Phrase",
    "Record",
    "ScenePairOptions",
    "WordScore",
    "__version__",
    "align_embedding",
    "content_phrases",
    "content_words",
    "denoising_gap",
    "draw_scene_pairs",
    "inpaint",
    "make_scene_pairs",
    "noise_difference_map",
    "open_pairs",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"d_tiil.{_HOME[name]}"), name)
    raise AttributeError(f"module d_tiil has no attribute {name}")


def __dir__() -> list[str]:
    return __all__
