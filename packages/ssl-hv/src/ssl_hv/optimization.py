"""Optimiser, schedule, and the end of a run that diverged."""

from __future__ import annotations

import math
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from ssl_hv.recipes import Recipe


def stop_if_diverged(module: LightningModule) -> None:
    """Raise RuntimeError if the mean loss of the epoch is not finite."""
    loss = module.trainer.callback_metrics.get("train/loss")
    if loss is not None and not torch.isfinite(loss):
        raise RuntimeError(
            f"training diverged: the mean loss of epoch {module.current_epoch + 1} is not finite; "
            "take a smaller --lr, or --precision 32-true"
        )


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


def with_schedule(optimizer: Optimizer, module: Any) -> dict[str, Any]:
    """Return what `configure_optimizers` gives: a line up, then half a cosine down, per step."""
    steps = int(module.trainer.estimated_stepping_batches)
    rising = round(module.warmup * steps)

    def share(step: int) -> float:
        if step < rising:
            return (step + 1) / rising
        return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))

    schedule = {"scheduler": LambdaLR(optimizer, share), "interval": "step"}
    return {"optimizer": optimizer, "lr_scheduler": schedule}
