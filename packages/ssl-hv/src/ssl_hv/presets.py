"""How each method is trained: the paper's recipe (section 3) and a quick one, as data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

COMPARING = (
    "simclr",
    "moco",
    "byol",
    "simsiam",
    "fastsiam",
    "dino",
    "barlow-twins",
    "vicreg",
)
GENERATIVE = ("vae", "mae", "aim", "bigan", "flow")
METHODS = (*COMPARING, *GENERATIVE)


@dataclass(frozen=True)
class Recipe:
    """An optimiser and what its views look like.

    Attributes:
        optimizer: sgd or adamw (adam is adamw without decay).
        lr: peak learning rate.
        weight_decay: of the optimiser.
        momentum: of sgd; beta1 of adamw.
        views: further arguments of `ssl_hv.augmentation.paper` under ``--augment paper``.
    """

    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: float = 6e-2
    weight_decay: float = 5e-4
    momentum: float = 0.9
    views: dict[str, Any] = field(default_factory=dict)


PAPER = {
    "simclr": Recipe(views={"vertical": 0.5, "rotate": 0.5}),
    "moco": Recipe(views={"scale": (0.2, 1.0)}),
    "byol": Recipe(weight_decay=0.0),
    "simsiam": Recipe(weight_decay=0.0),
    "fastsiam": Recipe(weight_decay=0.0),
    "dino": Recipe("adamw", lr=1e-3, weight_decay=0.0),
    "barlow-twins": Recipe(weight_decay=0.0),
    "vicreg": Recipe(lr=1e-2, weight_decay=0.0, momentum=0.0, views={"solarize": 0.1}),
    "vae": Recipe("adamw", lr=1e-4, weight_decay=0.0),
    "mae": Recipe("adamw", lr=9e-4, weight_decay=0.05),
    "aim": Recipe("adamw", lr=1.5e-4, weight_decay=0.05),
    "bigan": Recipe("adamw", lr=2e-4, weight_decay=0.0, momentum=0.5),
    "flow": Recipe("adamw", lr=1e-3, weight_decay=0.0),
}
"""Optimisers of the published scripts (section 3.3 and 3.4); the flow's is our choice."""

QUICK_LR = {"vae": 1e-3, "mae": 2e-3, "aim": 2e-3, "bigan": 5e-4, "flow": 1e-3, "dino": 1e-3}
"""Learning rates of the quick preset (AdamW, decay 1e-4); 2e-3 for all others."""


TRAINING: dict[str, dict[str, dict[str, Any]]] = {
    "pairs": {
        "quick": {
            "epochs": 4,
            "batch_size": 96,
            "lr": 1e-3,
            "warmup": 0.05,
            "optimizer": "adamw",
            "weight_decay": 1e-2,
            "augment": "handwriting",
        },
        "paper": {
            "epochs": 200,
            "batch_size": 256,
            "lr": 1e-3,
            "warmup": 0.05,
            "optimizer": "adamw",
            "weight_decay": 0.0,
            "augment": "handwriting",
        },
    },
    "writers": {
        "quick": {
            "epochs": 25,
            "batch_size": 128,
            "lr": 2e-3,
            "warmup": 0.15,
            "optimizer": "adamw",
            "weight_decay": 5e-2,
            "augment": "handwriting",
        },
        "paper": {
            "epochs": 100,
            "batch_size": 256,
            "lr": 2e-3,
            "warmup": 0.15,
            "optimizer": "adamw",
            "weight_decay": 5e-2,
            "augment": "handwriting",
        },
    },
    "fitted": {"quick": {"batch_size": 256}, "paper": {"batch_size": 256}},
}
"""Training with labels, by objective; the paper trains pairs with Adam, writers are our choice."""

PRETRAINING: dict[str, dict[str, Any]] = {
    "quick": {"epochs": 3, "batch_size": 128, "warmup": 0.05},
    "paper": {"epochs": 100, "batch_size": 256, "warmup": 0.05},
}
"""Length of pre-training."""

ENCODER: dict[str, dict[str, Any]] = {
    "quick": {"encoder": "resnet-layout", "width": 16},
    "paper": {"encoder": "resnet18", "width": 32},
}
"""Encoder of the methods that compare views, and of the VAE."""


def pretraining_presets(method: str) -> dict[str, dict[str, Any]]:
    """Return what holds for pre-training with a method, by preset.

    Args:
        method: one of `METHODS`.
    """
    presets = {}
    for preset, length in PRETRAINING.items():
        recipe = recipe_of(method, preset)
        presets[preset] = length | {
            "lr": recipe.lr,
            "optimizer": recipe.optimizer,
            "weight_decay": recipe.weight_decay,
        }
    return presets


def recipe_of(method: str, preset: str) -> Recipe:
    """Return the recipe of a method.

    Args:
        method: one of `METHODS`.
        preset: quick or paper.
    """
    paper = PAPER[method]
    if preset == "paper":
        return paper
    momentum = paper.momentum if method == "bigan" else 0.9
    lr = QUICK_LR.get(method, 2e-3)
    return Recipe("adamw", lr=lr, weight_decay=1e-4, momentum=momentum, views=paper.views)
