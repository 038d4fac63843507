"""Options that several commands share, as dataclasses; `papercommons.cli` makes flags of them."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

from papercommons.checks import check_at_least, check_fraction, check_positive
from papercommons.errors import DataError, nearest

PACKAGE = "gits-sampling"
Solver = Literal["euler", "heun", "dpm", "ipndm", "ipndm_v", "deis", "dpmpp", "unipc"]
Metric = Literal["dev", "l1", "l2"]
Grid = Literal["polynomial", "time_uniform", "log_snr"]
TWO_CALLS = ("heun", "dpm")
MOST_NUMBERS = 1_000_000

SHORT = {
    "poly7": "polynomial 7",
    "logsnr": "log_snr",
    "uniform1": "time_uniform 1",
    "uniform2": "time_uniform 2",
    "ays": "ays sd",
    "gits": "gits 1.0",
}
"""Short names of schedules on the command line."""


@dataclass(frozen=True)
class ModelOptions:
    """The model.

    Attributes:
        prediction: what a diffusers folder without a scheduler predicts: eps, v, sample, edm or
            flow.
        prompts: a prompt, or a .txt file with one per line; samples take them in turn.
        labels: class labels, e.g. 0,1,2; samples take them in turn.
        negative: the prompt or label that stands for no condition.
        guidance: scale of classifier-free guidance; two network calls each time unless 0 or 1.
        shape: of a sample, e.g. 3,32,32, where the model does not say.
        sigma_min: least noise level; the model's if not given.
        sigma_max: greatest; the model's if not given.
        dtype: of the states, float32 or float64; float64 for closed-form models if not given.
        batch_size: samples at once; results do not depend on it.
    """

    prediction: Literal["eps", "v", "sample", "edm", "flow"] | None = None
    prompts: str | None = None
    labels: list[int] | None = None
    negative: str | None = None
    guidance: float | None = None
    shape: list[int] | None = None
    sigma_min: float | None = None
    sigma_max: float | None = None
    dtype: Literal["float32", "float64"] | None = None
    batch_size: int = 64

    def __post_init__(self) -> None:
        low, high = self.sigma_min, self.sigma_max
        check_positive(sigma_min=low, sigma_max=high)
        if low is not None and high is not None and low >= high:
            raise ValueError(f"--sigma-min must be < --sigma-max, got {low:g} and {high:g}")
        if self.shape is not None and (not self.shape or min(self.shape) < 1):
            raise ValueError(f"--shape must be integers >= 1, got {self.shape}")
        check_at_least(1, batch_size=self.batch_size)
        if self.prompts is not None and self.labels:
            raise ValueError("--prompts and --labels exclude each other; give one")
        if self.guidance is not None and not math.isfinite(self.guidance):
            raise ValueError(f"--guidance must be finite, got {self.guidance}")

    @property
    def prompts_file(self) -> str | None:
        """The file of --prompts, where it is one."""
        return self.prompts if self.prompts and self.prompts.endswith(".txt") else None


@dataclass(frozen=True)
class SearchOptions:
    """The search.

    Attributes:
        teacher: solver whose trajectories are searched.
        teacher_order: its order; its highest if not given.
        teacher_points: points of its grid.
        rho: exponent of the polynomial grid.
        warmup: samples whose trajectories make the costs; as many others are for --refine, --afs.
        held_out: further samples that choose among candidates; as many again judge the choice.
    """

    teacher: Solver = "ipndm"
    teacher_order: int | None = None
    teacher_points: int = 61
    rho: float = 7.0
    warmup: int = 256
    held_out: int = 128

    def __post_init__(self) -> None:
        check_at_least(2, teacher_points=self.teacher_points, held_out=self.held_out)
        check_at_least(1, warmup=self.warmup)
        check_positive(rho=self.rho)


@dataclass(frozen=True)
class FormOptions:
    """What dpmpp and unipc do.

    Attributes:
        form: what they extrapolate: data (usual for pixels) or noise (for latents).
        thresholding: cut the denoised image to its 99.5 % quantile; for images in [-1, 1] only.
    """

    form: Literal["data", "noise"] = "data"
    thresholding: bool = False

    def __post_init__(self) -> None:
        if self.thresholding and self.form != "data":
            raise ValueError("--thresholding needs --form data")


@dataclass(frozen=True)
class DataOptions:
    """The images.

    Attributes:
        size: height and width; of the first image, at most 64, if not given.
        grey: one channel instead of three, of folders.
        labels: train with the classes, which then can be asked for; yes where there are several.
        flip: mirror half of the images left-right; not for digits and letters.
        val_fraction: share of the images held out where the data have no val split.
        skip_bad: leave out images that cannot be read instead of stopping.
    """

    size: int | None = None
    grey: bool = False
    labels: bool | None = None
    flip: bool = False
    val_fraction: float = 0.1
    skip_bad: bool = False

    def __post_init__(self) -> None:
        check_at_least(4, size=self.size)
        check_fraction("[0, 1)", val_fraction=self.val_fraction)


@dataclass(frozen=True)
class NetworkOptions:
    """The network.

    Attributes:
        network: unet (this package's) or diffusers (its UNet2DModel).
        width: channels of its first level; the preset's if not given.
    """

    network: Literal["unet", "diffusers"] = "unet"
    width: int | None = None

    def __post_init__(self) -> None:
        check_at_least(8, width=self.width)


@dataclass(frozen=True)
class RecipeOptions:
    """The recipe.

    Attributes:
        preset: what holds for all that is not given: quick (minutes on two cores) or paper; auto is
            paper where there is a CUDA device, else quick.
        epochs: passes over the images.
        batch_size: images per step and device.
        lr: learning rate.
    """

    preset: Literal["auto", "quick", "paper"] = "auto"
    epochs: int | None = None
    batch_size: int | None = None
    lr: float | None = None

    def __post_init__(self) -> None:
        check_at_least(1, epochs=self.epochs, batch_size=self.batch_size)
        check_positive(lr=self.lr)


def numbers(text: str, option: str, *, least: int = 0) -> list[int]:
    """Return the whole numbers in ``4-10``, ``4-10:2`` or ``4,6,8``, without repetition.

    Args:
        text: ranges and numbers, separated by commas; both ends belong to a range.
        option: named in errors, e.g. ``--nfe``.
        least: smallest number allowed.

    Raises:
        ValueError: anything else, a range that runs down, a number too small, or a million or more.

    Example:
        >>> numbers("4-10:2,5", "--nfe")
        [4, 6, 8, 10, 5]
    """
    found: dict[int, None] = {}
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,18})(?:-(\d{1,18})(?::(\d{1,18}))?)?\s*", part)
        if match is None:
            raise ValueError(f"{option} must be such as 4-10, 4-10:2 or 4,6,8, got {text!r}")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first or match[3] == "0":
            raise ValueError(f"{option}: {part.strip()} is an empty range; write LOW-HIGH")
        span = range(first, last + 1, int(match[3] or 1))
        if len(span) + len(found) > MOST_NUMBERS:
            raise ValueError(f"{option} must be at most {MOST_NUMBERS:,} numbers, got {text!r}")
        found |= dict.fromkeys(span)
    if min(found) < least:
        raise ValueError(f"{option} must be >= {least}, got {min(found)}")
    return list(found)


def budgets(nfe: str | None, solver: str, points: int) -> list[int]:
    """Return budgets of network calls; 4 to 10 (even ones for heun and dpm) if none are given.

    Args:
        nfe: see `numbers`.
        solver: that will sample.
        points: of the teacher's grid.

    Raises:
        ValueError: a budget that the solver cannot make, or with more steps than the grid has.
    """
    per_step = 2 if solver in TWO_CALLS else 1
    if nfe is None:
        nfe = "4-10:2" if per_step == 2 else "4-10"
    found = numbers(nfe, "--nfe", least=per_step)
    if odd := [count for count in found if count % per_step]:
        raise ValueError(
            f"--nfe must be even for {solver}, two calls a step: {odd[0] - 1} or {odd[0] + 1}, "
            f"got {odd[0]}"
        )
    if max(found) // per_step > points - 1:
        raise ValueError(
            f"--nfe {max(found)} needs {max(found) // per_step} steps and a grid of {points} "
            f"points has {points - 1}; take fewer, or more --teacher-points"
        )
    return found


def coefficient(text: str) -> float | Literal["auto"]:
    """Return the number of --coeff, or ``auto``.

    Raises:
        ValueError: neither, or a number that is not > 0.
    """
    if text == "auto":
        return "auto"
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise ValueError(f"--coeff must be auto or a number > 0, got {text}")
    return value


def check_levels(sigmas: Sequence[float]) -> None:
    """Check the noise levels of --sigmas.

    Raises:
        ValueError: fewer than two, not finite, not decreasing, or not > 0 (the last may be 0).
    """
    if len(sigmas) < 2:
        raise ValueError(f"--sigmas must be two or more noise levels, got {list(sigmas)}")
    falls = all(a > b for a, b in pairwise(sigmas))
    if not falls or not math.isfinite(sigmas[0]) or sigmas[-1] < 0:
        raise ValueError(
            "--sigmas must be finite and strictly decreasing, > 0 but for a last 0, "
            f"got {','.join(f'{sigma:g}' for sigma in sigmas)}"
        )


def schedule_name(text: str) -> str:
    """Return the column of a table: poly7 is ``polynomial 7``, gits-1.15-l2 is ``gits 1.15 l2``.

    Args:
        text: as written on the command line.
    """
    word = text.strip()
    return SHORT.get(word, word.replace("-", " "))


def check_model(model: str) -> None:
    """Check, without loading anything, that --model may name a model.

    Raises:
        DataError: it is neither built in, nor a path that exists, nor package.module:factory.
    """
    names = ("digits-empirical", "digits-gauss10")
    if model in names or Path(model).exists() or re.fullmatch(r"[\w.]+:\w+", model):
        return
    raise DataError(
        f"{model}: no such folder or file, and no model of that name{nearest(model, names)}; give "
        f"{', '.join(names)}, a diffusers folder, the --out folder of gits-sampling-train, or "
        "package.module:factory"
    )


def check_schedule_file(path: str) -> None:
    """Check that --schedule is a file.

    Raises:
        DataError: it is not.
    """
    if not Path(path).is_file():
        raise DataError(f"{path}: no such file; give one of gits-sampling-fit, SOLVER-nfeN.json")


def own_schedule_file(model: str) -> str:
    """Return the file of the schedule that a trained network carries.

    Args:
        model: the --out folder of gits-sampling-train, or its export.

    Raises:
        DataError: there is none.
    """
    for folder in (Path(model), Path(model) / "export"):
        if (folder / "schedule.json").is_file():
            return str(folder / "schedule.json")
    raise DataError(f"{model}: carries no schedule; give --schedule FILE or --sigmas 80,10,...")
