"""A model, opened on the device that the options of a command mean."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import torch
from papercommons.cli import show_progress
from papercommons.files import hash_model, hash_texts

from d_tiil.clip import ClipModel
from d_tiil.options import Depth, HelperOptions, LocateOptions, ModelOptions
from d_tiil.pipeline import DTIILPipeline
from d_tiil.settings import LocateSettings

_DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def compute_device(options: ModelOptions) -> torch.device:
    """Return the device that the options mean.

    Raises:
        ValueError: it is not there, or cannot do what is asked.
    """
    cuda = torch.cuda.is_available()
    if options.accelerator == "gpu" and not cuda:
        raise ValueError("--accelerator gpu: no CUDA device is there; take cpu")
    device = torch.device("cuda" if cuda and options.accelerator != "cpu" else "cpu")
    if device.type == "cpu" and options.dtype == "float16":
        raise ValueError("--dtype float16 needs a GPU; take float32 on the CPU")
    return device


def weights_dtype(options: ModelOptions, device: torch.device) -> torch.dtype:
    """Return the number format of the weights.

    Args:
        options: as given.
        device: where the model runs.
    """
    if options.dtype != "auto":
        return _DTYPES[options.dtype]
    wide = device.type == "cuda" and torch.cuda.is_bf16_supported()
    return torch.bfloat16 if wide else torch.float32


def open_pipeline(
    model: str,
    settings: LocateSettings,
    how: LocateOptions,
    helpers: HelperOptions,
    where: ModelOptions,
) -> DTIILPipeline:
    """Return the pipeline of a model, on its device, with its helpers.

    Args:
        model: folder that diffusers wrote, or a hub id.
        settings: of the method, those that `how` means for the model.
        how: a threshold given there wins over the calibration's.
        helpers: models and files beside it.
        where: where it runs.

    Raises:
        DataError: see `d_tiil.loading.load_parts`.
        ValueError: the device is not there.
    """
    device = compute_device(where)
    quieten()
    more: dict[str, Any] = {} if where.variant is None else {"variant": where.variant}
    pipe = DTIILPipeline.from_pretrained(
        model,
        dtype=weights_dtype(where, device),
        inpainting=helpers.inpaint_model,
        calibration=None if helpers.calibration is None else helpers.calibration_path,
        **more,
    )
    pipe.settings = settings
    if pipe.calibration is not None and how.threshold is not None:
        pipe.calibration = replace(pipe.calibration, map_threshold=None)
    if helpers.clip_model is not None:
        pipe.clip = ClipModel.from_pretrained(helpers.clip_model, device=device)
    stock: Any = pipe  # what diffusers adds has no types
    stock.set_progress_bar_config(disable=not show_progress(), leave=False)
    stock.to(device)
    return pipe


def quieten() -> None:
    """Keep diffusers and transformers from printing bars and hints of their own."""
    import diffusers
    import transformers

    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()


def quantity_hashes(
    weights: str, settings: LocateSettings, helpers: HelperOptions, depth: Depth
) -> dict[str, str]:
    """Return for each quantity that is measured of a pair a short hash of what it depends on.

    A calibration holds for these alone; the seed of the noise is left out.

    Args:
        weights: hash of the model.
        settings: of the method.
        helpers: models beside it.
        depth: how far the method goes.
    """
    values = settings.to_dict()
    gap = [weights, values["alignment"], values["pairs"]]
    depends: dict[str, list[Any]] = {"gap": gap, "relative_gap": gap}
    if helpers.clip_model is not None:
        clip = hash_model(helpers.clip_model)
        drawn = None if helpers.inpaint_model is None else hash_model(helpers.inpaint_model)
        edit = [clip, weights, drawn, values["alignment"], values["maps"], values["edit"]]
        region = [*edit, values["threshold"], values["latent"], depth]
        depends |= {"clip_pair": [clip], "clip_edit": edit, "clip_region": region}
    return {name: hash_texts([json.dumps(facts)]) for name, facts in depends.items()}
