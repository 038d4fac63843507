"""Settings that hold for what was not given, by preset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from papercommons.presets import resolve_preset

from semforge.options import NetworkOptions, RecipeOptions

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "quick": {  # ours
        "backbone": "tiny",
        "root_prior": "balanced",
        "pretrained": "none",
        "epochs": 12,
        "batch_size": 32,
        "lr": 1e-3,
    },
    "paper": {
        "backbone": "legacy_xception",
        "root_prior": "none",
        "pretrained": "published",
        "epochs": 36,
        "batch_size": 32,
        "lr": 1e-4,
    },
}


def resolve(network: NetworkOptions, recipe: RecipeOptions, *, cuda: bool) -> dict[str, Any]:
    """Return the name of the preset and a value for each option that it sets, and say them.

    Args:
        network: what was given of the network.
        recipe: what was given of the recipe.
        cuda: whether there is a CUDA device.

    Example:
        >>> values = resolve(NetworkOptions(), RecipeOptions(epochs=2), cuda=False)
        >>> values["preset"], values["epochs"], values["backbone"]
        ('quick', 2, 'tiny')
    """
    given = {**asdict(network), **asdict(recipe)}
    return resolve_preset(PRESETS, recipe.preset, given, cuda=cuda)
