"""Stable Diffusion folders and hub ids: checked first, then loaded by diffusers."""

from __future__ import annotations

import importlib.util
import json
import re
import warnings
from pathlib import Path
from typing import Any

from papercommons.errors import DataError, reason
from papercommons.files import refuse_code
from papercommons.model_folders import check_model_folder

PARTS = ("vae", "unet", "scheduler", "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")
MOST_TOKENS = 10_000  # of a prompt; a tokenizer without files knows no end
PREDICTIONS = ("epsilon", "v_prediction")


def check_model(source: str | Path) -> None:
    """Raise unless this may be a model that can be loaded; quick, and needs no torch.

    Args:
        source: folder that ``save_pretrained`` wrote, or a hub id, which is only looked at.

    Raises:
        DataError: no such folder, it holds code, or its model cannot be used here.
    """
    folder = Path(source)
    if not folder.exists():
        if folder.is_absolute() or not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", str(source)):
            raise DataError(f"{source}: no such folder, and not a hub id (owner/name)")
        return
    if not (folder / "model_index.json").is_file():
        raise DataError(
            f"{source}: no model_index.json; pass a folder that a pipeline's save_pretrained wrote"
        )
    refuse_code(folder)
    check_model_folder(folder)
    _check_index(source, _read_config(folder / "model_index.json"))
    scheduler = folder / "scheduler" / "scheduler_config.json"
    if scheduler.is_file():
        config = _read_config(scheduler)
        _check_prediction(source, config.get("prediction_type", "epsilon"))


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: not readable ({reason(error)})") from None
    if not isinstance(config, dict):
        raise DataError(f"{path}: not a configuration, which is an object")
    return config


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
    from papercommons.checkpoint import bounded_folder

    check_model(source)
    if importlib.util.find_spec("accelerate") is None:
        options.setdefault("low_cpu_mem_usage", False)  # its default, and a warning, without it
    try:
        index = DiffusionPipeline.load_config(str(source))
    except Exception as error:  # readers fail in many ways on what is broken
        raise DataError(f"{source}: not a readable pipeline ({reason(error)})") from error
    _check_index(source, index)
    options.setdefault("use_safetensors", True)
    kind = StableDiffusionXLPipeline if "text_encoder_2" in index else StableDiffusionPipeline
    left_out: dict[str, Any] = {"feature_extractor": None, "image_encoder": None}
    if kind is StableDiffusionPipeline:
        left_out |= {"safety_checker": None, "requires_safety_checker": False}
    try:
        with warnings.catch_warnings(), bounded_folder(source):
            warnings.simplefilter("ignore", FutureWarning)  # newer versions call it dtype
            stock = kind.from_pretrained(str(source), torch_dtype=dtype, **left_out, **options)
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"{source}: not a readable pipeline ({reason(error)})") from error
    parts = {name: getattr(stock, name, None) for name in PARTS}
    check_parts(parts, source=str(source))
    zeros = "force_zeros_for_empty_prompt"
    return parts | {zeros: bool(stock.config.get(zeros, False))}


def _check_index(source: str | Path, index: dict[str, Any]) -> None:
    name = index.get("_class_name")
    if "transformer" in index or "FlowMatch" in str(index.get("scheduler")):
        raise DataError(
            f"{source}: {name} is a flow model; editing needs the predicted noise of a Stable "
            "Diffusion 1, 2 or XL model"
        )
    named = {k: v[0] for k, v in index.items() if isinstance(v, list) and v}
    absent = [part for part in PARTS[:5] if not named.get(part)]
    if absent:
        raise DataError(
            f"{source}: {name} has no {', '.join(absent)}; a text-to-image model is needed"
        )


def _check_prediction(source: str | Path, kind: Any) -> None:
    if kind not in PREDICTIONS:
        raise DataError(
            f"{source}: the network predicts {kind}; only {' and '.join(PREDICTIONS)} can be used"
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
    _check_prediction(source, scheduler.config.get("prediction_type", "epsilon"))
    for part in ("tokenizer", "tokenizer_2"):
        if getattr(parts.get(part), "model_max_length", 0) > MOST_TOKENS:
            raise DataError(
                f"{source}: its {part} does not say how long a prompt may be; give a folder with "
                f"{part}/tokenizer_config.json"
            )
    channels = unet.config.in_channels, unet.config.out_channels, vae.config.latent_channels
    if len(set(channels)) > 1:
        raise DataError(
            f"{source}: the network takes {channels[0]} channels and gives {channels[1]}, latents "
            f"have {channels[2]}; an inpainting or instruction model cannot be used, a plain "
            "text-to-image model can"
        )
