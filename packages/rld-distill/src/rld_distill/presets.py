"""Settings that hold for what was not given, by preset.

Milestones and warm-up are shares of the epochs, so a shorter run keeps the paper's proportions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from papercommons.presets import resolve_preset

LIGHT_STUDENTS = ("MobileNetV2", "ShuffleV1", "ShuffleV2")

_CIFAR = {  # the published recipe: milestones after epochs 150, 180, 210 of 240, warm-up over 20
    "batch_size": 64,
    "lr": 0.05,
    "lr_light": 0.01,
    "weight_decay": 0.0005,
    "momentum": 0.9,
    "lr_milestones": [0.625, 0.75, 0.875],
    "warmup": 0.0833,
}
PRESETS: Mapping[str, Mapping[str, Any]] = {
    "quick": {  # minutes on two cores: small networks, a short schedule with these proportions
        **{"teacher": "resnet20", "student": "resnet8", "teacher_epochs": 20, "epochs": 20},
        **_CIFAR,
        "val_fraction": 0.1,
    },
    "demo": {  # the demonstration of this repository: all in under two minutes on two cores
        **{"teacher": "resnet14", "student": "resnet8", "teacher_epochs": 8, "epochs": 8},
        **_CIFAR,
        "warmup": 0.25,
        "val_fraction": 0.1,
    },
    "paper": {
        **{"teacher": "resnet32x4", "student": "resnet8x4", "teacher_epochs": 240, "epochs": 240},
        **_CIFAR,
        "val_fraction": 0.0,
    },
    "imagenet": {  # the published recipe for ResNet34 -> ResNet18; its weights are of that pair
        "teacher": "torchvision:resnet34",
        "student": "torchvision:resnet18",
        "teacher_epochs": 100,
        "epochs": 100,
        "batch_size": 512,
        "lr": 0.2,
        "lr_light": 0.2,
        "weight_decay": 0.0001,
        "momentum": 0.9,
        "lr_milestones": [0.3, 0.6, 0.9],
        "warmup": 0.01,
        "val_fraction": 0.0,
        "loss_options": {
            "rld": {"alpha": 1.0, "beta": 0.5, "temperature": 1.0},
            "dkd": {"alpha": 1.0, "beta": 0.5, "temperature": 1.0},
            "kd": {"weight": 0.5, "temperature": 1.0},
            "la": {"temperature": 1.0},
        },
    },
}


def resolve(preset: str, *, cuda: bool, log_it: bool = True, **given: Any) -> dict[str, Any]:
    """Return every number of a run: what was given, else what the preset says; and say them.

    Args:
        preset: quick, demo, paper, imagenet, or auto: paper where there is a CUDA device, else
            quick.
        cuda: whether there is one.
        log_it: say them.
        **given: options by name; None means not given.

    Returns:
        The preset's entries with ``preset``; ``lr`` is the light students' where the student is
        one; ``lr_milestones`` and ``warmup_epochs`` are whole epochs.

    Raises:
        ValueError: milestones that do not rise, or are negative.
    """
    presets = {name: _in_epochs(values, given) for name, values in PRESETS.items()}
    marks = given.pop("lr_milestones", None)
    values = resolve_preset(presets, preset, given, cuda=cuda, log_it=log_it)
    whole = values["lr_milestones"]
    if any(mark < 0 for mark in whole) or whole != sorted(whole):
        raise ValueError(f"--lr-milestones must be >= 0 and rise, got {marks}")
    return values


def milestones(marks: Sequence[float], epochs: int) -> list[int]:
    """Return the epochs after which the learning rate falls.

    Args:
        marks: shares of all epochs (below 1) or whole epochs (1 and above).
        epochs: all of them.
    """
    return [round(mark * epochs) if mark < 1 else round(mark) for mark in marks]


def _in_epochs(values: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return a preset's values for the student and the number of epochs that were given."""
    asked = {name: value for name, value in given.items() if value is not None}
    epochs, student = (asked.get(name, values[name]) for name in ("epochs", "student"))
    own = {name: values[name] for name in values if name not in ("lr_light", "warmup")}
    return own | {
        "lr": values["lr_light" if student in LIGHT_STUDENTS else "lr"],
        "lr_milestones": milestones(asked.get("lr_milestones", values["lr_milestones"]), epochs),
        "warmup_epochs": round(values["warmup"] * epochs),
    }
