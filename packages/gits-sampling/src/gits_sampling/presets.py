"""Settings that hold for what was not given, by preset."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from papercommons.presets import resolve_preset

from gits_sampling.options import NetworkOptions, RecipeOptions

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "quick": {"images": 150_000, "batch_size": 128, "lr": 2e-3, "width": 16},
    "paper": {"images": 200_000_000, "batch_size": 512, "lr": 1e-3, "width": 128},
}
"""Images seen in all, and the recipe; EDM's sees 200 million at 1e-3 (CIFAR-10)."""
QUICK_PIXELS = 16 * 16  # of an image; larger ones are seen fewer times, for the same minutes


def resolve(network: NetworkOptions, recipe: RecipeOptions, *, cuda: bool) -> dict[str, Any]:
    """Return the name of the preset, and a value for each option that presets set.

    Epochs follow from the images, see `epochs_for`.

    Args:
        network: what was given of the network.
        recipe: what was given of the recipe.
        cuda: whether there is a CUDA device.

    Example:
        >>> values = resolve(NetworkOptions(width=24), RecipeOptions(), cuda=False)
        >>> values["preset"], values["width"], values["batch_size"]
        ('quick', 24, 128)
    """
    given = {**asdict(network), **asdict(recipe)}
    return resolve_preset(PRESETS, recipe.preset, given, cuda=cuda)


def epochs_for(values: Mapping[str, Any], count: int, side: tuple[int, int]) -> int:
    """Return the epochs in which as many images are seen as the preset says.

    Args:
        values: of `resolve`.
        count: number of training images.
        side: their height and width.
    """
    seen = values["images"]
    if values["preset"] == "quick":
        seen *= min(1.0, QUICK_PIXELS / math.prod(side))
    return max(1, math.ceil(seen / count))
