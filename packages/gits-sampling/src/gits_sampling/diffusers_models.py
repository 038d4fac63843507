"""Models in diffusers' folders as denoisers; the scheduler's settings say what they predict.

A pipeline's folder or that of a network alone; only local files are read.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from papercommons.checkpoint import bounded_folder
from papercommons.errors import DataError, missing_library, nearest, reason
from papercommons.files import refuse_code
from papercommons.model_folders import check_config
from torch import Tensor, nn

from gits_sampling.adapters import (
    DiscreteTime,
    EDMDenoiser,
    EpsDenoiser,
    FlowDenoiser,
    Guided,
    VDenoiser,
)
from gits_sampling.models import Denoiser
from gits_sampling.own_schedules import LEAST_ALPHA, own_schedule

PREDICTIONS = ("eps", "v", "sample", "edm", "flow")
NETWORKS = ("UNet2DModel", "UNet2DConditionModel", "DiTTransformer2DModel", "Transformer2DModel")
_OF_CONFIG = {"epsilon": "eps", "v_prediction": "v", "sample": "sample"}
_REFUSED = ("CMStochasticIterativeScheduler", "KarrasVeScheduler", "ScoreSdeVeScheduler")

Condition = str | int


class SampleDenoiser(DiscreteTime):
    """A network over training steps that predicts the clean image itself: D = F."""

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Return D(x; sigma), of the shape and dtype of x."""
        return self.call(x, sigma).to(x.dtype)


class BoundNetwork(nn.Module):
    """A diffusers network with its conditions bound, called with scaled images and times.

    Args:
        network: a diffusers model, called with images, times and keyword arguments.
        conditions: keyword -> one entry for each condition, (P, ...); row k of a batch takes
            entry k mod P, so a batch should be a multiple of P.
    """

    def __init__(self, network: nn.Module, conditions: dict[str, Tensor] | None = None) -> None:
        super().__init__()
        self.network, self.names = network, tuple(conditions or ())
        for name, value in (conditions or {}).items():
            self.register_buffer(f"bound_{name}", value, persistent=False)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Return the prediction, of the shape and dtype of x; learned variances are left out."""
        given: dict[str, Any] = {}
        for name in self.names:
            entries: Tensor = getattr(self, f"bound_{name}")
            given[name] = entries[torch.arange(len(x), device=x.device) % len(entries)]
        if "added" in {name.split("__")[0] for name in self.names}:
            added = {k.removeprefix("added__"): given.pop(k) for k in self.names if "added__" in k}
            given["added_cond_kwargs"] = added
        dtype = next(self.network.parameters()).dtype
        output = self.network(x.to(dtype), time, return_dict=False, **given)[0]
        return output[:, : x.shape[1]].to(x.dtype)


@dataclass(frozen=True)
class DiffusersModel:
    """A denoiser of a diffusers folder and what its folder says about it.

    Attributes:
        denoiser: D(x; sigma).
        sigma_min: least noise level of the training.
        sigma_max: greatest.
        shape: of a sample; that of the latents where an autoencoder stands behind.
        prediction: what the network predicts, one of `PREDICTIONS`.
        default: n -> the noise levels that the folder's scheduler uses, see
            `gits_sampling.own_schedules.own_schedule`; None without a scheduler.
    """

    denoiser: Denoiser
    sigma_min: float
    sigma_max: float
    shape: tuple[int, ...]
    prediction: str
    default: Callable[[int], Tensor] | None


def load_diffusers(
    folder: str | Path,
    *,
    prediction: str | None = None,
    condition: Condition | Sequence[Condition] | None = None,
    negative: Condition | None = None,
    guidance: float | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
) -> DiffusersModel:
    """Return the model in a folder that diffusers' ``save_pretrained`` wrote.

    Args:
        folder: of a pipeline, or of a network (its scheduler's settings are looked for in it, in
            ``scheduler`` in it and beside it).
        prediction: one of `PREDICTIONS`; the scheduler's settings say it if not given.
        condition: prompts of a text pipeline, or class labels.
        negative: the prompt or label without the condition; "" for text.
        guidance: scale w; 7.5 for text and 1 else if not given.
        device: of the network.
        dtype: of the network; as saved if not given.

    Raises:
        DataError: the folder is not as said or holds code, its model cannot be used, or a condition
            is missing or does not fit.
    """
    folder = Path(folder)
    parts = _parts(folder, dtype)
    network, scheduler, pipeline = parts
    network = network.eval().requires_grad_(False).to(device)
    if pipeline is not None:
        pipeline.to(device)
    kind = _prediction(folder, scheduler, prediction)
    bound, plain, scale = _bind(folder, network, pipeline, condition, negative, guidance)

    def adapt(conditions: dict[str, Tensor]) -> Any:
        return _adapter(folder, BoundNetwork(network, conditions), scheduler, kind).to(device)

    denoiser = adapt(bound)
    ends = _range(denoiser, scheduler, kind)
    default = None if scheduler is None else own_schedule(scheduler, kind, ends, source=str(folder))
    guided = denoiser if plain is None else Guided(denoiser, adapt(plain), scale)
    return DiffusersModel(guided, *ends, _shape(folder, network), kind, default)


def is_diffusers_folder(folder: Path) -> bool:
    """Return whether a folder holds a diffusers pipeline or network."""
    if (folder / "model_index.json").is_file():
        return True
    return "_class_name" in _read(folder / "config.json")


def _read(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}


def _parts(folder: Path, dtype: torch.dtype | None) -> tuple[Any, Any, Any]:
    """Return network, scheduler or None, and pipeline or None."""
    try:
        import diffusers
    except ImportError as error:
        raise missing_library(
            f"{folder}: this model", "diffusers", "gits-sampling[diffusers]"
        ) from error
    refuse_code(folder)
    options: dict[str, Any] = {"local_files_only": True}
    if dtype is not None:
        options["torch_dtype"] = dtype
    if importlib.util.find_spec("accelerate") is None:
        options["low_cpu_mem_usage"] = False  # its default, and a long warning, without it
    bars = diffusers.utils.logging.is_progress_bar_enabled()
    diffusers.utils.logging.disable_progress_bar()
    try:
        if (folder / "model_index.json").is_file():
            with bounded_folder(folder):
                pipeline = diffusers.DiffusionPipeline.from_pretrained(str(folder), **options)
            pipeline.set_progress_bar_config(disable=True)
            network = getattr(pipeline, "unet", None) or getattr(pipeline, "transformer", None)
            if network is not None:
                _check_class(folder, type(network).__name__)
                return network, pipeline.scheduler, pipeline
            raise DataError(f"{folder}: a {type(pipeline).__name__} has no network that denoises")
        name = str(_read(folder / "config.json").get("_class_name"))
        _check_class(folder, name)
        with bounded_folder(folder):
            network = getattr(diffusers, name).from_pretrained(str(folder), **options)
        return network, scheduler_beside(diffusers, folder), None
    except DataError:
        raise
    except Exception as error:  # readers fail in many ways on what is broken
        raise DataError(f"{folder}: not a readable diffusers model ({reason(error)})") from error
    finally:
        if bars:
            diffusers.utils.logging.enable_progress_bar()


def _check_class(folder: Path, name: str) -> None:
    if name not in NETWORKS:
        raise DataError(
            f"{folder}: {name} is not supported, only {', '.join(NETWORKS)}; "
            "wrap it in a function and pass package.module:factory"
        )


def scheduler_beside(diffusers: Any, folder: Path) -> Any:
    """Return the scheduler whose settings lie in a folder or beside it, None if there are none.

    Args:
        diffusers: the library.
        folder: of a pipeline, a scheduler or a network.
    """
    for place in (folder, folder / "scheduler", folder.resolve().parent / "scheduler"):
        config = _read(place / "scheduler_config.json")
        kind = getattr(diffusers, str(config.get("_class_name")), None)
        if kind is not None:
            check_config(place / "scheduler_config.json")
            return kind.from_config(config)
    return None


def _prediction(folder: Path, scheduler: Any, given: str | None) -> str:
    if given is not None and given not in PREDICTIONS:
        raise DataError(
            f"prediction must be one of {', '.join(PREDICTIONS)}, got {given}"
            f"{nearest(given, PREDICTIONS)}"
        )
    if scheduler is None:
        if given is None:
            raise DataError(
                f"{folder}: no scheduler_config.json says what the network predicts; "
                f"give the prediction ({', '.join(PREDICTIONS)})"
            )
        return given
    name, config = type(scheduler).__name__, scheduler.config
    if name in _REFUSED:
        raise DataError(f"{folder}: models of {name} are not supported; pass a factory")
    if given is not None:
        return given
    if "FlowMatch" in name:
        return "flow"
    found = str(config.get("prediction_type", "epsilon"))
    if name.startswith("EDM"):
        if found != "epsilon":
            raise DataError(f"{folder}: {name} with {found} is not supported, only epsilon")
        return "edm"
    if config.get("use_flow_sigmas") or found == "flow_prediction":
        return "flow"
    if config.get("timestep_type") == "continuous":
        raise DataError(f"{folder}: {name} with continuous time is not supported; pass a factory")
    if found not in _OF_CONFIG:
        raise DataError(f"{folder}: prediction_type {found} of {name} is not supported")
    return _OF_CONFIG[found]


def _adapter(folder: Path, network: BoundNetwork, scheduler: Any, kind: str) -> Any:
    """Return the adapter of a kind, around the network."""
    config = {} if scheduler is None else scheduler.config
    if kind == "edm":
        return EDMDenoiser(network, sigma_data=config.get("sigma_data", 0.5))
    if kind == "flow":
        return FlowDenoiser(network, time_scale=config.get("num_train_timesteps", 1000))
    table = getattr(scheduler, "alphas_cumprod", None)
    if table is None:
        if scheduler is not None:
            raise DataError(f"{folder}: {type(scheduler).__name__} has no table of training steps")
        table = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64).neg().add(1).cumprod(0)
    adapters = {"eps": EpsDenoiser, "v": VDenoiser, "sample": SampleDenoiser}
    # a table of embeddings takes whole steps
    whole = getattr(network.network.config, "time_embedding_type", "") == "learned"
    try:
        return adapters[kind](network, table.clamp(min=LEAST_ALPHA), nearest=whole)
    except ValueError as error:
        raise DataError(f"{folder}: {reason(error)}") from error


def _range(denoiser: Any, scheduler: Any, kind: str) -> tuple[float, float]:
    """Return the least and greatest noise level that the network was trained for."""
    if isinstance(denoiser, DiscreteTime):
        return denoiser.sigma_min, denoiser.sigma_max
    if kind == "edm":
        config = {} if scheduler is None else scheduler.config
        return float(config.get("sigma_min", 0.002)), float(config.get("sigma_max", 80.0))
    steps = 1000 if scheduler is None else int(scheduler.config.get("num_train_timesteps", 1000))
    return 1 / (steps - 1), float(steps - 1)  # t = 1 / M to 1 - 1 / M; at 1 sigma is infinite


def _shape(folder: Path, network: Any) -> tuple[int, ...]:
    size, channels = network.config.get("sample_size"), network.config.get("in_channels")
    sides = (size, size) if isinstance(size, int) else tuple(size or ())
    if len(sides) != 2 or not all(isinstance(side, int) for side in (*sides, channels)):
        raise DataError(
            f"{folder}: the network's config.json says no sample_size (one side, or two) or no "
            "in_channels; add them"
        )
    return channels, *sides


def _bind(
    folder: Path,
    network: Any,
    pipeline: Any,
    condition: Condition | Sequence[Condition] | None,
    negative: Condition | None,
    guidance: float | None,
) -> tuple[dict[str, Tensor], dict[str, Tensor] | None, float]:
    """Return conditions, those without the condition (None if not needed) and the scale."""
    given = [condition] if isinstance(condition, str | int) else list(condition or [])
    text = hasattr(pipeline, "encode_prompt")
    classes = _classes(network)
    scale = (7.5 if text else 1.0) if guidance is None else float(guidance)
    if not text and type(network).__name__ == "UNet2DConditionModel":
        raise DataError(f"{folder}: needs prompts; pass the folder of the whole text pipeline")
    if not text and classes is None:
        if given or negative is not None or scale != 1:
            raise DataError(f"{folder}: the model takes no condition, so none and no guidance")
        return {}, None, 1.0
    if not given:
        what = "prompts" if text else f"class labels 0 to {classes - 1}"  # type: ignore[operator]
        raise DataError(f"{folder}: the model needs a condition; give {what}")
    if text:
        return *_prompts(
            folder, pipeline, given, "" if negative is None else negative, scale
        ), scale
    labels = _labels(folder, given, classes)  # type: ignore[arg-type]
    if scale == 1:
        return labels, None, scale
    if negative is None:
        raise DataError(f"{folder}: guidance needs the label that stands for no class (negative)")
    return labels, _labels(folder, [negative], classes), scale  # type: ignore[arg-type]


def _classes(network: Any) -> int | None:
    """Return how many entries the network's table of classes has; None without one."""
    count, dit = network.config.get("num_class_embeds"), network.config.get("num_embeds_ada_norm")
    if dit is not None:
        return int(dit) + 1  # the last one is that of no class
    return None if count is None else int(count)


def _labels(folder: Path, given: Sequence[Condition], classes: int) -> dict[str, Tensor]:
    wrong = [label for label in given if type(label) is not int or not 0 <= label < classes]
    if wrong:
        raise DataError(f"{folder}: class labels must be 0 to {classes - 1}, got {wrong[0]!r}")
    return {"class_labels": torch.tensor(given, dtype=torch.int64)}


def _prompts(
    folder: Path, pipeline: Any, given: list[Condition], negative: Condition, scale: float
) -> tuple[dict[str, Tensor], dict[str, Tensor] | None]:
    """Return the prompts' embeddings as the network takes them, with and without condition."""
    wrong = [text for text in [*given, negative] if not isinstance(text, str)]
    if wrong:
        raise DataError(f"{folder}: prompts must be text, got {wrong[0]!r}")
    name = type(pipeline).__name__
    if name not in ("StableDiffusionPipeline", "StableDiffusionXLPipeline"):
        raise DataError(f"{folder}: prompts of a {name} are not supported; pass a factory")
    with torch.no_grad():
        found = pipeline.encode_prompt(
            prompt=given,
            device=pipeline.unet.device,
            num_images_per_prompt=1,
            do_classifier_free_guidance=scale != 1,
            negative_prompt=[negative] * len(given),
        )
    if name == "StableDiffusionPipeline":
        with_text, without = found
        plain = None if scale == 1 else {"encoder_hidden_states": without}
        return {"encoder_hidden_states": with_text}, plain
    with_text, without, pooled, plain_pooled = found
    side = pipeline.unet.config.sample_size * pipeline.vae_scale_factor
    times = torch.tensor([[side, side, 0, 0, side, side]], device=with_text.device)

    def arguments(states: Tensor, extra: Tensor) -> dict[str, Tensor]:
        return {
            "encoder_hidden_states": states,
            "added__text_embeds": extra,
            "added__time_ids": times.to(states.dtype).expand(len(states), 6),
        }

    return arguments(with_text, pooled), None if scale == 1 else arguments(without, plain_pooled)
