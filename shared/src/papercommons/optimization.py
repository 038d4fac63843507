"""What LightningModules have in common: the learning rate's rise and fall, and a lost loss."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule


def with_warmup_cosine(
    optimizer: Optimizer, module: LightningModule, warmup: float
) -> dict[str, Any]:
    """Return what `configure_optimizers` gives: `warmup_cosine`, stepped after each batch.

    Args:
        optimizer: with the peak learning rates.
        module: attached to its trainer, which says how many steps there will be.
        warmup: share of the steps over which the rate rises, in [0, 1).
    """
    steps = int(module.trainer.estimated_stepping_batches)
    rising = round(warmup * steps)
    schedule = LambdaLR(optimizer, lambda step: warmup_cosine(step, rising, steps))
    return {
        "optimizer": optimizer,
        "lr_scheduler": {"scheduler": schedule, "interval": "step"},
    }


def warmup_cosine(step: int, rising: int, steps: int) -> float:
    """Return the share of the peak learning rate at a step: a line up, then half a cosine down.

    Args:
        step: from 0.
        rising: steps of the line.
        steps: all of them.
    """
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))


def stop_if_diverged(module: LightningModule, loss: Tensor | None = None) -> None:
    """End a run whose loss is lost; call it at the end of an epoch.

    Args:
        module: attached to its trainer.
        loss: mean of the epoch, a scalar; the logged train/loss if not given.

    Raises:
        RuntimeError: the loss is not finite.
    """
    if loss is None:
        loss = module.trainer.callback_metrics.get("train/loss")
    if loss is not None and not torch.isfinite(loss):
        raise RuntimeError(
            f"training diverged: the mean loss of epoch {module.current_epoch + 1} is not finite; "
            "take a smaller --lr, or --precision 32-true"
        )
