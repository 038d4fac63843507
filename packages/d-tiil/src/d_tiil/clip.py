"""CLIP models of transformers or open_clip: likeness of pictures and texts."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from papercommons.checkpoint import bounded_folder
from papercommons.errors import DataError, reason
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

TEMPLATE = "A photo of {}"


class ClipModel:
    """Embeds pictures and texts in one space.

    Args:
        images: takes N pictures, returns float (N, D).
        texts: takes N texts, returns float (N, D).
    """

    def __init__(
        self,
        images: Callable[[Sequence[Image.Image]], Tensor],
        texts: Callable[[Sequence[str]], Tensor],
    ) -> None:
        self._images, self._texts = images, texts

    @classmethod
    def from_pretrained(cls, source: str | Path, *, device: Any = "cpu") -> ClipModel:
        """Return a model of a folder, or of a hub id.

        Args:
            source: transformers' folder of a CLIP model, open_clip's (with
                ``open_clip_config.json``), or a hub id of the first kind.
            device: where it runs.

        Raises:
            DataError: it cannot be read, or open_clip is needed and not installed.
        """
        folder = Path(source)
        try:
            if (folder / "open_clip_config.json").is_file():
                return _open_clip(folder, device)
            with bounded_folder(source):
                return _transformers(source, device)
        except DataError:
            raise
        except ImportError as error:
            raise DataError(
                f"{source}: needs open_clip; pip install 'd-tiil[open-clip]'"
            ) from error
        except Exception as error:  # readers fail in many ways on what is broken
            raise DataError(f"{source}: not a readable CLIP model ({reason(error)})") from error

    @torch.no_grad()
    def likeness(self, pictures: Sequence[Image.Image], texts: Sequence[str]) -> Tensor:
        """Return cosines of pictures and texts, float32, (pictures, texts)."""
        return self.embed_images(pictures) @ self.embed_texts(texts).T

    @torch.no_grad()
    def embed_images(self, pictures: Sequence[Image.Image]) -> Tensor:
        """Return unit vectors of pictures, float32 on the CPU, (N, D)."""
        return F.normalize(self._images(pictures).float(), dim=-1).cpu()

    @torch.no_grad()
    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Return unit vectors of texts, float32 on the CPU, (N, D); long ones are cut off."""
        return F.normalize(self._texts(texts).float(), dim=-1).cpu()


def _transformers(source: str | Path, device: Any) -> ClipModel:
    from transformers import AutoTokenizer, CLIPImageProcessor, CLIPModel

    model: Any = CLIPModel.from_pretrained(source, use_safetensors=True)
    model = model.to(device).eval()
    tokenizer: Any = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    processor: Any = CLIPImageProcessor.from_pretrained(source)

    def images(pictures: Sequence[Image.Image]) -> Tensor:
        pixels = processor(list(pictures), return_tensors="pt").pixel_values
        return _features(model.get_image_features(pixel_values=pixels.to(device)))

    def texts(words: Sequence[str]) -> Tensor:
        length = int(model.config.text_config.max_position_embeddings)
        tokens = tokenizer(
            list(words), padding=True, truncation=True, max_length=length, return_tensors="pt"
        ).to(device)
        return _features(
            model.get_text_features(
                input_ids=tokens.input_ids, attention_mask=tokens.attention_mask
            )
        )

    return ClipModel(images, texts)


def _features(out: Any) -> Tensor:
    """Return the projected features: newer versions wrap them."""
    return out if isinstance(out, Tensor) else out.pooler_output


def _open_clip(folder: Path, device: Any) -> ClipModel:
    import open_clip

    config = json.loads((folder / "open_clip_config.json").read_text(encoding="utf-8"))
    weights = folder / "open_clip_model.safetensors"
    if not weights.is_file():
        raise DataError(f"{folder}: no open_clip_model.safetensors")
    name = f"local-dir:{folder.resolve()}"
    model, preprocess = open_clip.create_model_from_pretrained(name, device=device)
    tokenizer = open_clip.get_tokenizer(
        name, context_length=int(config["model_cfg"]["text_cfg"].get("context_length", 77))
    )
    model.eval()
    return ClipModel(
        lambda pictures: model.encode_image(
            torch.stack([preprocess(p) for p in pictures]).to(device)
        ),
        lambda words: model.encode_text(tokenizer(list(words)).to(device)),
    )
