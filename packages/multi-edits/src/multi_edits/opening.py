"""A model, opened on the device that the options of a command mean."""

from __future__ import annotations

import importlib.util
import logging
from typing import Any

import torch
from papercommons.cli import show_progress
from papercommons.errors import missing_library

from multi_edits.options import ModelOptions
from multi_edits.pipeline import MultiEditsPipeline

log = logging.getLogger("papercommons")

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
    if device.type == "cpu" and options.offload:
        raise ValueError("--offload is for a GPU, and none is there")
    return device


def weights_dtype(options: ModelOptions, device: torch.device) -> torch.dtype:
    """Return the number format of the weights.

    Args:
        options: of the command.
        device: where the model runs.
    """
    if options.dtype == "auto":
        return torch.float16 if device.type == "cuda" else torch.float32
    return _DTYPES[options.dtype]


def open_pipeline(model: str, options: ModelOptions) -> MultiEditsPipeline:
    """Return the pipeline of a model, on its device.

    Args:
        model: folder that diffusers wrote, or a hub id.
        options: where it runs.

    Raises:
        DataError: see `multi_edits.loading.load_parts`.
        ValueError: the device is not there.
    """
    device = compute_device(options)
    if options.offload and importlib.util.find_spec("accelerate") is None:
        raise missing_library("--offload", "accelerate", "multi-edits[offload]")
    quieten()
    more: dict[str, Any] = {} if options.variant is None else {"variant": options.variant}
    pipe = MultiEditsPipeline.from_pretrained(model, dtype=weights_dtype(options, device), **more)
    stock: Any = pipe  # what diffusers adds has no types
    stock.set_progress_bar_config(disable=not show_progress(), leave=False)
    if options.offload:
        stock.enable_model_cpu_offload(device=device)
    else:
        stock.to(device)
    return pipe


def quieten() -> None:
    """Keep diffusers and transformers from printing bars and hints of their own."""
    import diffusers
    import transformers

    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()
