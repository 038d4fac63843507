"""The schedule that a model's own diffusers scheduler would use, as noise levels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from papercommons.errors import DataError, reason
from torch import Tensor

LEAST_ALPHA = 2.0**-24  # of a table that ends at zero signal, as diffusers' Euler scheduler has it


def own_schedule(
    scheduler: Any, kind: str, ends: tuple[float, float], *, source: str
) -> Callable[[int], Tensor]:
    """Return what gives a scheduler's own n noise levels, for n - 1 network calls.

    They are float64, shape (n,), brought into the range of the training. Where the scheduler calls
    the network at sigma_min, the last one is 0; else it is sigma_min. The first one is below
    sigma_max with ``timestep_spacing="leading"``, as there.

    Args:
        scheduler: of diffusers; its settings are used, not its state.
        kind: of prediction: eps, v, sample, edm or flow.
        ends: sigma_min and sigma_max.
        source: named where the scheduler has no such schedule (DataError).
    """
    from gits_sampling.diffusers_schedulers import LEVELS

    low, high = ends
    config = {name: value for name, value in scheduler.config.items() if name != LEVELS}

    def schedule(n: int) -> Tensor:
        own, steps = type(scheduler).from_config(config), n - 1
        dynamic = {"mu": 0.0} if own.config.get("use_dynamic_shifting") else {}
        try:
            own.set_timesteps(steps, **dynamic)
        except Exception as error:  # each scheduler has its own reasons
            raise DataError(
                f"{source}: its {type(own).__name__} has no schedule of {steps} steps "
                f"({reason(error)})"
            ) from error
        levels = _levels(own, kind, steps).cpu().clamp(low, high)
        for end in ends:  # float32 in the scheduler
            levels = torch.where((levels / end - 1).abs() < 1e-5, end, levels)
        if len(levels) != steps or not (levels.diff() < 0).all():
            raise DataError(f"{source}: its {type(own).__name__} has no {steps} different steps")
        return torch.cat([levels, levels.new_tensor([low if levels[-1] > low else 0.0])])

    return schedule


def _levels(scheduler: Any, kind: str, steps: int) -> Tensor:
    """Return where a scheduler, its steps set, calls the network, float64, shape (steps,)."""
    if kind == "flow":
        times = scheduler.sigmas.double()[:steps].clamp(max=1 - 1e-9)
        return times / (1 - times)
    if hasattr(scheduler, "sigmas"):  # Heun's has its inner levels twice
        return torch.as_tensor(scheduler.sigmas[:-1]).double().unique().flip(0)
    table = scheduler.alphas_cumprod.double().clamp(min=LEAST_ALPHA)
    logs = ((1 - table) / table).log() / 2
    times = torch.as_tensor(scheduler.timesteps).double().unique().flip(0)
    below = times.floor().long().clamp(max=len(logs) - 2)
    return torch.lerp(logs[below], logs[below + 1], times - below).exp()
