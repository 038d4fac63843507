"""What the pipeline returns: the answer, and every step on the way to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from d_tiil.alignment import Alignment
from d_tiil.regions import Box
from d_tiil.scores import DenoisingGap
from d_tiil.settings import LocateSettings
from d_tiil.word_scores import WordScore


@dataclass(frozen=True)
class Embeddings:
    """Embeddings of the run, float32, (1, L, D), on the CPU.

    Attributes:
        caption: E_0.
        aligned: E_aln, of the image.
        denoised: E_dnt, of the edited image; None where the run ended before.
    """

    caption: Tensor
    aligned: Tensor
    denoised: Tensor | None = None


@dataclass(frozen=True)
class NoiseMap:
    """A noise-difference map and what was made of it; sizes are those of the latents.

    Attributes:
        raw: before scaling, float32, (h, w).
        values: scaled, in 255ths, uint8, (h, w).
        mask: blurred and above the threshold, bool, (h, w).
    """

    raw: np.ndarray
    values: np.ndarray
    mask: np.ndarray


@dataclass(frozen=True)
class DTIILResult:
    """Where an image and its caption contradict each other.

    Attributes:
        mask: of the image's pixels that contradict, bool, (H, W); empty if there are none, or the
            pair was judged consistent.
        words: of the caption that contradict, the most suspect of `candidates`; empty likewise.
        score: consistency in [0, 100]; calibrated if `consistent` is not None, else 100 minus the
            relative gap in percent.
        edited: the image as the caption would have it; None where the run ended before.
        consistent: the decision; None without a calibration.
        caption: that was judged.
        candidates: all words or phrases that were scored, in their order.
        region: the largest connected part of the final mask, whatever the decision, bool, (H, W).
        box: around the region, in pixels.
        final: the map that `mask` is made of; None where the run ended before.
        first: M(E_aln, E_0), whose mask was edited.
        scores: measured quantities by name: gap, relative_gap, with a CLIP model clip_region,
            clip_edit and clip_pair (cosines).
        gap: of the denoising errors of E_0 and E_aln.
        aligned: step 1.
        denoised: step 3; None where the run ended before.
        embeddings: of caption, image and edited image.
        settings: of the run.
        seed: of the run.
        seconds: by step.
        rows: how many images the network was given.
        note: what a reader must know, for example that no region was found.
    """

    mask: np.ndarray
    words: tuple[WordScore, ...]
    score: float
    edited: Image.Image | None
    consistent: bool | None
    caption: str
    candidates: tuple[WordScore, ...]
    region: np.ndarray
    box: Box | None
    final: NoiseMap | None
    first: NoiseMap | None
    scores: dict[str, float]
    gap: DenoisingGap
    aligned: Alignment
    denoised: Alignment | None
    embeddings: Embeddings
    settings: LocateSettings
    seed: int
    seconds: dict[str, float]
    rows: int
    note: str = ""

    def summary(self) -> dict[str, Any]:
        """Return all but pictures and tensors, in plain types."""
        return {
            "caption": self.caption,
            "score": self.score,
            "consistent": self.consistent,
            "words": [word._asdict() for word in self.words],
            "candidates": [word._asdict() for word in self.candidates],
            "box": None if self.box is None else list(self.box),
            "mask_share": float(self.mask.mean()),
            "scores": dict(self.scores),
            "gap": self.gap._asdict(),
            "alignment": _steps(self.aligned),
            "text_denoising": None if self.denoised is None else _steps(self.denoised),
            "seconds": dict(self.seconds),
            "network_rows": self.rows,
            "seed": self.seed,
            "note": self.note,
            "settings": self.settings.to_dict(),
        }


def _steps(alignment: Alignment) -> dict[str, Any]:
    return {
        "steps": len(alignment.losses),
        "taken": alignment.step,
        "stopped_early": alignment.stopped,
        "checks": list(alignment.checks),
        "losses": alignment.losses.tolist(),
    }
