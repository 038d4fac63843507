"""The student: two encoders, cross-modal attention, and two logits per frame."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from cmdfd.attention import CrossModalAttention
from cmdfd.audio import STEPS, AudioEncoder
from cmdfd.visual import VisualConv1D, VisualFrontend, VisualTCN, normalised

LARGEST = {
    "classes": 65_536,
    "dim": 1024,
    "visual_width": 256,
    "audio_layers": 64,
    "tcn_layers": 64,
    "heads": 1024,
}
"""Of the sizes of a network: the configuration in a file is no reason to fill the memory."""


def check_sizes(**sizes: int | Sequence[int]) -> None:
    """Raise ValueError unless every size is in [1, LARGEST].

    Args:
        **sizes: by their names in `LARGEST`; a list has one for each stage.
    """
    for name, size in sizes.items():
        given = [size] if isinstance(size, int) else list(size)
        if not given or min(given) < 1 or max(given) > LARGEST[name]:
            raise ValueError(f"{name} must be in [1, {LARGEST[name]}], got {size}")


class CMDFDOutput(NamedTuple):
    """What the network says of each frame.

    Attributes:
        logits: of real and fake, float, shape (B, T, 2).
        audio: embeddings a' of the voice, float, shape (B, T, D).
        visual: embeddings v' of the mouth, float, shape (B, T, D).
        features: u, what the logits are made of, float, shape (B, T, 2 D).
    """

    logits: Tensor
    audio: Tensor
    visual: Tensor
    features: Tensor


class CMDFDNet(nn.Module):
    """Tells real from fake talking faces (specification section 3).

    With the default sizes its weights have the names and shapes of the official checkpoints; small
    sizes make a network for tests and studies.

    Args:
        dim: D, of both embeddings, a multiple of 8 and of heads. Paper: 128.
        visual_width: channels of the 3-D convolution. Paper: 64.
        audio_layers: blocks of the audio encoder's stages. Paper: 3, 4, 6, 3.
        tcn_layers: of the temporal network. Paper: 5.
        heads: of the attention. Paper: 8.
        dropout: of the attention layers, in [0, 1). Paper: 0.1.
        legacy_concat: see `VisualFrontend`; results then depend on the order of the batch.

    Attributes:
        config: the arguments, plain types.

    Raises:
        ValueError: a number out of range.

    Example:
        >>> import torch
        >>> net = CMDFDNet(32, 8, (1, 1, 1, 1), tcn_layers=1, heads=4)
        >>> net(torch.zeros(1, 20, 13), torch.zeros(1, 5, 16, 16)).logits.shape
        torch.Size([1, 5, 2])
    """

    def __init__(
        self,
        dim: int = 128,
        visual_width: int = 64,
        audio_layers: Sequence[int] = (3, 4, 6, 3),
        *,
        tcn_layers: int = 5,
        heads: int = 8,
        dropout: float = 0.1,
        legacy_concat: bool = False,
    ) -> None:
        super().__init__()
        check_sizes(dim=dim, visual_width=visual_width, audio_layers=audio_layers)
        check_sizes(tcn_layers=tcn_layers, heads=heads)
        if dim % heads or not 0 <= dropout < 1:
            raise ValueError(
                f"dim must be a multiple of heads and dropout in [0, 1), got {dim}, {heads}, "
                f"{dropout}"
            )
        features = 8 * visual_width
        self.visualFrontend = VisualFrontend(visual_width, legacy_concat=legacy_concat)
        self.visualTCN = VisualTCN(features, tcn_layers)
        self.visualConv1D = VisualConv1D(features, dim)
        self.audioEncoder = AudioEncoder(dim, audio_layers)
        self.crossA2V = CrossModalAttention(dim, heads=heads, dropout=dropout)
        self.crossV2A = CrossModalAttention(dim, heads=heads, dropout=dropout)
        self.selfAV = CrossModalAttention(2 * dim, heads=heads, dropout=dropout)
        self.lossAV = FrameHead(2 * dim)
        self.config: dict[str, Any] = {
            "dim": dim,
            "visual_width": visual_width,
            "audio_layers": list(audio_layers),
            "tcn_layers": tcn_layers,
            "heads": heads,
            "dropout": dropout,
            "legacy_concat": legacy_concat,
        }

    def forward(self, mfcc: Tensor, frames: Tensor) -> CMDFDOutput:
        """Return logits and embeddings of each frame.

        Args:
            mfcc: `cmdfd.mfcc` of the voice, float, shape (B, 4T, 13).
            frames: grey face crops, uint8 or float, 0 to 255, shape (B, T, H, W). Paper: 112 x 112.

        Raises:
            ValueError: not as described.
        """
        if frames.ndim != 4 or mfcc.ndim != 3 or mfcc.shape[0] != frames.shape[0]:
            raise ValueError(
                "mfcc must be (B, 4T, 13) and frames (B, T, H, W), got "
                f"{tuple(mfcc.shape)} and {tuple(frames.shape)}"
            )
        if mfcc.shape[1] != STEPS * frames.shape[1]:
            raise ValueError(
                f"mfcc must have {STEPS} rows for each of the {frames.shape[1]} frames, got "
                f"{mfcc.shape[1]}; trim picture and sound to what they share"
            )
        a, v = self.embed_audio(mfcc), self.embed_visual(frames)
        audio, visual = self.crossA2V(src=a, tar=v), self.crossV2A(src=v, tar=a)
        features = self.back_end(audio, visual)
        return CMDFDOutput(self.lossAV(features), audio, visual, features)

    def embed_audio(self, mfcc: Tensor) -> Tensor:
        """Return embeddings a of the voice alone, (B, 4T, 13) -> (B, T, D)."""
        return self.audioEncoder(mfcc)

    def embed_visual(self, frames: Tensor) -> Tensor:
        """Return embeddings v of the mouth alone, (B, T, H, W) in 0 to 255 -> (B, T, D)."""
        features = self.visualFrontend(normalised(frames)).transpose(1, 2)
        return self.visualConv1D(self.visualTCN(features)).transpose(1, 2)

    def back_end(self, audio: Tensor, visual: Tensor) -> Tensor:
        """Return u of both attended streams, two of (B, T, D) -> (B, T, 2 D)."""
        both = torch.cat([audio, visual], dim=2)
        return self.selfAV(src=both, tar=both)


class FrameHead(nn.Module):
    """Two logits per frame, (B, T, C) -> (B, T, 2).

    Args:
        features: C.
    """

    def __init__(self, features: int = 256) -> None:
        super().__init__()
        self.FC = nn.Linear(features, 2)

    def forward(self, features: Tensor) -> Tensor:
        """Return logits of real and fake, float, shape (B, T, 2).

        Args:
            features: u, float, shape (B, T, C).
        """
        return self.FC(features)
