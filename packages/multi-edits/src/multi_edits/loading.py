"""Stable Diffusion folders and hub ids: checked first, then loaded by diffusers."""

from __future__ import annotations

import importlib.util
import warnings
from pathlib import Path
from typing import Any

from papercommons.errors import DataError, reason

PARTS = ("vae", "unet", "scheduler", "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")
PREDICTIONS = ("epsilon", "v_prediction")


def load_parts(source: str | Path, *, dtype: Any = None, **options: Any) -> dict[str, Any]:
    """Return the parts of a text-to-image pipeline of Stable Diffusion 1, 2 or XL.

    Args:
        source: folder that ``save_pretrained`` wrote, or a hub id.
        dtype: of the weights, a torch.dtype; float32 if not given.
        options: for diffusers' ``from_pretrained``, for example variant.

    Raises:
        DataError: no such folder, or its model cannot be used here.
    """
    from diffusers import (
        DiffusionPipeline,
        StableDiffusionPipeline,
        StableDiffusionXLPipeline,
    )

    folder = Path(source)
    if folder.exists() and not (folder / "model_index.json").is_file():
        raise DataError(
            f"{source}: no model_index.json; pass a folder that a pipeline's save_pretrained wrote"
        )
    if not folder.exists() and (folder.is_absolute() or str(source).count("/") != 1):
        raise DataError(f"{source}: no such folder, and not a hub id (owner/name)")
    if importlib.util.find_spec("accelerate") is None:
        options.setdefault("low_cpu_mem_usage", False)  # its default, and a warning, without it
    try:
        index = DiffusionPipeline.load_config(str(source))
    except Exception as error:  # readers fail in many ways on what is broken
        raise DataError(f"{source}: not a readable pipeline ({reason(error)})") from error
    _check_index(source, index)
    kind = StableDiffusionXLPipeline if "text_encoder_2" in index else StableDiffusionPipeline
    left_out: dict[str, Any] = {"feature_extractor": None, "image_encoder": None}
    if kind is StableDiffusionPipeline:
        left_out |= {"safety_checker": None, "requires_safety_checker": False}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # newer versions call it dtype
            stock = kind.from_pretrained(str(source), torch_dtype=dtype, **left_out, **options)
    except Exception as error:
        raise DataError(f"{source}: not a readable pipeline ({reason(error)})") from error
    parts = {name: getattr(stock, name, None) for name in PARTS}
    check_parts(parts, source=str(source))
    return parts


def _check_index(source: str | Path, index: dict[str, Any]) -> None:
    name = index.get("_class_name")
    if "transformer" in index or "FlowMatch" in str(index.get("scheduler")):
        raise DataError(
            f"{source}: {name} is a flow model; editing needs the predicted noise of a Stable "
            "Diffusion 1, 2 or XL model"
        )
    absent = [part for part in PARTS[:5] if not (index.get(part) or [None])[0]]
    if absent:
        raise DataError(
            f"{source}: {name} has no {', '.join(absent)}; a text-to-image model is needed"
        )


def check_parts(parts: dict[str, Any], *, source: str) -> None:
    """Raise unless the parts fit together and predict noise or velocity.

    Args:
        parts: by name, see `PARTS`.
        source: for the message.

    Raises:
        DataError: with the reason.
    """
    scheduler, unet, vae = parts["scheduler"], parts["unet"], parts["vae"]
    name = type(scheduler).__name__
    if "FlowMatch" in name or getattr(scheduler, "alphas_cumprod", None) is None:
        raise DataError(
            f"{source}: {name} has no table of alphas (a flow or EDM model); editing needs the "
            "predicted noise of a Stable Diffusion 1, 2 or XL model"
        )
    kind = scheduler.config.get("prediction_type", "epsilon")
    if kind not in PREDICTIONS:
        raise DataError(
            f"{source}: the network predicts {kind}; only {' and '.join(PREDICTIONS)} can be used"
        )
    channels = unet.config.in_channels, unet.config.out_channels, vae.config.latent_channels
    if len(set(channels)) > 1:
        raise DataError(
            f"{source}: the network takes {channels[0]} channels and gives {channels[1]}, latents "
            f"have {channels[2]}; an inpainting or instruction model cannot be used, a plain "
            "text-to-image model can"
        )
