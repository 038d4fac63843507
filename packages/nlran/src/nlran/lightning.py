"""The LightningModule that trains any network of this package on scans."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
from lightning.pytorch import LightningModule
from papercommons.optimization import stop_if_diverged, with_warmup_cosine
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, AdamW, Optimizer
from torchmetrics import CatMetric, MeanMetric

from nlran.data import Batch
from nlran.evaluation import classification_numbers
from nlran.networks import Variant, create_network


class Prediction(NamedTuple):
    """Logits of one batch.

    Attributes:
        indices: number of each scan in its set, int64, shape (B,).
        logits: float32, shape (B, C).
    """

    indices: Tensor
    logits: Tensor


class NLRANModule(LightningModule):
    """Trains a network with cross-entropy; AdamW or SGD, warm-up and cosine.

    Batches are `nlran.data.Batch` or plain (volumes, target). Logs train/loss and train/accuracy,
    and of the val split val/loss, val/accuracy, val/auc and val/f1 (macro; NaN where a class is
    absent), likewise test/.

    Args:
        model: a network with ``forward``, or a name for `create_network`.
        num_classes: C, >= 2.
        variant: tiny, base or large, for NL-RAN and its ablations.
        network_options: further arguments of `create_network`.
        lr: peak learning rate, > 0.
        weight_decay: of the optimiser.
        optimizer: ``adamw``, or ``sgd`` with momentum 0.9.
        warmup: share of all steps over which the learning rate rises, in [0, 1).
        label_smoothing: in [0, 1).
        class_weights: C weights of the loss, or None.

    Raises:
        ValueError: unknown network, or a number out of range.
    """

    def __init__(
        self,
        model: nn.Module | str = "nlran",
        num_classes: int = 3,
        *,
        variant: Variant = "base",
        network_options: Mapping[str, Any] | None = None,
        lr: float = 1e-4,
        weight_decay: float = 1e-2,
        optimizer: Literal["adamw", "sgd"] = "adamw",
        warmup: float = 0.05,
        label_smoothing: float = 0.0,
        class_weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        if lr <= 0:
            raise ValueError(f"lr must be > 0, got {lr}")
        if not (0 <= warmup < 1 and 0 <= label_smoothing < 1):
            raise ValueError(
                f"warmup and label_smoothing must be in [0, 1), got {warmup}, {label_smoothing}"
            )
        if optimizer not in ("adamw", "sgd"):
            raise ValueError(f"optimizer must be adamw or sgd, got {optimizer}")
        if class_weights is not None and len(class_weights) != num_classes:
            raise ValueError(f"class_weights must be {num_classes} numbers, got {class_weights}")
        self.save_hyperparameters(ignore=["model"] if isinstance(model, nn.Module) else [])
        self.network = (
            create_network(model, num_classes, variant=variant, **(network_options or {}))
            if isinstance(model, str)
            else model
        )
        self.lr, self.weight_decay, self.optimizer_name = lr, weight_decay, optimizer
        self.warmup, self.label_smoothing = warmup, label_smoothing
        self.class_weights: Tensor | None
        weights = None if class_weights is None else torch.tensor(class_weights)
        self.register_buffer("class_weights", weights, persistent=False)
        self.train_loss = MeanMetric(nan_strategy="disable")  # a loss that is not finite must show
        self.train_accuracy = MeanMetric()
        self.seen_logits = CatMetric(nan_strategy="disable")
        self.seen_target = CatMetric(nan_strategy="disable")

    def forward(self, volumes: Tensor, slices: Tensor | None = None) -> Tensor:
        """Return the logits, shape (B, C).

        Args:
            volumes: scans in [0, 1], float, shape (B, 1, D, H, W).
            slices: slices of each scan where they differ, int64, shape (B,).
        """
        return self.network(volumes) if slices is None else self.network(volumes, slices)

    def training_step(self, batch: Batch | Sequence[Tensor], batch_idx: int) -> Tensor:
        """Return the loss of one batch, a float32 scalar.

        Args:
            batch: a `Batch`, or volumes (B, 1, D, H, W) in [0, 1] and target (B,).
            batch_idx: its number, not used.
        """
        batch = as_batch(batch)
        logits = self(batch.volumes, batch.slices).float()
        loss = F.cross_entropy(
            logits, batch.target, self.class_weights, label_smoothing=self.label_smoothing
        )
        right = (logits.detach().argmax(1) == batch.target).float()
        self.train_loss.update(loss.detach(), len(right))
        self.train_accuracy.update(right)
        return loss

    def on_train_epoch_end(self) -> None:
        """Log the epoch's means; a loss that is not finite ends the run."""
        loss = self.train_loss.compute()
        stop_if_diverged(self, loss)
        self.log("train/loss", loss)
        self.log("train/accuracy", self.train_accuracy.compute())
        self.train_loss.reset()
        self.train_accuracy.reset()

    def on_validation_epoch_start(self) -> None:
        """Forget what was seen; here, since states made in inference mode cannot grow in fit."""
        self.seen_logits.reset()
        self.seen_target.reset()

    def on_test_epoch_start(self) -> None:
        """Forget what was seen."""
        self.on_validation_epoch_start()

    def validation_step(self, batch: Batch | Sequence[Tensor], batch_idx: int) -> None:
        """Keep the logits of one batch.

        Args:
            batch: a `Batch`, or volumes (B, 1, D, H, W) in [0, 1] and target (B,).
            batch_idx: its number, not used.
        """
        batch = as_batch(batch)
        self.seen_logits.update(self(batch.volumes, batch.slices).float())
        self.seen_target.update(batch.target.float())

    def on_validation_epoch_end(self) -> None:
        """Log the numbers of all scans seen, from all processes."""
        self._log_numbers("val")

    def test_step(self, batch: Batch | Sequence[Tensor], batch_idx: int) -> None:
        """Keep the logits of one batch.

        Args:
            batch: a `Batch`, or volumes (B, 1, D, H, W) in [0, 1] and target (B,).
            batch_idx: its number, not used.
        """
        self.validation_step(batch, batch_idx)

    def on_test_epoch_end(self) -> None:
        """Log the numbers of all scans seen, from all processes."""
        self._log_numbers("test")

    def _log_numbers(self, split: str) -> None:
        logits: Any = self.seen_logits.compute()
        target: Any = self.seen_target.compute()
        numbers = classification_numbers(logits.softmax(1), target.long())
        self.log_dict(
            {
                f"{split}/{name}": numbers[key].float().item()
                for name, key in {
                    "loss": "nll",
                    "accuracy": "accuracy",
                    "auc": "macro_auc",
                    "f1": "macro_f1",
                }.items()
            }
        )

    def predict_step(self, batch: Batch | Sequence[Tensor], batch_idx: int) -> Prediction:
        """Return the logits of one batch, on the CPU.

        Args:
            batch: a `Batch`, or volumes (B, 1, D, H, W) in [0, 1] and target (B,).
            batch_idx: its number, not used.
        """
        batch = as_batch(batch)
        logits = self(batch.volumes, batch.slices).float()
        return Prediction(batch.indices.cpu(), logits.cpu())

    def configure_optimizers(self) -> Any:
        """Return the optimiser and its schedule, stepped after each batch."""
        parameters = [p for p in self.parameters() if p.requires_grad]
        optimizer: Optimizer
        if self.optimizer_name == "adamw":
            optimizer = AdamW(parameters, lr=self.lr, weight_decay=self.weight_decay)
        else:
            optimizer = SGD(parameters, lr=self.lr, momentum=0.9, weight_decay=self.weight_decay)
        return with_warmup_cosine(optimizer, self, self.warmup)


def as_batch(batch: Batch | Sequence[Tensor]) -> Batch:
    """Return a `Batch`; plain (volumes, target) of anybody's loader count their own scans.

    Args:
        batch: a `Batch`, or volumes (B, 1, D, H, W) and target (B,).
    """
    if isinstance(batch, Batch):
        return batch
    volumes, target = batch
    return Batch(volumes, target, torch.arange(len(target)))
