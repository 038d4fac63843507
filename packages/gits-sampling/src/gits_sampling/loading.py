"""A model by name: closed-form digits, a trained network, a diffusers folder, or a factory."""

from __future__ import annotations

import importlib
import math
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from papercommons.errors import DataError, nearest, reason
from torch import Tensor, nn

from gits_sampling.models import Denoiser, digits_empirical, digits_gauss10, fingerprint
from gits_sampling.sigmas import polynomial

BUILT_IN: dict[str, Callable[[], nn.Module]] = {
    "digits-empirical": digits_empirical,
    "digits-gauss10": digits_gauss10,
}
MOST_VALUES = 1 << 27  # of a sample
DIGITS_RANGE = (0.002, 80.0)  # sigma of section 7.2


@dataclass(frozen=True)
class Loaded:
    """A denoiser and what must be known to sample with it.

    Attributes:
        denoiser: D(x; sigma).
        sigma_min: least noise level.
        sigma_max: greatest.
        shape: of a sample, e.g. (3, 32, 32).
        source: what it was loaded from, in a line.
        device: of its inputs.
        dtype: that its inputs should have.
        default: n -> the n noise levels that the model's own scheduler uses, float64 (n,); None if
            it has none of its own.
        conditions: prompts or class labels; a batch should be a multiple of their number.
    """

    denoiser: Denoiser
    sigma_min: float
    sigma_max: float
    shape: tuple[int, ...]
    source: str
    device: torch.device
    dtype: torch.dtype
    default: Callable[[int], Tensor] | None = None
    conditions: tuple[str | int, ...] = ()

    @property
    def network_calls(self) -> int:
        """Calls of the network per evaluation: 2 with guidance."""
        return int(getattr(self.denoiser, "network_calls", 1))

    @property
    def like(self) -> Tensor:
        """An empty tensor of the dtype and device of inputs."""
        return torch.zeros((), dtype=self.dtype, device=self.device)

    def own(self, n: int) -> Tensor:
        """Return the model's own schedule between sigma_max and sigma_min, as others run.

        That is `default` with its ends moved there; a scheduler that calls the network at
        sigma_min and then goes to 0 gives the levels down to sigma_min.

        Args:
            n: points, >= 2.

        Returns:
            float64, shape (n,).

        Raises:
            DataError: the model has no schedule of its own, or it does not fit the range.
        """
        if self.default is None:
            raise DataError(f"{self.source}: has no schedule of its own")
        levels = self.default(n)
        if levels[-1] == 0:
            levels = self.default(n + 1)[:-1]
        ends = levels.new_tensor([self.sigma_max, self.sigma_min])
        levels = torch.cat([ends[:1], levels[1:-1], ends[1:]])
        if not (levels.diff() < 0).all():
            raise DataError(
                f"{self.source}: its own schedule of {n} points does not lie between sigma "
                f"{self.sigma_max:g} and {self.sigma_min:g}"
            )
        return levels

    def fingerprint(self) -> str:
        """Return a short hash of its outputs, that of a warm-up over the same range."""
        levels = polynomial(61, self.sigma_min, self.sigma_max, 7.0)[[20, 30]]
        kind = {"dtype": self.dtype, "device": self.device}
        return fingerprint(self.denoiser, self.shape, levels, **kind)  # type: ignore[arg-type]


def load_denoiser(
    spec: str | Path,
    *,
    prediction: str | None = None,
    condition: str | int | Sequence[str | int] | None = None,
    negative: str | int | None = None,
    guidance: float | None = None,
    shape: Sequence[int] | None = None,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
) -> Loaded:
    """Return the denoiser that a spec names.

    Args:
        spec: ``digits-empirical``, ``digits-gauss10``; a folder of diffusers (pipeline or
            network), of a run of gits-sampling-train or its export; a checkpoint (.ckpt); or
            ``package.module:factory``, a function without arguments that returns a `Loaded`, or a
            denoiser, with attributes or arguments here for shape, sigma_min and sigma_max.
        prediction: of a diffusers folder without a scheduler: eps, v, sample, edm or flow.
        condition: prompts or class labels, one or more; samples take them in turn.
        negative: the prompt (or label) that stands for no condition.
        guidance: scale; needs a condition.
        shape: of a sample, where the model does not say.
        sigma_min: least noise level; the model's if not given.
        sigma_max: greatest; the model's if not given.
        device: where the model runs.
        dtype: of inputs; float64 for closed-form models and float32 else if not given. Networks
            keep the dtype in which they were saved.

    Raises:
        DataError: no such model, it cannot be read, it lacks what must be known, or a condition is
            missing or does not fit.
    """
    text, place = str(spec), torch.device(device)
    guided = {"condition": condition, "negative": negative, "guidance": guidance}
    if place.type == "cuda" and not torch.cuda.is_available():
        raise DataError(f"{device}: no CUDA device is present; leave the device out or say cpu")
    if text in BUILT_IN:
        _refuse(text, prediction=prediction, **guided)
        found = _Found(BUILT_IN[text]().to(place), *DIGITS_RANGE, (1, 8, 8), torch.float64)
    elif Path(text).exists():
        found = _from_path(Path(text), prediction, guided, place)
    elif ":" in text and os.sep not in text:
        _refuse(text, prediction=prediction, **guided)
        found = _from_factory(text, place)
    else:
        raise DataError(
            f"{text}: no such model{nearest(text, BUILT_IN)}; expected {', '.join(BUILT_IN)}, "
            "a diffusers folder, a checkpoint or package.module:factory"
        )
    given = (condition,) if isinstance(condition, str | int) else tuple(condition or ())
    return _checked(
        Loaded(
            denoiser=found.denoiser,
            sigma_min=found.sigma_min if sigma_min is None else sigma_min,  # type: ignore[arg-type]
            sigma_max=found.sigma_max if sigma_max is None else sigma_max,  # type: ignore[arg-type]
            shape=found.shape if shape is None else tuple(shape),  # type: ignore[arg-type]
            source=text,
            device=place,
            dtype=dtype or found.dtype,
            default=found.default,
            conditions=given or found.conditions,
        ),
        found,
    )


@dataclass(frozen=True)
class _Found:
    """What a source says; None where it does not."""

    denoiser: Any
    sigma_min: float | None
    sigma_max: float | None
    shape: tuple[int, ...] | None
    dtype: torch.dtype = torch.float32
    default: Callable[[int], Tensor] | None = None
    conditions: tuple[str | int, ...] = ()


def _from_path(
    path: Path, prediction: str | None, guided: dict[str, Any], device: torch.device
) -> _Found:
    from gits_sampling.diffusers_models import is_diffusers_folder, load_diffusers

    if path.is_dir() and is_diffusers_folder(path):
        model = load_diffusers(path, prediction=prediction, device=device, **guided)
        ends = model.sigma_min, model.sigma_max
        return _Found(model.denoiser, *ends, model.shape, default=model.default)
    if (path / "export" / "config.json").is_file():  # the run of gits-sampling-train
        path = path / "export"
    if path.is_dir() and not (path / "config.json").is_file():
        raise DataError(
            f"{path}: no model; expected model_index.json of a pipeline, or config.json of a "
            "network or of an export"
        )
    return _from_training(path, prediction, guided, device)


def _from_training(
    path: Path, prediction: str | None, guided: dict[str, Any], device: torch.device
) -> _Found:
    """Return the averaged network of a `GITSModule`."""
    from gits_sampling.saved import load_network

    _refuse(str(path), prediction=prediction, negative=guided["negative"])
    module = load_network(path).requires_grad_(False).to(device)
    given = guided["condition"]
    labels = [given] if isinstance(given, str | int) else list(given or [])
    if wrong := [label for label in labels if type(label) is not int]:
        raise DataError(f"{path}: class labels must be integers, got {wrong[0]!r}")
    scale = 1.0 if guided["guidance"] is None else float(guided["guidance"])
    try:
        denoiser = module.denoiser(labels=torch.tensor(labels) if labels else None, guidance=scale)
    except ValueError as error:
        raise DataError(f"{path}: {reason(error)}") from error
    turns = tuple(labels or range(module.num_classes))
    ends = module.sigma_min, module.sigma_max
    return _Found(denoiser, *ends, module.shape, conditions=turns)


def _from_factory(spec: str, device: torch.device) -> _Found:
    module_name, _, name = spec.partition(":")
    here = str(Path.cwd())
    if "" not in sys.path and here not in sys.path:
        sys.path.insert(0, here)  # the user's own module, as python -m has it
    try:
        made = getattr(importlib.import_module(module_name), name)()
    except Exception as error:  # the user's code may fail in any way
        raise DataError(f"{spec}: could not be called ({_kind(error)})") from error
    if isinstance(made, Loaded):
        ends = made.sigma_min, made.sigma_max
        return _Found(made.denoiser, *ends, made.shape, made.dtype, made.default, made.conditions)
    if not callable(made):
        raise DataError(
            f"{spec}: must return a denoiser D(x, sigma) or a Loaded, got {type(made).__name__}"
        )
    if isinstance(made, nn.Module):
        made = made.eval().to(device)
    shape = getattr(made, "shape", None)
    low, high = getattr(made, "sigma_min", None), getattr(made, "sigma_max", None)
    return _Found(made, low, high, None if shape is None else tuple(shape))


def _checked(loaded: Loaded, found: _Found) -> Loaded:
    """Return it if range and shape are whole and inside the model's."""
    source = loaded.source
    missing = [k for k in ("shape", "sigma_min", "sigma_max") if getattr(loaded, k) is None]
    if missing:
        raise DataError(f"{source}: does not say its {', '.join(missing)}; give them")
    low, high = float(loaded.sigma_min), float(loaded.sigma_max)
    if not 0 < low < high < math.inf:
        raise DataError(f"{source}: must have 0 < sigma_min < sigma_max, got {low:g} and {high:g}")
    for name, value, bound, outside in (
        ("sigma_min", low, found.sigma_min, lambda a, b: a < b * (1 - 1e-6)),
        ("sigma_max", high, found.sigma_max, lambda a, b: a > b * (1 + 1e-6)),
    ):
        if bound is not None and outside(value, bound):
            raise DataError(f"{source}: {name} must be within the model's {bound:g}, got {value:g}")
    if not loaded.shape or any(type(n) is not int or n < 1 for n in loaded.shape):
        raise DataError(f"{source}: shape must be integers >= 1, got {loaded.shape}")
    if math.prod(loaded.shape) > MOST_VALUES:
        raise DataError(
            f"{source}: a sample of shape {loaded.shape} has more than {MOST_VALUES:,} values"
        )
    if not loaded.dtype.is_floating_point:
        raise DataError(f"{source}: dtype must be floating-point, got {loaded.dtype}")
    return loaded


def _refuse(spec: str, **options: Any) -> None:
    given = [name for name, value in options.items() if value is not None]
    if given:
        raise DataError(f"{spec}: takes no {', '.join(given)}")


def _kind(error: Exception) -> str:
    return f"{type(error).__name__}: {reason(error)}"
