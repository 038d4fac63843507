"""A speech recogniser of Hugging Face, from a folder of one's own, beside a trained lip reader.

The lip reader learns the recogniser's posteriors on real clips, so no transcripts are needed. It
needs ``cmdfd[hf]``; nothing is downloaded.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from papercommons.errors import DataError, reason
from torch import Tensor, nn
from torch.nn import functional as F

from cmdfd.features import SAMPLE_RATE, SAMPLES
from cmdfd.small_teacher import VisualContent
from cmdfd.teachers import ContentTeacher


class HFTeacher(ContentTeacher):
    """A CTC recogniser for the voice, kept as it is, and a network for the mouth.

    Args:
        model: of transformers, with a CTC head: takes ``input_values`` and gives ``logits``.
        video: (B, T, H, W) -> logits (B, T, K); None is a new `VisualContent`.
        normalise: bring each waveform to mean 0 and variance 1, as the recogniser was trained.

    Raises:
        ValueError: `video` has another number of classes, or the recogniser another step than a
            whole number to the frame.
    """

    def __init__(
        self, model: nn.Module, video: nn.Module | None = None, *, normalise: bool = True
    ) -> None:
        settings: Any = model.config
        super().__init__(settings.vocab_size)
        self.step = int(getattr(settings, "inputs_to_logits_ratio", 320))
        if SAMPLES % self.step:
            raise ValueError(
                f"the recogniser makes a step every {self.step} samples, which do not divide a "
                f"frame's {SAMPLES}"
            )
        self.video: nn.Module = VisualContent(self.classes) if video is None else video
        head = getattr(self.video, "head", None)
        if isinstance(head, nn.Linear) and head.out_features != self.classes:
            raise ValueError(
                f"the recogniser has {self.classes} classes, the lip reader {head.out_features}; "
                "teachers need the same classes"
            )
        self.model = model.eval().requires_grad_(requires_grad=False)
        self.normalise = normalise

    def train(self, mode: bool = True) -> HFTeacher:
        """Set the lip reader's mode; the recogniser stays in evaluation mode."""
        super().train(mode)
        self.model.eval()
        return self

    @classmethod
    def from_folder(cls, folder: str | Path, video: nn.Module | None = None) -> HFTeacher:
        """Return a teacher with the recogniser saved in a folder.

        Args:
            folder: with config.json and model.safetensors, as ``save_pretrained`` writes them;
                preprocessor_config.json, if there, says whether waveforms are normalised.
            video: see `HFTeacher`.

        Raises:
            ValueError: see `HFTeacher`.
            DataError: transformers is missing, no such folder, no recogniser with a CTC head, or
                one for another sample rate than 16 kHz.
        """
        try:
            from transformers import AutoFeatureExtractor, AutoModelForCTC
        except ImportError:
            raise DataError(
                'a Hugging Face teacher needs transformers; run: pip install "cmdfd[hf]"'
            ) from None
        folder = Path(folder)
        if not (folder / "config.json").is_file():
            raise DataError(f"{folder}: no recogniser: config.json is missing; give a local folder")
        local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        try:
            model = AutoModelForCTC.from_pretrained(folder, use_safetensors=True, **local)
            prepare = (
                AutoFeatureExtractor.from_pretrained(folder, **local)
                if (folder / "preprocessor_config.json").is_file()
                else None
            )
        except Exception as error:  # readers fail in many ways on what is broken
            raise DataError(f"{folder}: not a CTC recogniser ({reason(error)})") from error
        rate = getattr(prepare, "sampling_rate", SAMPLE_RATE)
        if rate != SAMPLE_RATE:
            raise DataError(f"{folder}: a recogniser for {rate} Hz; expected {SAMPLE_RATE}")
        return cls(model, video, normalise=bool(getattr(prepare, "do_normalize", True)))

    def audio_logits(self, audio: Tensor, frames: int) -> Tensor:
        """Return log posteriors: the mean posterior of the steps of each frame.

        Args:
            audio: at 16 kHz in [-1, 1], shape (B, S).
            frames: T, of the clip.

        Returns:
            float32, shape (B, T, K).

        Raises:
            ValueError: the recogniser's steps do not fit the frames.
        """
        x = audio[:, : SAMPLES * frames].float()
        if self.normalise:
            variance, mean = torch.var_mean(x, 1, correction=0, keepdim=True)
            x = (x - mean) * (variance + 1e-7).rsqrt()
        steps = frames * SAMPLES // self.step
        with torch.no_grad():
            # silence after the end, so that windows reach over the last frame's steps
            logits = self.model(F.pad(x, (0, 2 * self.step))).logits[:, :steps]
        if logits.shape[1] != steps:
            raise ValueError(f"{frames} frames need {steps} steps, the recogniser made fewer")
        posterior = logits.float().softmax(-1).unflatten(1, (frames, -1)).mean(2)
        return posterior.clamp(min=1e-30).log()

    def visual_logits(self, video: Tensor) -> Tensor:
        """Return what is seen, (B, T, H, W) grey in 0 to 255 -> (B, T, K)."""
        return self.video(video)
