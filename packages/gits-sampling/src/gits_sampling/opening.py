"""The model and the device that the options of a command ask for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from papercommons.cli import ComputeOptions
from papercommons.devices import autocast, compute_device
from papercommons.errors import DataError
from torch import Tensor, nn

from gits_sampling.loading import Loaded, load_denoiser
from gits_sampling.models import Denoiser
from gits_sampling.options import ModelOptions


class Autocast(nn.Module):
    """A denoiser whose network computes in a shorter format.

    Args:
        plain: the denoiser.
        device: of its network.
        precision: bf16-mixed or 16-mixed.
    """

    def __init__(self, plain: Denoiser, device: torch.device, precision: str) -> None:
        super().__init__()
        self.plain, self.device, self.precision = plain, device, precision
        self.network_calls = int(getattr(plain, "network_calls", 1))

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Return D(x; sigma), of the shape and dtype of x."""
        with autocast(self.device, self.precision):
            return self.plain(x, sigma).to(x.dtype)


def open_model(model: str, options: ModelOptions, run: ComputeOptions) -> Loaded:
    """Return the model, on its device and in the precision asked for.

    Args:
        model: see `gits_sampling.loading.load_denoiser`.
        options: of the model.
        run: where and how to compute.

    Raises:
        DataError: see `gits_sampling.loading.load_denoiser`.
        ValueError: the device is not there.
    """
    device = compute_device(run)
    if device.type == "mps":  # has no float64, which noise levels need
        if run.accelerator != "auto":
            raise ValueError(f"--accelerator {run.accelerator}: mps has no float64; say cpu")
        device = torch.device("cpu")
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
    if run.precision == "32-true":
        return loaded
    return replace(loaded, denoiser=Autocast(loaded.denoiser, device, run.precision))


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
    """Return the batch size, a multiple of the number of conditions, which samples take in turn.

    Args:
        loaded: the model.
        batch: samples at once that were asked for.
    """
    count = max(1, len(loaded.conditions))
    return max(1, batch // count) * count


def fingerprint_of(loaded: Loaded, sigma_max: float, sigma_min: float) -> str:
    """Return the fingerprint of a model in its own precision, over a range of noise levels.

    Args:
        loaded: the model.
        sigma_max: greatest noise level.
        sigma_min: least.
    """
    plain: Any = getattr(loaded.denoiser, "plain", loaded.denoiser)
    return replace(loaded, denoiser=plain, sigma_max=sigma_max, sigma_min=sigma_min).fingerprint()


def settings_of(model: str, options: ModelOptions, loaded: Loaded) -> dict[str, Any]:
    """Return the model's settings as resolved, plain types.

    Args:
        model: as given.
        options: of the model.
        loaded: with what the options left open.
    """
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
