"""The verifier: encoder, pair score, calibration and threshold in one module that saves itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from papercommons.checkpoint import build_saved, read_config, save_model
from papercommons.errors import DataError
from papercommons.files import find_saved, write_text
from papercommons.versions import installed_version
from torch import Tensor, nn

from ssl_hv.encoders import create_encoder
from ssl_hv.heads import HEADS
from ssl_hv.options import PACKAGE

ENTRIES = ("encoder", "encoder_options", "head", "head_options")
LIMITS = (
    "A score of two images of one word, trained and calibrated on the writers of its training "
    "data: other words, languages, pens, scanners or populations need their own calibration. It "
    "is no proof of authorship; a trained examiner decides."
)

CARD = """# Handwriting verifier: {encoder} encoder, {head} head

A verifier saved by ssl-hv {version}. Load it with
`ssl_hv.SiameseVerifier.from_pretrained("FOLDER")`.

- Input: images of one word each, float32 (N, {channels}, {size}, {size}), ink 1, paper 0.
- Output: a score per pair; `log_likelihood_ratio` turns it into a natural-log likelihood ratio.
- Made by: {made_by}
- Trained on images with hash {data_hash}.
- Limits: {limits}
"""


class SiameseVerifier(nn.Module):
    """Says of pairs of word images how likely one person wrote both.

    Symmetric: the score of (A, B) is that of (B, A), and (A, A) scores highest with a cosine head.

    Args:
        encoder: name for `ssl_hv.encoders.create_encoder`, or a module with ``dim``.
        head: ``pair``, ``cosine`` or ``logistic``, see `ssl_hv.heads`.
        encoder_options: further arguments of the encoder, with in_channels and image_size.
        head_options: further arguments of the head.

    Attributes:
        slope, intercept: of the calibration, ln LR = slope * score + intercept; NaN before `fit`.
        threshold: least score that is called the same writer; NaN before it is chosen.

    Raises:
        ValueError: unknown encoder or head.
    """

    slope: Tensor
    intercept: Tensor
    threshold: Tensor

    def __init__(
        self,
        encoder: str | nn.Module = "resnet18",
        head: str = "pair",
        *,
        encoder_options: Mapping[str, Any] | None = None,
        head_options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if head not in HEADS:
            raise ValueError(f"head must be one of {', '.join(HEADS)}, got {head}")
        self.encoder_name = encoder if isinstance(encoder, str) else type(encoder).__name__
        self.encoder_options = dict(encoder_options or {})
        self.head_name, self.head_options = head, dict(head_options or {})
        self.encoder = (
            create_encoder(encoder, **self.encoder_options) if isinstance(encoder, str) else encoder
        )
        dim: Any = self.encoder.dim
        self.head = HEADS[head](dim, **self.head_options)
        for name in ("slope", "intercept", "threshold"):
            self.register_buffer(name, torch.tensor(torch.nan, dtype=torch.float64))

    @property
    def channels(self) -> int:
        """C of the images."""
        return int(self.encoder_options.get("in_channels", 1))

    @property
    def image_size(self) -> int:
        """H = W of the images."""
        return int(self.encoder_options.get("image_size", 64))

    @property
    def is_calibrated(self) -> bool:
        """Whether likelihood ratios and a threshold are known."""
        return bool(torch.isfinite(self.slope) and torch.isfinite(self.threshold))

    def embed(self, images: Tensor) -> Tensor:
        """Return embeddings, float, shape (N, dim).

        Args:
            images: uint8 dark on white, or float in [0, 1] with ink = 1; shape (N, C, H, W).
        """
        embeddings: Tensor = self.encoder(as_ink(images))
        return embeddings

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Return the scores of pairs, float32, shape (N,); higher is likelier one writer.

        Args:
            a: images, see `embed`.
            b: likewise.
        """
        embeddings = self.embed(torch.cat([a, b]))
        return self.score(*embeddings.chunk(2))

    def score(self, a: Tensor, b: Tensor) -> Tensor:
        """Return the scores of pairs of embeddings, float32, shape (N,).

        Args:
            a: embeddings, shape (N, dim).
            b: likewise.
        """
        with torch.autocast(a.device.type, enabled=False):
            scores: Tensor = self.head(a.float(), b.float())
        return scores

    def log_likelihood_ratio(self, scores: Tensor) -> Tensor:
        """Return ln(P(score | same writer) / P(score | different writers)), float64.

        Args:
            scores: of `forward`, any shape.
        """
        return self.slope * scores.double() + self.intercept

    def save_pretrained(self, folder: str | Path, **about: Any) -> Path:
        """Write model.safetensors, config.json and a model card into `folder`, and return it.

        Args:
            folder: made if absent.
            **about: what else config.json keeps, plain types (made_by, data_hash, ...).
        """
        version = installed_version(PACKAGE)
        config = {
            "encoder": self.encoder_name,
            "encoder_options": self.encoder_options,
            "head": self.head_name,
            "head_options": self.head_options,
            "package": PACKAGE,
            "version": version,
            "limits": LIMITS,
            **about,
        }
        save_model(self, folder, config)
        card = CARD.format(
            encoder=self.encoder_name,
            head=self.head_name,
            version=version,
            channels=self.channels,
            size=self.image_size,
            made_by=about.get("made_by", "not said"),
            data_hash=about.get("data_hash", "not said"),
            limits=LIMITS,
        )
        write_text(Path(folder) / "README.md", card)
        return Path(folder)

    @classmethod
    def from_pretrained(cls, path: str | Path) -> SiameseVerifier:
        """Return a saved verifier in evaluation mode.

        Args:
            path: folder of a saved verifier, or of the run that made it.

        Raises:
            DataError: missing, broken, or not a verifier.
        """
        folder = find_saved(path)
        config = read_config(folder, package=PACKAGE)
        if config.get("kind") == "encoder":
            raise DataError(f"{folder}: an encoder, no verifier; ssl-hv-train makes one of it")
        config = read_config(folder, entries=ENTRIES)
        verifier = build_saved(
            lambda: cls(
                config["encoder"],
                config["head"],
                encoder_options=config["encoder_options"],
                head_options=config["head_options"],
            ),
            folder,
        )
        return verifier.eval()


def as_ink(images: Tensor) -> Tensor:
    """Return float images with ink = 1; uint8 ones are dark on white and are inverted.

    Args:
        images: uint8, or float with ink = 1; any shape.
    """
    return 1 - images.float() / 255 if images.dtype == torch.uint8 else images
