"""The model and the device that the options of a command ask for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from papercommons.cli import ComputeOptions
from papercommons.errors import DataError
from torch import Tensor, nn

from gits_sampling.loading import Loaded, load_denoiser
from gits_sampling.models import Denoiser
from gits_sampling.options import ModelOptions

PRECISIONS = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


class Autocast(nn.Module):
    """A denoiser whose network computes in a shorter format.

    Args:
        plain: the denoiser.
        kind: of device, cpu or cuda.
        dtype: bfloat16 or float16.
    """

    def __init__(self, plain: Denoiser, kind: str, dtype: torch.dtype) -> None:
        super().__init__()
        self.plain, self.kind, self.dtype = plain, kind, dtype
        self.network_calls = int(getattr(plain, "network_calls", 1))

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Return D(x; sigma), of the shape and dtype of x."""
        with torch.autocast(self.kind, dtype=self.dtype):
            return self.plain(x, sigma).to(x.dtype)


def requested_device(accelerator: str) -> torch.device:
    """Return the device of --accelerator.

    Args:
        accelerator: auto, cpu, gpu, or a device as torch names it.

    Raises:
        DataError: no such device, or it is not there.
    """
    present = torch.cuda.is_available()
    if accelerator == "auto":
        return torch.device("cuda" if present else "cpu")
    try:
        device = torch.device("cuda" if accelerator == "gpu" else accelerator)
    except RuntimeError:
        raise DataError(
            f"--accelerator {accelerator}: no such device; take auto, cpu, gpu or such as cuda:1"
        ) from None
    count = torch.cuda.device_count() if present else 0
    if device.type == "cuda" and (device.index or 0) >= count:
        raise DataError(
            f"--accelerator {accelerator}: {count or 'no'} CUDA device{'s' * (count > 1)} present; "
            "leave it out, or say cpu"
        )
    if device.type == "mps":
        raise DataError("--accelerator mps: has no float64, which noise levels need; say cpu")
    return device


def requested_model(model: str, options: ModelOptions, run: ComputeOptions) -> Loaded:
    """Return the model, on its device and in the precision asked for.

    Args:
        model: see `gits_sampling.loading.load_denoiser`.
        options: of the model.
        run: where and how to compute.

    Raises:
        DataError: see `gits_sampling.loading.load_denoiser`.
    """
    device = requested_device(run.accelerator)
    loaded = load_denoiser(
        model,
        prediction=options.prediction,
        condition=read_conditions(options),
        negative=_negative(options),
        guidance=options.guidance,
        shape=options.shape,
        sigma_min=options.sigma_min,
        sigma_max=options.sigma_max,
        device=device,
        dtype=None if options.dtype is None else getattr(torch, options.dtype),
    )
    if (short := PRECISIONS.get(run.precision)) is None:
        return loaded
    return replace(loaded, denoiser=Autocast(loaded.denoiser, device.type, short))


def read_conditions(options: ModelOptions) -> list[str] | list[int] | None:
    """Return the prompts or labels, None without any.

    Raises:
        DataError: the file of prompts is missing, empty or no text.
    """
    if options.prompts is None:
        return options.labels or None
    if options.prompts_file is None:
        return [options.prompts]
    try:
        text = Path(options.prompts).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise DataError(f"{options.prompts}: not UTF-8 text; give one prompt per line") from None
    prompts = [line.strip() for line in text.splitlines() if line.strip()]
    if not prompts:
        raise DataError(f"{options.prompts}: holds no prompt; give one per line")
    return prompts


def _negative(options: ModelOptions) -> str | int | None:
    if options.negative is None or options.labels is None:
        return options.negative
    try:
        return int(options.negative)
    except ValueError:
        raise ValueError(
            f"--negative must be a class label beside --labels, got {options.negative!r}"
        ) from None


def batch_of(loaded: Loaded, batch: int) -> int:
    """Return the batch size, a multiple of the number of conditions, which samples take in turn."""
    count = max(1, len(loaded.conditions))
    return max(1, batch // count) * count


def fingerprint_of(loaded: Loaded, sigma_max: float, sigma_min: float) -> str:
    """Return the fingerprint of a model in its own precision, over a range of noise levels."""
    plain: Any = getattr(loaded.denoiser, "plain", loaded.denoiser)
    return replace(loaded, denoiser=plain, sigma_max=sigma_max, sigma_min=sigma_min).fingerprint()


def settings_of(model: str, options: ModelOptions, loaded: Loaded) -> dict[str, Any]:
    """Return the model's settings as resolved, plain types."""
    return {
        "model": model,
        "prediction": options.prediction,
        "prompts": options.prompts,
        "labels": options.labels,
        "negative": options.negative,
        "guidance": options.guidance,
        "shape": list(loaded.shape),
        "sigma_min": loaded.sigma_min,
        "sigma_max": loaded.sigma_max,
        "dtype": str(loaded.dtype).removeprefix("torch."),
        "batch_size": options.batch_size,
    }
