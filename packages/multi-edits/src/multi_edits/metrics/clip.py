"""CLIP similarities of images and prompts, from transformers or open_clip."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from papercommons.errors import DataError, missing_library, reason
from torch import Tensor
from torch.nn import functional as F

from multi_edits.metrics.loading import load_network, load_part

OPEN_CLIP = "open_clip:"


class ClipEncoder(NamedTuple):
    """A CLIP network as two functions; both give unit vectors, float32, shape (N, D), on the CPU.

    Attributes:
        images: takes PIL images in RGB.
        texts: takes prompts; raises DataError for one that is too long, rather than cut it.
    """

    images: Callable[[Sequence[Any]], Tensor]
    texts: Callable[[Sequence[str]], Tensor]


def clip_similarity(image: Tensor, text: Tensor) -> Tensor:
    """Return 100 times the cosine, at least 0: the CLIP score of PIE-Bench's evaluation.

    Args:
        image: embeddings, float, shape (..., D).
        text: likewise.

    Returns:
        float32, shape (...), in [0, 100].
    """
    return (100 * F.cosine_similarity(image.float(), text.float(), dim=-1)).clamp(min=0)


def directional_similarity(
    source_image: Tensor, edited_image: Tensor, source_text: Tensor, target_text: Tensor
) -> Tensor:
    """Return D-CLIP: 100 times the cosine between the change of image and that of prompt.

    Args:
        source_image: unit embedding, float, shape (..., D).
        edited_image: likewise.
        source_text: likewise.
        target_text: likewise.

    Returns:
        float32, shape (...), in [-100, 100]; 0 where image or prompt did not change.
    """
    return 100 * F.cosine_similarity(
        (edited_image - source_image).float(), (target_text - source_text).float(), dim=-1
    )


def load_clip(source: str | Path, *, device: str | torch.device = "cpu") -> ClipEncoder:
    """Return a CLIP network.

    Args:
        source: folder or hub id for transformers, such as openai/clip-vit-large-patch14, which
            PIE-Bench uses; or ``open_clip:NAME=WEIGHTS``, weights being a file or a tag.
        device: where it runs.

    Raises:
        DataError: not there, or not a CLIP network.
    """
    if str(source).startswith(OPEN_CLIP):
        return _open_clip(str(source).removeprefix(OPEN_CLIP), torch.device(device))
    return _transformers_clip(source, torch.device(device))


def _transformers_clip(source: str | Path, device: torch.device) -> ClipEncoder:
    from transformers import CLIPModel, CLIPProcessor

    model = load_network(CLIPModel, source).to(device)
    processor = load_part(CLIPProcessor, source)
    longest = int(model.config.text_config.max_position_embeddings)

    @torch.no_grad()
    def images(pictures: Sequence[Any]) -> Tensor:
        given = processor.image_processor(images=list(pictures), return_tensors="pt")
        return _unit(model.get_image_features(pixel_values=given["pixel_values"].to(device)))

    @torch.no_grad()
    def texts(prompts: Sequence[str]) -> Tensor:
        given = processor.tokenizer(list(prompts), padding=True, return_tensors="pt", verbose=False)
        lengths = given["attention_mask"].sum(1)
        _refuse_long(prompts, lengths > longest, longest)
        return _unit(
            model.get_text_features(
                input_ids=given["input_ids"].to(device),
                attention_mask=given["attention_mask"].to(device),
            )
        )

    return ClipEncoder(images, texts)


def _open_clip(name: str, device: torch.device) -> ClipEncoder:
    try:
        import open_clip
    except ImportError:
        raise missing_library(f"{OPEN_CLIP}{name}", "open_clip", "multi-edits[open-clip]") from None
    name, _, weights = name.partition("=")
    if not weights:
        raise DataError(f"{OPEN_CLIP}{name}: no weights; write {OPEN_CLIP}{name}=FILE_OR_TAG")
    try:
        model, _, transform = open_clip.create_model_and_transforms(
            name, pretrained=weights, device=device
        )
        tokenizer = open_clip.get_tokenizer(name)
    except Exception as error:  # readers fail in many ways on what is broken
        raise DataError(
            f"{OPEN_CLIP}{name}={weights}: not a readable network ({reason(error)})"
        ) from error
    model.eval().requires_grad_(False)
    longest = int(model.context_length)
    padding = tokenizer([""], context_length=longest + 1)[0, longest]

    @torch.no_grad()
    def images(pictures: Sequence[Any]) -> Tensor:
        return _unit(model.encode_image(torch.stack([transform(p) for p in pictures]).to(device)))

    @torch.no_grad()
    def texts(prompts: Sequence[str]) -> Tensor:
        ids = tokenizer(list(prompts), context_length=longest + 1)
        _refuse_long(prompts, ids[:, longest] != padding, longest)
        return _unit(model.encode_text(ids[:, :longest].to(device)))

    return ClipEncoder(images, texts)


def _unit(features: Any) -> Tensor:
    if not isinstance(features, Tensor):  # transformers 5
        features = features.pooler_output
    return F.normalize(features.float(), dim=-1).cpu()


def _refuse_long(prompts: Sequence[str], long: Tensor, longest: int) -> None:
    if long.any():
        prompt = prompts[int(long.int().argmax())]
        raise DataError(
            f"the prompt {prompt!r} has more than the {longest} tokens that the CLIP network takes"
        )
