"""Recognisers of what is said: the interface, and the official networks.

A teacher gives two posteriors per frame over the same classes, of the voice and of the mouth
(specification section 3.4). Official weights, trained on LRS2, are not shipped;
`load_official_teacher` reads them from files of one's own.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path

import torch
from papercommons.checkpoint import load_weights, read_state_dict
from papercommons.errors import DataError
from torch import Tensor, nn
from torch.nn import functional as F

from cmdfd.features import SAMPLES, clip_stft
from cmdfd.visual import VisualFrontend, normalised

CLASSES = 40  # blank, 26 letters, 10 digits, apostrophe, space, end
LIP_FEATURES = 512


class ContentTeacher(nn.Module, ABC):
    """What a voice says and what a mouth says, each as posteriors over the same classes.

    Attributes:
        classes: K.
        needs_lips: it takes features of the lips (B, T, 512) instead of face crops.
    """

    classes: int
    needs_lips: bool = False

    def __init__(self, classes: int) -> None:
        super().__init__()
        if classes < 2:
            raise ValueError(f"classes must be >= 2, got {classes}")
        self.classes = classes

    @abstractmethod
    def audio_logits(self, audio: Tensor, frames: int) -> Tensor:
        """Return what is heard, (B, S) at 16 kHz in [-1, 1] -> (B, frames, K)."""

    @abstractmethod
    def visual_logits(self, video: Tensor) -> Tensor:
        """Return what is seen, (B, T, H, W) grey in 0 to 255 -> (B, T, K)."""

    def forward(self, audio: Tensor, video: Tensor) -> tuple[Tensor, Tensor]:
        """Return the posteriors p_A and p_V.

        Args:
            audio: waveforms at 16 kHz, float in [-1, 1], shape (B, S) with S >= 640 T.
            video: grey face crops, uint8 or float, 0 to 255, shape (B, T, H, W); some teachers
                take features of their own instead.

        Returns:
            float32, shape (B, T, K) each, rows sum to 1.

        Raises:
            ValueError: the shapes do not match.
        """
        if audio.ndim != 2 or len(audio) != len(video) or audio.shape[1] < SAMPLES * video.shape[1]:
            raise ValueError(
                f"audio must be (B, S) with S >= {SAMPLES} T for video of T frames, got "
                f"{tuple(audio.shape)} and {tuple(video.shape)}"
            )
        heard, seen = self.audio_logits(audio, video.shape[1]), self.visual_logits(video)
        return heard.float().softmax(-1), seen.float().softmax(-1)


class SpeechTransformer(nn.Module):
    """The official recogniser of one stream, (B, T, F) or (B, 4T, F) -> logits (B, T, K).

    Twice as many post-norm encoder layers as `layers`, in two stacks, as in its CTC network.

    Args:
        stream: ``audio`` begins with a convolution that makes one frame of four rows; ``video``
            takes features of the width of the model.
        classes: K. Paper: 40.
        dim: width of the model, even. Paper: 512.
        heads: paper 8.
        layers: of each stack. Paper: 6.
        hidden: of the layers. Paper: 2048.
        inputs: F of ``audio``. Paper: 321.
        longest: frames. Paper: 2500.

    Raises:
        ValueError: another stream, or an odd width.
    """

    def __init__(
        self,
        stream: str,
        classes: int = CLASSES,
        *,
        dim: int = LIP_FEATURES,
        heads: int = 8,
        layers: int = 6,
        hidden: int = 2048,
        inputs: int = 321,
        longest: int = 2500,
    ) -> None:
        super().__init__()
        if stream not in ("audio", "video") or dim % 2:
            raise ValueError(f"stream must be audio or video and dim even, got {stream!r}, {dim}")
        self.stream, self.classes, self.longest = stream, classes, longest
        if stream == "audio":
            self.audioConv = nn.Conv1d(inputs, dim, 4, 4)
        self.positionalEncoding = PositionalEncoding(dim, longest)
        for part in ("Encoder", "Decoder"):
            layer = nn.TransformerEncoderLayer(dim, heads, hidden, dropout=0.1, batch_first=True)
            stack = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
            self.add_module(f"{stream}{part}", stack)
        self.outputConv = nn.Conv1d(dim, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits.

        Args:
            x: STFT magnitudes (B, 4T, F), or features (B, T, dim).

        Raises:
            ValueError: more frames than `longest`.
        """
        if self.stream == "audio":
            x = self.audioConv(x.transpose(1, 2)).transpose(1, 2)
        if x.shape[1] > self.longest:
            raise ValueError(f"at most {self.longest} frames, got {x.shape[1]}; cut the clip")
        x = self.positionalEncoding(x)
        x = self.get_submodule(f"{self.stream}Decoder")(
            self.get_submodule(f"{self.stream}Encoder")(x)
        )
        return self.outputConv(x.transpose(1, 2)).transpose(1, 2)


class PositionalEncoding(nn.Module):
    """Adds sines and cosines of the position, (B, T, D) -> (B, T, D).

    Args:
        dim: D.
        longest: T at most.
    """

    pe: Tensor

    def __init__(self, dim: int, longest: int) -> None:
        super().__init__()
        position = torch.arange(longest, dtype=torch.float)[:, None]
        angles = position / torch.exp(torch.arange(0, dim, 2) * (math.log(10_000.0) / dim))
        table = torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)
        self.register_buffer("pe", table[:, None])

    def forward(self, x: Tensor) -> Tensor:
        """Return x plus the table's beginning, float, (B, T, D) -> (B, T, D)."""
        return x + self.pe[: x.shape[1], 0]


class OfficialTeacher(ContentTeacher):
    """The recognisers of the official code: Transformers over STFT and over features of the lips.

    Video is either face crops, from which the lips' features are made, or these features
    themselves, float, shape (B, T, 512).

    Args:
        audio: recogniser of the voice.
        video: recogniser of the mouth.
        lips: makes its features; None if features are given.

    Raises:
        ValueError: the recognisers have different classes.
    """

    def __init__(
        self,
        audio: SpeechTransformer,
        video: SpeechTransformer,
        lips: VisualFrontend | None = None,
    ) -> None:
        super().__init__(audio.classes)
        _check_same_classes(audio.classes, video.classes)
        self.audio, self.video, self.lips = audio, video, lips
        self.needs_lips = lips is None

    def audio_logits(self, audio: Tensor, frames: int) -> Tensor:
        """Return what is heard, (B, S) at 16 kHz in [-1, 1] -> (B, frames, K)."""
        return self.audio(clip_stft(audio, frames))

    def visual_logits(self, video: Tensor) -> Tensor:
        """See `ContentTeacher`.

        Raises:
            ValueError: face crops without a network that makes features of them.
        """
        if video.ndim == 3:
            return self.video(video)
        if self.lips is None:
            raise ValueError("this teacher has no lip front-end: give lip features (B, T, 512)")
        return self.video(self.lips(normalised(lip_crops(video))))


def lip_crops(frames: Tensor) -> Tensor:
    """Return what the lip front-end sees: the picture at 224 x 224, its middle 112 x 112.

    Args:
        frames: grey, 0 to 255, shape (B, T, H, W).

    Returns:
        float32, shape (B, T, 112, 112).
    """
    large = F.interpolate(frames.float(), size=(224, 224), mode="bilinear", align_corners=False)
    return large[..., 56:168, 56:168]


def load_official_teacher(
    audio: str | Path, video: str | Path, lips: str | Path | None = None
) -> OfficialTeacher:
    """Return the official recognisers with weights from files, in evaluation mode.

    Sizes other than the class count, which the files tell, are the official ones.

    Args:
        audio: checkpoint of the recogniser of speech.
        video: checkpoint of the lip reader.
        lips: checkpoint of its front-end; None: lip features are given.

    Raises:
        DataError: a file is missing, broken, or of another network (the names that are missing
            are listed), or the class counts differ.
    """
    recognisers = []
    for stream, path in (("audio", audio), ("video", video)):
        weights = read_state_dict(path)
        recogniser = SpeechTransformer(stream, _class_count(weights, path))
        load_weights(recogniser, weights, source=str(path))
        recognisers.append(recogniser)
    front = None
    if lips is not None:
        front = VisualFrontend()
        load_weights(front, read_state_dict(lips), source=str(lips))
    counts = [recogniser.classes for recogniser in recognisers]
    if counts[0] != counts[1]:
        raise DataError(
            f"{audio} has {counts[0]} classes, {video} {counts[1]}; teachers need the same classes"
        )
    return OfficialTeacher(recognisers[0], recognisers[1], front).eval()


def _class_count(weights: Mapping[str, Tensor], path: str | Path) -> int:
    bias = weights.get("outputConv.bias")
    if bias is None or bias.ndim != 1:
        raise DataError(f"{path}: no outputConv.bias; not a recogniser of the official code")
    return len(bias)


def _check_same_classes(heard: int, seen: int) -> None:
    if heard != seen:
        raise ValueError(
            f"teachers need the same classes, got {heard} of the voice, {seen} of the mouth"
        )
