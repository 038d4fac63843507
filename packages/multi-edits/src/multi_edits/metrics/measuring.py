"""All metrics of an edited image, and their means over many."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from papercommons.errors import DataError
from torch import Tensor

from multi_edits.benchmark_records import Record
from multi_edits.metrics.aspects import (
    Scorer,
    asked_accuracy,
    aspect_accuracy,
    kept_prompt,
    reverted_prompts,
)
from multi_edits.metrics.clip import ClipEncoder, clip_similarity, directional_similarity, load_clip
from multi_edits.metrics.columns import COLUMNS, NAMES
from multi_edits.metrics.perceptual import LEAST_SIDE as LPIPS_SIDE
from multi_edits.metrics.perceptual import Lpips, load_lpips
from multi_edits.metrics.pixels import LEAST_SIDE as SSIM_SIDE
from multi_edits.metrics.pixels import mse, ssim
from multi_edits.metrics.structure import DinoKeys, PixelRange, load_dino, structure_distance

MOST_PSNR = 100.0
"""What PSNR is cut off at, in dB: equal images, whose PSNR is infinite, have this."""

_WHY = {
    "clip": "no CLIP network was given",
    "dino": "no DINO network was given",
    "lpips": "no SqueezeNet weights were given for LPIPS",
    "scorer": "no model that answers questions about images was given",
}


@dataclass(frozen=True)
class MetricModels:
    """The networks that metrics need; without one, its metrics are unavailable.

    Attributes:
        clip: see `load_clip`.
        dino: see `load_dino`.
        lpips: see `load_lpips`.
        scorer: answers questions about images.
        device: where images are compared.
    """

    clip: ClipEncoder | None = None
    dino: DinoKeys | None = None
    lpips: Lpips | None = None
    scorer: Scorer | None = None
    device: torch.device | str = "cpu"

    @property
    def unavailable(self) -> dict[str, str]:
        """The metrics that cannot be measured, and why."""
        return {
            column.name: _WHY[column.needs]
            for column in COLUMNS
            if column.needs and getattr(self, column.needs) is None
        }


def load_models(
    *,
    clip: str | Path | None = None,
    dino: str | Path | None = None,
    lpips: str | Path | None = None,
    scorer: Scorer | None = None,
    device: torch.device | str = "cpu",
    dino_range: PixelRange = "0..1",
) -> MetricModels:
    """Return the networks that are given.

    Args:
        clip: see `load_clip`.
        dino: see `load_dino`.
        lpips: see `load_lpips`.
        scorer: answers questions about images.
        device: where they run.
        dino_range: see `DinoKeys`.

    Raises:
        DataError: one that is given cannot be used.
    """
    return MetricModels(
        clip=None if clip is None else load_clip(clip, device=device),
        dino=None if dino is None else load_dino(dino, pixels=dino_range).to(device),
        lpips=None if lpips is None else load_lpips(lpips).to(device),
        scorer=scorer,
        device=device,
    )


def measure_edit(
    record: Record, source: Any, edited: Any, models: MetricModels | None = None
) -> dict[str, float | None]:
    """Return all metrics of one edited image.

    The background metrics multiply both images by what is outside the mask and compare the whole
    frame (see `multi_edits.metrics.pixels`). A value is None where it is not defined for the image
    (a mask of the whole image leaves no background; a record without mask; edits that are not in
    the prompt) or where its network was not given; it is never NaN or infinite. PSNR is at most
    `MOST_PSNR`; D-CLIP without any change is 0.

    Args:
        record: of a benchmark.
        source: PIL image in RGB.
        edited: PIL image in RGB, of the same size.
        models: the networks; without them only PSNR, MSE and SSIM are measured.

    Raises:
        DataError: the images differ in size or do not fit the mask, or a prompt is too long for
            the CLIP network.
    """
    models = models or MetricModels()
    mask = record.mask
    _check_sizes(record, source, edited, mask)
    values: dict[str, float | None] = dict.fromkeys(NAMES)
    a, b = (_as_tensor(image, models.device) for image in (source, edited))
    if mask is not None and not mask.all():
        values |= _background(a, b, mask, models.lpips)
    if models.dino is not None:
        first, second = models.dino(torch.cat([a, b]))
        values["structure_distance"] = float(structure_distance(first, second))
    if models.clip is not None:
        values |= _clip_metrics(record, source, edited, mask, models.clip)
    if models.scorer is not None and _can_be_reverted(record):
        values["vlm_accuracy"] = asked_accuracy(models.scorer, edited, record)
    return values


def _check_sizes(record: Record, source: Any, edited: Any, mask: np.ndarray | None) -> None:
    if source.size != edited.size:
        raise DataError(
            f"{record.key}: the edited image has {edited.height} x {edited.width} pixels, the "
            f"source {source.height} x {source.width}; they must be alike"
        )
    if mask is not None and mask.shape != (source.height, source.width):
        raise DataError(
            f"{record.key}: the image has {source.height} x {source.width} pixels, its mask "
            f"{mask.shape[0]} x {mask.shape[1]}; they must be alike"
        )


def _as_tensor(image: Any, device: torch.device | str) -> Tensor:
    pixels = torch.from_numpy(np.array(image.convert("RGB"))).to(device)
    return pixels.permute(2, 0, 1)[None].float() / 255


def _background(a: Tensor, b: Tensor, mask: np.ndarray, lpips: Lpips | None) -> dict[str, Any]:
    outside = torch.from_numpy(~mask).to(a.device)[None, None]
    error = mse(a, b, outside)
    values = {
        "background_mse": float(error),
        "background_psnr": float((-10 * error.log10()).clamp(max=MOST_PSNR)),
        "background_ssim": float(ssim(a, b, outside)) if min(mask.shape) >= SSIM_SIDE else None,
    }
    if lpips is not None and min(mask.shape) >= LPIPS_SIDE:
        values["background_lpips"] = float(lpips(a, b, outside))
    return values


def _can_be_reverted(record: Record) -> bool:
    try:
        reverted_prompts(record)
    except DataError:
        return False
    return bool(record.edits)


def _clip_metrics(
    record: Record, source: Any, edited: Any, mask: np.ndarray | None, clip: ClipEncoder
) -> dict[str, Any]:
    """Return what CLIP says, every image and prompt embedded once."""
    aspects = _can_be_reverted(record)
    whole, reverted = reverted_prompts(record) if aspects else ("", [])
    kept = kept_prompt(record) if aspects else ""
    wanted = [record.source, record.target, whole, kept, *reverted]
    prompts = list(dict.fromkeys(filter(None, wanted)))
    text = dict(zip(prompts, clip.texts(prompts), strict=True))
    pictures = [source, edited]
    if mask is not None:
        pictures.append(_black_outside(edited, mask))
    images = clip.images(pictures)
    before, after = images[0], images[1]
    old, new = text[record.source], text[record.target]
    values: dict[str, Any] = {
        "clip": float(clip_similarity(after, new)),
        "d_clip": float(directional_similarity(before, after, old, new)),
    }
    if mask is not None:
        values["clip_edited"] = float(clip_similarity(images[2], new))
    if kept:
        values["aspect_preservation"] = float(clip_similarity(after, text[kept]))
    if aspects:
        others = torch.stack([text[prompt] for prompt in reverted])
        values["aspect_accuracy"] = aspect_accuracy(
            record.edits, after @ text[whole], others @ after
        )
    return values


def _black_outside(image: Any, mask: np.ndarray) -> Any:
    from PIL import Image

    return Image.fromarray(np.array(image.convert("RGB")) * mask[:, :, None].astype(np.uint8))
