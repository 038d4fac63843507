"""Schedules inside diffusers: any of its schedulers with our noise levels, without a fork.

Where diffusers takes a schedule it takes it in ways that differ (section 3.7 of the
specification), so ours is put into the tables that every scheduler keeps. The result is a scheduler
of a small subclass; it keeps the schedule also when a pipeline calls ``set_timesteps`` itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler
from diffusers import SchedulerMixin as SchedulerMixin  # where a loading pipeline looks for it
from diffusers.schedulers.scheduling_ddim import DDIMSchedulerOutput
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteSchedulerOutput
from torch import Tensor

TABLES = (
    "DEISMultistepScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "EulerAncestralDiscreteScheduler",
    "EulerDiscreteScheduler",
    "HeunDiscreteScheduler",
    "UniPCMultistepScheduler",
)
EDM = ("EDMDPMSolverMultistepScheduler", "EDMEulerScheduler")
FLOW = ("FlowMatchEulerDiscreteScheduler",)
STEPS = ("LCMScheduler", "TCDScheduler")  # whole training steps only
LEVELS = "_gits_sigmas"
"""The entry of scheduler_config.json that holds the noise levels."""
SUPPORTED = (*TABLES, *EDM, *FLOW, *STEPS, "DDIMScheduler", "GITSIPNDMScheduler")


class FixedSchedule:
    """Mixin before a diffusers scheduler: the noise levels stay, whatever a pipeline asks for."""

    @property
    def fixed_sigmas(self) -> np.ndarray:
        """The noise levels, float64, shape (K + 1,), kept in the scheduler's configuration.

        Raises:
            ValueError: there are none, or they do not decrease.
        """
        scheduler: Any = self
        return check_levels(scheduler.config.get(LEVELS) or ())

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: str | torch.device | None = None,
        *ignored: Any,
        **also_ignored: Any,
    ) -> None:
        """Prepare the schedule's own steps; all but the device is passed over."""
        parent: Any = super()
        scheduler: Any = self
        if LEVELS not in scheduler.config:  # diffusers' own __init__
            parent.set_timesteps(num_inference_steps, device, *ignored, **also_ignored)
            return
        steps = len(self.fixed_sigmas) - 1
        name = type(self).__name__
        if name in STEPS:
            given = vp_timesteps(scheduler, self.fixed_sigmas[:-1]).round().astype(int).tolist()
            parent.set_timesteps(timesteps=given, device=device)
            return
        extra = {"mu": 0.0} if scheduler.config.get("use_dynamic_shifting") else {}
        parent.set_timesteps(num_inference_steps=steps, device=device, **extra)
        sigmas, timesteps = self._tables(name)
        if name == "HeunDiscreteScheduler":  # both slopes of a step have an entry
            sigmas = np.concatenate([sigmas[:1], sigmas[1:-1].repeat(2), sigmas[-1:]])
            timesteps = np.concatenate([timesteps[:1], timesteps[1:].repeat(2)])
        scheduler.timesteps = torch.from_numpy(timesteps.astype(np.float32)).to(device)
        if name != "DDIMScheduler":
            scheduler.sigmas = torch.from_numpy(sigmas.astype(np.float32))

    def _tables(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Return sigmas, (K + 1,), and timesteps, (K,), as the scheduler counts them."""
        scheduler: Any = self
        sigmas = self.fixed_sigmas
        if name in EDM:
            return sigmas, scheduler.precondition_noise(torch.from_numpy(sigmas[:-1])).numpy()
        if name in FLOW:
            times = sigmas / (1 + sigmas)
            return times, times[:-1] * scheduler.config.num_train_timesteps
        return sigmas, vp_timesteps(scheduler, sigmas[:-1])


def vp_timesteps(scheduler: Any, sigmas: np.ndarray) -> np.ndarray:
    """Return the training steps of noise levels, float64, by interpolation in ln sigma.

    Args:
        scheduler: with ``alphas_cumprod``.
        sigmas: > 0; levels outside the training's are brought to its ends.
    """
    table = scheduler.alphas_cumprod.double().cpu().numpy()
    log_sigmas = 0.5 * np.log((1 - table) / table)
    return np.interp(np.log(sigmas), log_sigmas, np.arange(len(table)))


def to_denoised(scheduler: Any, output: Tensor, scaled: Tensor, level: float) -> Tensor:
    """Return D from a network's output.

    Args:
        scheduler: its prediction_type says what the output is, its clip_sample whether D is cut.
        output: of the network, (B, ...).
        scaled: what the network saw, x / sqrt(1 + level^2).
        level: sigma.
    """
    kind, norm = scheduler.config.prediction_type, (1 + level**2) ** 0.5
    if kind == "epsilon":
        denoised = scaled * norm - level * output
    elif kind == "v_prediction":
        denoised = scaled / norm - level / norm * output
    elif kind == "sample":
        denoised = output
    else:
        raise ValueError(f"prediction_type must be epsilon, v_prediction or sample, got {kind}")
    if scheduler.config.get("clip_sample"):
        reach = scheduler.config.clip_sample_range
        denoised = denoised.clamp(-reach, reach)
    return denoised


class FixedDDIM(FixedSchedule, DDIMScheduler):  # type: ignore[misc]
    """DDIM between any noise levels; diffusers' own counts in equal steps."""

    def step(
        self,
        model_output: Tensor,
        timestep: Any,
        sample: Tensor,
        eta: float = 0.0,
        return_dict: bool = True,
        **ignored: Any,
    ) -> DDIMSchedulerOutput | tuple[Tensor, Tensor]:
        """Take one step; see diffusers.

        Raises:
            ValueError: eta above 0: the schedule is of a deterministic sampler.
        """
        if eta:
            raise ValueError(f"eta must be 0 (the schedule is of the ODE), got {eta}")
        scheduler: Any = self
        place = int((scheduler.timesteps - float(timestep)).abs().argmin())
        level, after = (float(s) for s in self.fixed_sigmas[place : place + 2])
        x = sample * (1 + level**2) ** 0.5
        denoised = to_denoised(self, model_output, sample, level)
        moved = denoised + (after / level) * (x - denoised)
        previous = moved / (1 + after**2) ** 0.5
        if not return_dict:
            return previous, denoised
        return DDIMSchedulerOutput(prev_sample=previous, pred_original_sample=denoised)


class GITSIPNDMScheduler(EulerDiscreteScheduler):  # type: ignore[misc]
    """iPNDM in the variance-exploding frame, which the paper's schedules are for.

    diffusers' IPNDMScheduler has a time of its own. Make this one with
    ``GITSIPNDMScheduler.from_config(pipeline.scheduler.config)``.
    """

    weights = (
        (1.0,),
        (1.5, -0.5),
        (23 / 12, -16 / 12, 5 / 12),
        (55 / 24, -59 / 24, 37 / 24, -9 / 24),
    )

    def set_timesteps(self, *arguments: Any, **options: Any) -> None:
        """Prepare a run; see diffusers."""
        parent: Any = super()
        parent.set_timesteps(*arguments, **options)
        self.slopes: list[Tensor] = []

    def step(
        self,
        model_output: Tensor,
        timestep: Any,
        sample: Tensor,
        return_dict: bool = True,
        **ignored: Any,
    ) -> EulerDiscreteSchedulerOutput | tuple[Tensor]:
        """Take one step of order 1, 2, 3 and then 4; see diffusers."""
        scheduler: Any = self
        if scheduler.step_index is None:
            scheduler._init_step_index(timestep)
        place = scheduler.step_index
        level, after = (float(s) for s in scheduler.sigmas[place : place + 2])
        scaled = sample / (1 + level**2) ** 0.5
        denoised = to_denoised(self, model_output, scaled, level)
        self.slopes = [(sample - denoised) / level, *self.slopes[:3]]
        weights = self.weights[len(self.slopes) - 1]
        slope = sum(w * d for w, d in zip(weights, self.slopes, strict=True))
        previous = sample + (after - level) * slope
        scheduler._step_index += 1
        if not return_dict:
            return (previous,)
        return EulerDiscreteSchedulerOutput(prev_sample=previous, pred_original_sample=denoised)


def to_diffusers(sigmas: Tensor | Sequence[float], scheduler: Any) -> Any:
    """Return a scheduler of the same kind and configuration that keeps the noise levels.

    Args:
        sigmas: t_0 > ... > t_K > 0, K the steps of a pipeline (whose own number is passed over).
            Values outside the model's range are brought to its ends in time, not in level.
        scheduler: one of `SUPPORTED`; it is not changed.

    Returns:
        Put it into ``pipeline.scheduler``; saved with the pipeline it keeps the levels, and
        loading that needs this package. LCM and TCD know whole training steps only, so there
        levels are rounded.

    Raises:
        ValueError: another scheduler; levels that do not decrease or, rounded, coincide.
    """
    levels, name = check_levels(sigmas), type(scheduler).__name__
    if name not in SUPPORTED:
        hint = "; GITSIPNDMScheduler is iPNDM as fitted" if name == "IPNDMScheduler" else ""
        raise ValueError(f"{name} takes no schedule{hint}; use one of {', '.join(SUPPORTED)}")
    from gits_sampling import fixed_schedulers

    made: Any = getattr(fixed_schedulers, name)
    fixed = made.from_config(dict(scheduler.config) | {LEVELS: levels.tolist()})
    if name in STEPS:
        steps = vp_timesteps(fixed, levels[:-1]).round()
        if (np.diff(steps) >= 0).any():
            raise ValueError(
                f"{name} knows whole training steps, and {steps.astype(int).tolist()} has equal "
                "ones; use fewer steps or another scheduler"
            )
    return fixed


def check_levels(sigmas: Tensor | Sequence[float]) -> np.ndarray:
    """Return noise levels as float64, shape (K + 1,).

    Args:
        sigmas: t_0 > ... > t_K >= 0, finite, all but the last > 0.

    Raises:
        ValueError: they are not as said.
    """
    levels = np.asarray(torch.as_tensor(sigmas, dtype=torch.float64).cpu())
    fit = levels.ndim == 1 and len(levels) > 1 and np.isfinite(levels).all()
    if not fit or (np.diff(levels) >= 0).any() or levels[-1] < 0:
        raise ValueError(f"sigmas must be 2 or more decreasing numbers > 0, got {levels.tolist()}")
    return levels
