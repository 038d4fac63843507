"""Settings that hold for what was not given, by preset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from papercommons.presets import resolve_preset

from defi_net.options import NetworkOptions, RecipeOptions

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "quick": {  # ours: the specification's small experiment, and crops instead of whole photographs
        "backbone": "hrnet_tiny",
        "width": 12,
        "size": 64,
        "fit": "crop",
        "augment": "robust",
        "epochs": 10,
        "batch_size": 8,
        "lr": 4e-3,
        "schedule": "cosine",
    },
    "paper": {
        "backbone": "hrnet_w18_small_v2",
        "width": 64,
        "size": 352,
        "fit": "resize",
        "augment": "paper",
        "epochs": 100,
        "batch_size": 16,
        "lr": 2e-4,
        "schedule": "plateau",
    },
}


def resolve(network: NetworkOptions, recipe: RecipeOptions, *, cuda: bool) -> dict[str, Any]:
    """Return the name of the preset and a value for each option that it sets, and say them.

    Args:
        network: what was given of the network.
        recipe: what was given of the recipe.
        cuda: whether there is a CUDA device.

    Example:
        >>> values = resolve(NetworkOptions(width=24), RecipeOptions(), cuda=False)
        >>> values["preset"], values["width"], values["backbone"]
        ('quick', 24, 'hrnet_tiny')
    """
    given = {**asdict(network), **asdict(recipe)}
    return resolve_preset(PRESETS, recipe.preset, given, cuda=cuda)
