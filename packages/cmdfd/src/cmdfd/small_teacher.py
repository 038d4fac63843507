"""A small pair of recognisers that can be trained in minutes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cmdfd.audio import AudioEncoder
from cmdfd.features import clip_mfcc
from cmdfd.model import check_sizes
from cmdfd.teachers import ContentTeacher
from cmdfd.visual import VisualConv1D, VisualFrontend, VisualTCN, normalised


class AudioContent(nn.Module):
    """Says what is heard: the student's audio encoder and a linear layer.

    Args:
        classes: K.
        dim: of the embeddings, a multiple of 8.
        layers: see `AudioEncoder`.

    Raises:
        ValueError: a size out of range, see `cmdfd.model.check_sizes`.
    """

    def __init__(self, classes: int, dim: int = 64, layers: Sequence[int] = (1, 1, 1, 1)) -> None:
        super().__init__()
        check_sizes(classes=classes, dim=dim, audio_layers=layers)
        self.encoder = AudioEncoder(dim, layers)
        self.head = nn.Linear(dim, classes)

    def forward(self, mfcc: Tensor) -> Tensor:
        """Return logits, (B, 4T, 13) -> (B, T, K)."""
        return self.head(self.encoder(mfcc))


class VisualContent(nn.Module):
    """Says what is seen: the student's visual encoder and a linear layer.

    Args:
        classes: K.
        dim: of the embeddings.
        width: see `VisualFrontend`.
        layers: of the temporal network.

    Raises:
        ValueError: a size out of range, see `cmdfd.model.check_sizes`.
    """

    def __init__(self, classes: int, dim: int = 64, width: int = 8, layers: int = 2) -> None:
        super().__init__()
        check_sizes(classes=classes, dim=dim, visual_width=width, tcn_layers=layers)
        self.frontend = VisualFrontend(width)
        self.tcn = VisualTCN(8 * width, layers)
        self.project = VisualConv1D(8 * width, dim)
        self.head = nn.Linear(dim, classes)

    def forward(self, frames: Tensor) -> Tensor:
        """Return logits, grey (B, T, H, W) in 0 to 255 -> (B, T, K)."""
        x = self.tcn(self.frontend(normalised(frames)).transpose(1, 2))
        return self.head(self.project(x).transpose(1, 2))


class SmallTeacher(ContentTeacher):
    """Two small recognisers over classes of one's own, such as phonemes or the letters of CTC.

    Train `audio_logits` and `visual_logits` with frame labels (cross-entropy) or transcripts (CTC).

    Args:
        classes: K, >= 2.
        dim: of the embeddings, a multiple of 8.
        width: channels of the 3-D convolution.

    Attributes:
        config: the arguments, plain types.

    Raises:
        ValueError: a size out of range, see `cmdfd.model.check_sizes`.
    """

    def __init__(self, classes: int, *, dim: int = 64, width: int = 8) -> None:
        super().__init__(classes)
        self.audio, self.video = AudioContent(classes, dim), VisualContent(classes, dim, width)
        self.config: dict[str, Any] = {"classes": classes, "dim": dim, "width": width}

    def audio_logits(self, audio: Tensor, frames: int) -> Tensor:
        """Return what is heard, (B, S) at 16 kHz in [-1, 1] -> (B, frames, K)."""
        with torch.no_grad():
            rows = clip_mfcc(audio.float(), frames)
        return self.audio(rows)

    def visual_logits(self, video: Tensor) -> Tensor:
        """Return what is seen, (B, T, H, W) grey in 0 to 255 -> (B, T, K)."""
        return self.video(video)
