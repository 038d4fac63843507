"""Settings that hold for what was not given, by preset."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from papercommons.presets import resolve_preset

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "quick": {  # minutes on two cores
        "variant": "tiny",
        "size": [32, 64, 64],
        "epochs": 80,
        "batch_size": 4,
        "lr": 3e-3,
        "weight_decay": 0.01,
        "optimizer": "adamw",
        "warmup": 0.05,
        "label_smoothing": 0.0,
        "patience": 0,
    },
    "paper": {  # full size, for a GPU; the paper's own numbers are not known: our choices
        "variant": "base",
        "size": [64, 128, 128],
        "epochs": 100,
        "batch_size": 4,
        "lr": 1e-4,
        "weight_decay": 0.01,
        "optimizer": "adamw",
        "warmup": 0.05,
        "label_smoothing": 0.0,
        "patience": 20,
    },
}


def resolve(preset: str, given: Mapping[str, Any], *, network: str, cuda: bool) -> dict[str, Any]:
    """Return the name of the preset and a value for each option that it sets, and say them.

    Args:
        preset: quick, paper, or auto: paper where there is a CUDA device, else quick.
        given: option -> value, None where it was not given.
        network: its name; covnet keeps every slice, depth 0, unless told otherwise.
        cuda: whether there is a CUDA device.

    Example:
        >>> resolve("quick", {"epochs": 2}, network="covnet", cuda=False)["size"]
        [0, 64, 64]
    """
    presets = {
        name: {**values, "size": [0, *values["size"][1:]]} if network == "covnet" else values
        for name, values in PRESETS.items()
    }
    return resolve_preset(presets, preset, given, cuda=cuda)
