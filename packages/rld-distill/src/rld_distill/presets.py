"""Recipes as short YAML files, and every number of a run resolved from recipe and options.

Milestones and warm-up are shares of the epochs, so a shorter run keeps the paper's proportions.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import yaml
from papercommons.errors import nearest

PRESETS = ("quick", "demo", "paper", "imagenet")
LIGHT_STUDENTS = ("MobileNetV2", "ShuffleV1", "ShuffleV2")


def read_preset(name: str) -> dict[str, Any]:
    """Return the recipe's entries.

    Args:
        name: quick, demo, paper or imagenet.

    Raises:
        ValueError: no such recipe.
    """
    if name not in PRESETS:
        raise ValueError(f"no preset {name}{nearest(name, PRESETS)} (has {', '.join(PRESETS)})")
    text = files("rld_distill").joinpath("configs", f"{name}.yaml").read_text(encoding="utf-8")
    values: dict[str, Any] = yaml.safe_load(text)
    return values


def resolve(preset: str, *, cuda: bool, **given: Any) -> dict[str, Any]:
    """Return every number of a run: what was given, else what the recipe says.

    Args:
        preset: a recipe, or auto: paper where there is a CUDA device, else quick.
        cuda: whether there is one.
        **given: options by name; None means not given.

    Returns:
        The recipe's entries with `preset`; ``lr`` is ``lr_light`` for the three light students;
        ``lr_milestones`` and ``warmup_epochs`` are whole epochs.

    Raises:
        ValueError: no such recipe, or milestones that do not rise.
    """
    name = preset if preset != "auto" else ("paper" if cuda else "quick")
    values = read_preset(name)
    light = values.pop("lr_light")
    values.update((key, value) for key, value in given.items() if value is not None)
    if given.get("lr") is None and values["student"] in LIGHT_STUDENTS:
        values["lr"] = light
    values.setdefault("warmup_epochs", round(values.pop("warmup") * values["epochs"]))
    values["lr_milestones"] = milestones(values["lr_milestones"], values["epochs"])
    return {"preset": name, **values}


def milestones(marks: list[float], epochs: int) -> list[int]:
    """Return the epochs after which the learning rate falls.

    Args:
        marks: shares of all epochs (below 1) or whole epochs (1 and above).
        epochs: all of them.

    Raises:
        ValueError: they do not rise, or are negative.
    """
    whole = [round(mark * epochs) if mark < 1 else round(mark) for mark in marks]
    if any(mark < 0 for mark in whole) or whole != sorted(whole):
        raise ValueError(f"--lr-milestones must be >= 0 and rise, got {marks}")
    return whole
