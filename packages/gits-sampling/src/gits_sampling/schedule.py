"""A schedule of noise levels, how it was found, and its file."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, NoReturn

import numpy as np
import torch
from papercommons.errors import DataError, nearest, one_line, reason
from torch import Tensor

FORMAT = "gits-sampling schedule"
FORMAT_VERSION = 1


@dataclass(frozen=True, eq=False, kw_only=True)
class Schedule:
    """Noise levels for one model, solver and budget; shared by all samples.

    Attributes:
        sigmas: t_0 > ... > t_K, float64 on the CPU, shape (K + 1,); any sequence of numbers is
            taken. Above 0, but for the last, which may be 0. Not to be changed in place.
        nfe: network calls of a sample, >= 1.
        solver: name for `gits_sampling.sample`.
        order: its order; None is the solver's default.
        afs: the first slope is analytical (one call less).
        denoise_to_zero: the end is denoised once more (one call more).
        prediction: of dpmpp and unipc: ``data`` or ``noise``.
        thresholding: of dpmpp and unipc: dynamic thresholding of the data prediction.
        method: what chose the sigmas: ``gits`` (the cheapest path), ``refined`` (moved off the
            grid), or the name of a baseline such as ``polynomial``.
        indices: points of the teacher's grid, strictly increasing from 0, as many as sigmas; None
            if the sigmas are not on a grid.
        coeff: coefficient of the path, > 0.
        metric: metric of the costs.
        cost: cost of the path, as the search predicts it; may be negative.
        teacher: solver of the warm-up.
        teacher_order: its order.
        grid: kind of the teacher's grid.
        rho: its exponent, > 0.
        grid_points: N, >= 2.
        warmup: samples of the warm-up, >= 1.
        seed: of the warm-up's latents.
        fingerprint: short hash of the model's outputs.
        device: what it was found on.
        version: of the package that found it.
        details: further plain values for the reader, such as errors on held-out latents.

    Raises:
        ValueError: a value has another type or range than said above.

    Example:
        >>> schedule = Schedule(sigmas=[80, 3.9, 0.002], nfe=2, solver="euler")
        >>> schedule.steps
        2
        >>> schedule.to_comfyui()
        '80, 3.9, 0'
    """

    sigmas: Tensor
    nfe: int
    solver: str
    order: int | None = None
    afs: bool = False
    denoise_to_zero: bool = False
    prediction: str = "data"
    thresholding: bool = False
    method: str = "gits"
    indices: tuple[int, ...] | None = None
    coeff: float | None = None
    metric: str | None = None
    cost: float | None = None
    teacher: str | None = None
    teacher_order: int | None = None
    grid: str | None = None
    rho: float | None = None
    grid_points: int | None = None
    warmup: int | None = None
    seed: int | None = None
    fingerprint: str | None = None
    device: str | None = None
    version: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "sigmas", check_sigmas(self.sigmas))
        for name, (kind, least, above) in _RANGES.items():
            object.__setattr__(self, name, _check(self, name, kind, least, above))
        if self.indices is not None:
            object.__setattr__(self, "indices", self._check_indices(self.indices))
        if self.nfe < self.steps - self.afs + self.denoise_to_zero:
            raise ValueError(f"nfe must be at least one for a step, got {self.nfe} for {self}")
        if self.prediction not in ("data", "noise"):
            raise ValueError(f"prediction must be data or noise, got {self.prediction!r}")
        if not isinstance(self.details, Mapping):
            raise ValueError(f"details must be a mapping, got {self.details!r}")
        try:  # a copy of plain types, the same as its file will give back
            details = json.loads(json.dumps(dict(self.details), allow_nan=False))
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"details must be plain values, got {reason(error)}") from error
        object.__setattr__(self, "details", details)

    def _check_indices(self, indices: Any) -> tuple[int, ...]:
        try:
            items = [i.item() if isinstance(i, Tensor | np.integer) else i for i in indices]
        except TypeError:
            items = [None]
        given: list[int] = [i for i in items if type(i) is int]
        if len(given) < len(items):
            raise ValueError(f"indices must be integers, got {indices!r}")
        ends = given[:1] == [0] and self.grid_points in (None, given[-1] + 1)
        rises = all(i < j for i, j in pairwise(given))
        if len(given) != len(self.sigmas) or not ends or not rises:
            last = "" if self.grid_points is None else f" to {self.grid_points - 1}"
            raise ValueError(
                f"indices must be {len(self.sigmas)}, one for each sigma, increasing from 0{last}, "
                f"got {given}"
            )
        return tuple(given)

    def __eq__(self, other: object) -> bool:
        """Return whether all values are equal, sigmas to the last bit."""
        return isinstance(other, Schedule) and self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]

    def __str__(self) -> str:
        """Return method, size and range in a line."""
        first, last = self.sigmas[0].item(), self.sigmas[-1].item()
        return f"{self.method} schedule of {self.steps} steps, sigma {first:.6g} to {last:.6g}"

    @property
    def steps(self) -> int:
        """K, the number of solver steps."""
        return len(self.sigmas) - 1

    @property
    def solver_options(self) -> dict[str, Any]:
        """What goes with the sigmas: ``sample(denoiser, x, s.sigmas, **s.solver_options)``."""
        return {name: getattr(self, name) for name in _OF_SOLVER}

    def to_dict(self) -> dict[str, Any]:
        """Return all values as plain types; ``Schedule(**values)`` makes an equal schedule."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        values["sigmas"] = self.sigmas.tolist()
        values["indices"] = None if self.indices is None else list(self.indices)
        return values

    def save(self, path: str | Path) -> None:
        """Write strict JSON, whole or not at all; `load` gives an equal schedule.

        Raises:
            OSError: the file cannot be written.
        """
        from papercommons.files import write_json

        write_json(path, {"format": FORMAT, "format_version": FORMAT_VERSION, **self.to_dict()})

    @classmethod
    def load(cls, path: str | Path) -> Schedule:
        """Return the schedule in a file that `save` wrote.

        Raises:
            DataError: the file is missing, no strict JSON, or no valid schedule.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
            values = json.loads(text, parse_constant=_refuse, object_pairs_hook=_unique)
        except FileNotFoundError as error:
            raise DataError(f"{path}: no such file; give a schedule (.json)") from error
        except (OSError, ValueError, RecursionError) as error:
            raise DataError(f"{path}: not a readable schedule ({reason(error)})") from error
        try:
            return cls(**_check_entries(values))
        except ValueError as error:
            raise DataError(f"{path}: not a valid schedule: {one_line(str(error))}") from error

    def to_kdiffusion(
        self,
        *,
        end: Literal["append", "replace", "keep"] = "append",
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """Return sigmas for samplers of k-diffusion, which call the network at all but the last.

        Args:
            end: ``append`` a 0 (one network call more, which denoises to 0), as schedules of
                k-diffusion have it; ``replace`` the last sigma by 0; or ``keep`` it.
            dtype: float dtype, that of the samples; sigmas must stay apart in it.

        Returns:
            Shape (K + 2,) for ``append`` unless the last sigma is 0 already, else (K + 1,).

        Raises:
            ValueError: unknown end, or sigmas become equal in `dtype`.
        """
        if end not in ("append", "replace", "keep"):
            raise ValueError(f"end must be append, replace or keep, got {end!r}")
        sigmas = self.sigmas.clone()
        if end == "replace":
            sigmas[-1] = 0
        elif end == "append" and sigmas[-1] > 0:
            sigmas = torch.cat([sigmas, sigmas.new_zeros(1)])
        rounded = sigmas.to(dtype)
        if not (rounded.diff() < 0).all() or not rounded.isfinite().all():
            raise ValueError(f"sigmas must stay finite and apart in {dtype}, got {sigmas.tolist()}")
        return rounded

    def to_diffusers(self, scheduler: Any) -> Any:
        """Return a scheduler of the same kind and configuration that keeps this schedule.

        Put it into ``pipeline.scheduler``; the pipeline's own number of steps is then passed over.
        An analytical first step becomes one with a network call there, a last denoising none.

        Args:
            scheduler: of diffusers, see `gits_sampling.diffusers_schedulers.SUPPORTED`; it is not
                changed.

        Raises:
            ModuleNotFoundError: diffusers is not installed.
            ValueError: a scheduler that takes no schedule, or one of whole training steps on which
                sigmas coincide.
        """
        from gits_sampling.diffusers_schedulers import to_diffusers

        return to_diffusers(self.sigmas, scheduler)

    def to_comfyui(self) -> str:
        """Return the text for ComfyUI's node ManualSigmas: K + 1 sigmas, the last one 0.

        As in ComfyUI's own schedules the last sigma becomes 0, which costs no network call.
        """
        # that node reads no exponents
        return ", ".join(
            np.format_float_positional(np.float32(sigma), unique=True, trim="-")
            for sigma in self.to_kdiffusion(end="replace").tolist()
        )


def check_sigmas(sigmas: Any) -> Tensor:
    """Return noise levels as float64 on the CPU, shape (n,).

    Args:
        sigmas: at least two finite numbers, strictly decreasing, > 0 but for the last, which may
            be 0.

    Raises:
        ValueError: they are not as said.
    """
    if not isinstance(sigmas, Tensor):
        try:
            if any(isinstance(s, bool | str) for s in sigmas):
                raise TypeError("not numbers")
            sigmas = torch.tensor([float(s) for s in sigmas], dtype=torch.float64)
        except (TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"sigmas must be numbers, got {sigmas!r}"[:200]) from error
    if sigmas.ndim != 1 or len(sigmas) < 2:
        raise ValueError(f"sigmas must be (n,) with n >= 2, got {tuple(sigmas.shape)}")
    sigmas = sigmas.detach().to("cpu", torch.float64, copy=True)
    if not (sigmas.isfinite().all() and (sigmas.diff() < 0).all() and sigmas[-1] >= 0):
        raise ValueError(
            "sigmas must be finite and strictly decreasing, the last >= 0 and all others above 0, "
            f"got {sigmas.tolist()}"
        )
    return sigmas


# type, least value, whether it must be above that; those with a default of None may be None
_RANGES: dict[str, tuple[type, float | None, bool]] = {
    **dict.fromkeys(("nfe", "order", "teacher_order", "warmup"), (int, 1, False)),
    **dict.fromkeys(("solver", "method", "prediction"), (str, None, False)),
    **dict.fromkeys(("afs", "denoise_to_zero", "thresholding"), (bool, None, False)),
    **dict.fromkeys(("coeff", "rho"), (float, 0, True)),
    **dict.fromkeys(("metric", "teacher", "grid"), (str, None, False)),
    **dict.fromkeys(("fingerprint", "device", "version"), (str, None, False)),
    "cost": (float, None, False),
    "grid_points": (int, 2, False),
    "seed": (int, None, False),
}
_KINDS = {int: "an integer", float: "a finite number", str: "text", bool: "true or false"}
_OF_SOLVER = ("solver", "order", "afs", "denoise_to_zero", "prediction", "thresholding")
_REQUIRED = ("nfe", "method", *(name for name in _OF_SOLVER if name != "order"))


def _check(schedule: Schedule, name: str, kind: type, least: float | None, above: bool) -> Any:
    """Return a value as its plain type."""
    value = getattr(schedule, name)
    if value is None and name not in _REQUIRED:
        return None
    if isinstance(value, Tensor | np.generic) and np.ndim(value) == 0:
        value = value.item()
    fits = type(value) is kind or (kind is float and type(value) is int)
    try:
        fits = fits and (kind is not float or math.isfinite(value))
    except OverflowError:  # an integer beyond float64
        fits = False
    if fits and least is not None:
        fits = value > least if above else value >= least
    if not fits:
        bound = "" if least is None else f" {'>' if above else '>='} {least}"
        raise ValueError(f"{name} must be {_KINDS[kind]}{bound}, got {value!r}"[:200])
    return kind(value)


def _check_entries(values: Any) -> dict[str, Any]:
    """Return the entries of a file that are arguments of `Schedule`."""
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise ValueError(f'expected an object with "format": "{FORMAT}"')
    version = values.get("format_version")
    if version != FORMAT_VERSION:
        raise ValueError(f"format_version must be {FORMAT_VERSION}, got {version!r}")
    names = {f.name for f in fields(Schedule)}
    entries = {k: v for k, v in values.items() if k not in ("format", "format_version")}
    for name in entries:
        if name not in names:
            raise ValueError(f"unknown entry {name!r}{nearest(name, names)}")
    missing = [name for name in ("sigmas", "nfe", "solver") if name not in entries]
    if missing:
        raise ValueError(f"no entry {', '.join(missing)}")
    return entries


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not strict JSON")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError("an entry is there twice")
    return values
