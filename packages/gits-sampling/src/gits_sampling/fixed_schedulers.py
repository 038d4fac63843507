"""diffusers' schedulers that keep their noise levels, under the names that they have there.

A pipeline saved with one names this module in its model_index.json, so that loading it finds the
class here again; the levels are in its scheduler_config.json.
"""

from __future__ import annotations

from typing import Any

import diffusers
from diffusers import SchedulerMixin as SchedulerMixin  # where a loading pipeline looks for it

from gits_sampling.diffusers_schedulers import SUPPORTED, FixedDDIM, FixedSchedule
from gits_sampling.diffusers_schedulers import GITSIPNDMScheduler as _PlainIPNDM

_OURS = {"DDIMScheduler": FixedDDIM, "GITSIPNDMScheduler": _PlainIPNDM}


def __getattr__(name: str) -> Any:
    """Return the class of a scheduler in `SUPPORTED`, made when it is first asked for."""
    if name not in SUPPORTED:
        raise AttributeError(f"module gits_sampling.fixed_schedulers has no attribute {name}")
    base: Any = _OURS.get(name) or getattr(diffusers, name)
    bases = (base,) if issubclass(base, FixedSchedule) else (FixedSchedule, base)
    made = type(name, bases, {"__module__": __name__, "__doc__": base.__doc__})
    return globals().setdefault(name, made)
