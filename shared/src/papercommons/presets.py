"""Settings that hold for what was not given, by preset."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

log = logging.getLogger("papercommons")


def resolve_preset(
    presets: Mapping[str, Mapping[str, Any]],
    preset: str,
    given: Mapping[str, Any],
    *,
    cuda: bool,
    log_it: bool = True,
) -> dict[str, Any]:
    """Return the name of the preset and a value for each option that it sets, and log them.

    Args:
        presets: name -> option -> value.
        preset: one of them, or auto: paper where there is a CUDA device, else quick.
        given: option -> value, None where it was not given; others than the preset's are ignored.
        cuda: whether there is a CUDA device.
        log_it: say them; not for a second network of a command that has said them.

    Example:
        >>> presets = {"quick": {"epochs": 3, "lr": 0.1}, "paper": {"epochs": 90, "lr": 0.1}}
        >>> resolve_preset(presets, "auto", {"epochs": 2, "lr": None}, cuda=False)
        {'preset': 'quick', 'epochs': 2, 'lr': 0.1}
    """
    if preset == "auto":
        preset = "paper" if cuda else "quick"
    values = {
        name: value if given.get(name) is None else given[name]
        for name, value in presets[preset].items()
    }
    if log_it:
        log.info("preset %s: %s", preset, ", ".join(f"{k} {v}" for k, v in values.items()))
    return {"preset": preset, **values}
