"""Settings that hold for what was not given, by preset."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cmdfd.options import LossOptions, RecipeOptions

SMALL = {"dim": 32, "visual_width": 8, "audio_layers": [1, 1, 1, 1], "tcn_layers": 2, "heads": 4}
PRESETS: Mapping[str, Mapping[str, Any]] = {
    "quick": {  # ours
        "epochs": 20,
        "lr": 1e-3,
        "lr_decay": 0.95,
        "frames_per_batch": 500,
        "max_frames": 50,
        "size": 48,
        "net": SMALL,
    },
    "full": {
        "epochs": 100,
        "lr": 1e-4,
        "lr_decay": 0.95,
        "frames_per_batch": 2000,
        "max_frames": 250,
        "size": 112,
        "net": {},
    },
}
LEGACY = {"lr": 1e-5, "max_frames": 1000}
"""What the official code has beside the preset."""


def resolve(
    recipe: RecipeOptions, losses: LossOptions, *, legacy: bool, cuda: bool
) -> dict[str, Any]:
    """Return the name of the preset, and a value for each option that presets set.

    Args:
        recipe: as given.
        losses: as given.
        legacy: as the official code has it.
        cuda: whether there is a CUDA device.

    Example:
        >>> values = resolve(RecipeOptions(epochs=2), LossOptions(), legacy=False, cuda=False)
        >>> values["preset"], values["epochs"], values["target"]
        ('quick', 2, 'js')
    """
    preset = recipe.preset
    if preset == "auto":
        preset = "full" if cuda else "quick"
    values = {**PRESETS[preset], **(LEGACY if legacy and preset == "full" else {})}
    values = {
        name: value if getattr(recipe, name, None) is None else getattr(recipe, name)
        for name, value in values.items()
    }
    target = losses.target or ("jeffreys" if legacy else "js")
    return {"preset": preset, **values, "target": target}
