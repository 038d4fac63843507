"""The optimiser of a recipe."""

from __future__ import annotations

from typing import Any

from torch.optim import SGD, AdamW, Optimizer

from ssl_hv.presets import Recipe


def make_optimizer(parameters: Any, recipe: Recipe) -> Optimizer:
    """Return the optimiser of a recipe.

    Args:
        parameters: a list of parameters, or of groups.
        recipe: its numbers.
    """
    if recipe.optimizer == "sgd":
        return SGD(
            parameters, lr=recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay
        )
    betas = (recipe.momentum, 0.999)
    return AdamW(parameters, lr=recipe.lr, betas=betas, weight_decay=recipe.weight_decay)
