"""Settings that hold for what was not given, by preset."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from papercommons.presets import resolve_preset

from cmdfd.options import LossOptions, RecipeOptions

PRESETS: dict[str, dict[str, Any]] = {
    "quick": {  # ours
        "epochs": 20,
        "lr": 1e-3,
        "lr_decay": 0.95,
        "frames_per_batch": 500,
        "max_frames": 50,
        "size": 48,
    },
    "paper": {
        "epochs": 100,
        "lr": 1e-4,
        "lr_decay": 0.95,
        "frames_per_batch": 2000,
        "max_frames": 250,
        "size": 112,
    },
}
NETWORKS: dict[str, dict[str, Any]] = {
    "quick": {
        "dim": 32,
        "visual_width": 8,
        "audio_layers": [1, 1, 1, 1],
        "tcn_layers": 2,
        "heads": 4,
    },
    "paper": {},
}
"""Sizes of the network, see `cmdfd.model.CMDFDNet`."""
LEGACY = {"lr": 1e-5, "max_frames": 1000}
"""What the official code has beside the preset ``paper``."""


def resolve(
    recipe: RecipeOptions, losses: LossOptions, *, legacy: bool, cuda: bool
) -> dict[str, Any]:
    """Return the name of the preset, a value for each option that presets set, and the network.

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
    presets = {**PRESETS, "paper": PRESETS["paper"] | LEGACY} if legacy else PRESETS
    values = resolve_preset(presets, recipe.preset, asdict(recipe), cuda=cuda)
    target = losses.target or ("jeffreys" if legacy else "js")
    return {**values, "target": target, "net": NETWORKS[values["preset"]]}
