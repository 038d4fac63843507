"""The LightningModule that trains DeFI-Net; wiring, no maths (section 3.7)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from lightning.pytorch import LightningModule
from papercommons.metrics.localization import batch_metrics
from papercommons.optimization import stop_if_diverged, with_warmup_cosine
from torch import Tensor
from torch.optim import Adam
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torchmetrics import MeanMetric, MetricCollection

from defi_net.edges import edge_band, edge_label
from defi_net.losses import BCE, boundary_loss, structure_loss
from defi_net.model import DeFINet

if TYPE_CHECKING:
    from defi_net.data import MaskBatch

Schedule = Literal["plateau", "cosine", "constant"]
EdgeKind = Literal["inner", "band"]

CLAMP: dict[str, Any] = {"gradient_clip_val": 0.5, "gradient_clip_algorithm": "value"}
"""Options of the Trainer: the paper clamps each element of the gradient to +-0.5."""

JUDGED = ("loss", "auc", "f1", "iou", "fpr")


class DeFINetModule(LightningModule):
    """Trains a network on the structure loss of masks and the boundary loss of their edges.

    Batches are `defi_net.data.MaskBatch`. Logs train/loss, train/mask_loss and train/edge_loss; of
    validation val/loss, and the means over images of val/auc, val/f1 and val/iou (images with
    forged pixels; the AUC is undefined where all are) and val/fpr (images without); likewise test/.
    The Trainer gets `CLAMP`, as in the paper.

    Args:
        model: what is trained; None is the paper's network.
        lr: learning rate of Adam, > 0. Paper: 2e-4.
        mask_weight: of the structure loss, >= 0. Paper: 5.
        edge_weight: of the boundary loss, >= 0. Paper: 1.
        bce: see `defi_net.losses.structure_loss`.
        edges: ``inner`` rim of the mask, the paper's, or a ``band`` on both sides.
        schedule: ``plateau`` halves the rate after `patience` epochs without a better `monitor`,
            the paper's; ``cosine`` rises over `warmup` and falls to 0; or ``constant``.
        patience: of ``plateau``, in epochs. Paper: 5.
        warmup: share of the steps of ``cosine`` over which the rate rises, in [0, 1).
        monitor: what ``plateau`` watches; a name that ends in loss is to fall. Without validation
            give train/loss. Paper: val/auc.

    Raises:
        ValueError: unknown name, or a number out of range.
    """

    def __init__(
        self,
        model: DeFINet | None = None,
        *,
        lr: float = 2e-4,
        mask_weight: float = 5.0,
        edge_weight: float = 1.0,
        bce: BCE = "official",
        edges: EdgeKind = "inner",
        schedule: Schedule = "plateau",
        patience: int = 5,
        warmup: float = 0.1,
        monitor: str = "val/auc",
    ) -> None:
        super().__init__()
        if lr <= 0 or patience < 0 or not 0 <= warmup < 1:
            raise ValueError(
                "lr must be > 0, patience >= 0 and warmup in [0, 1), "
                f"got {lr}, {patience} and {warmup}"
            )
        if mask_weight < 0 or edge_weight < 0 or mask_weight + edge_weight == 0:
            raise ValueError(
                f"weights must be >= 0, one above, got mask {mask_weight} and edge {edge_weight}"
            )
        for name, value, kind in (
            ("bce", bce, BCE),
            ("edges", edges, EdgeKind),
            ("schedule", schedule, Schedule),
        ):
            if value not in get_args(kind):
                raise ValueError(f"{name} must be one of {', '.join(get_args(kind))}, got {value}")
        self.save_hyperparameters(ignore=["model"])
        self.model = DeFINet() if model is None else model
        self.lr, self.schedule, self.patience, self.warmup = lr, schedule, patience, warmup
        self.mask_weight, self.edge_weight, self.monitor = mask_weight, edge_weight, monitor
        self.bce: BCE = bce
        self.label = edge_label if edges == "inner" else edge_band
        self.judged = MetricCollection(
            {name: MeanMetric(nan_strategy="ignore") for name in JUDGED}, compute_groups=False
        )

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return edge and mask logits, each (N, 1, H, W).

        Args:
            images: float in [0, 1], shape (N, 3, H, W).
        """
        return self.model(self.model.normalize(images))

    def losses(self, logits: tuple[Tensor, Tensor], masks: Tensor) -> dict[str, Tensor]:
        """Return ``loss``, the weighted sum, ``mask_loss`` and ``edge_loss``, scalars.

        Args:
            logits: of `forward`.
            masks: truth, float in [0, 1], shape (N, 1, H, W).
        """
        edge, mask = logits
        mask_loss = structure_loss(mask, masks, bce=self.bce)
        edge_loss = boundary_loss(edge, self.label(masks), bce=self.bce)
        loss = self.mask_weight * mask_loss + self.edge_weight * edge_loss
        return {"loss": loss, "mask_loss": mask_loss, "edge_loss": edge_loss}

    def training_step(self, batch: MaskBatch, batch_idx: int) -> Tensor:
        """Return the loss of one batch."""
        losses = self.losses(self(batch.images), batch.masks)
        self.log_dict(
            {f"train/{name}": value.detach() for name, value in losses.items()},
            on_step=False,
            on_epoch=True,
            sync_dist=True,
            batch_size=len(batch.images),
        )
        return losses["loss"]

    def on_train_epoch_end(self) -> None:
        """End the run if a loss is not finite."""
        stop_if_diverged(self)

    def on_validation_epoch_start(self) -> None:
        """Forget what was seen; here, since states made in inference mode cannot grow in fit."""
        for metric in self.judged.values():
            metric.reset()

    def on_test_epoch_start(self) -> None:
        """Forget what was seen."""
        self.on_validation_epoch_start()

    def validation_step(self, batch: MaskBatch, batch_idx: int) -> None:
        """Judge one batch."""
        logits = self(batch.images)
        probability, masks = logits[1].float().sigmoid().nan_to_num(0.5), batch.masks
        accused = (probability > 0.5).float().mean((1, 2, 3))
        authentic = ~(masks > 0.5).any(dim=3).any(dim=2).any(dim=1)
        values = batch_metrics(probability, masks)
        values["fpr"] = torch.where(authentic, accused, torch.nan)
        values["loss"] = self.losses(logits, masks)["loss"].expand(len(masks))
        for name, metric in self.judged.items():
            metric.update(values[name])

    def on_validation_epoch_end(self) -> None:
        """Log the means over all images, of all processes."""
        self._log_judged("val")

    def test_step(self, batch: MaskBatch, batch_idx: int) -> None:
        """Judge one batch."""
        self.validation_step(batch, batch_idx)

    def on_test_epoch_end(self) -> None:
        """Log the means over all images, of all processes."""
        self._log_judged("test")

    def _log_judged(self, split: str) -> None:
        for name, metric in self.judged.items():
            self.log(f"{split}/{name}", metric.compute())

    def configure_optimizers(self) -> Any:
        """Return Adam and its schedule."""
        optimizer = Adam(self.model.parameters(), lr=self.lr)
        if self.schedule == "constant":
            return optimizer
        if self.schedule == "plateau":
            mode: Any = "min" if self.monitor.endswith("loss") else "max"
            plateau = ReduceLROnPlateau(optimizer, mode, factor=0.5, patience=self.patience)
            schedule = {"scheduler": plateau, "monitor": self.monitor}
            return {"optimizer": optimizer, "lr_scheduler": schedule}
        return with_warmup_cosine(optimizer, self, self.warmup)
