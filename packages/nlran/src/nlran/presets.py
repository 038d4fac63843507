"""Recipes as short YAML files, and every number of a run resolved from recipe and options."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import yaml


def resolve(preset: str, *, cuda: bool, **given: Any) -> dict[str, Any]:
    """Return every number of a run: what was given, else what the recipe says.

    Args:
        preset: quick, paper, or auto: paper where there is a CUDA device, else quick.
        cuda: whether there is one.
        **given: options by name; None means not given.

    Returns:
        The recipe's entries with ``preset``.
    """
    name = preset if preset != "auto" else ("paper" if cuda else "quick")
    text = files("nlran").joinpath("configs", f"{name}.yaml").read_text(encoding="utf-8")
    values: dict[str, Any] = yaml.safe_load(text)
    values.update((key, value) for key, value in given.items() if value is not None)
    return {"preset": name, **values}
