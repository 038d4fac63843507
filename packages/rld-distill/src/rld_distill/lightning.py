"""LightningModules: a student that learns from labels and teacher, and a plain classifier."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

import torch
from lightning.pytorch import LightningModule
from papercommons.errors import DataError
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD
from torch.optim.lr_scheduler import MultiStepLR
from torchmetrics import MeanMetric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassCalibrationError

from rld_distill.data import Batch
from rld_distill.losses import RLDLoss
from rld_distill.methods import create_recipe
from rld_distill.zoo import create_model


class Prediction(NamedTuple):
    """Logits of one batch.

    Attributes:
        indices: number of each image in its split, int64, shape (B,).
        logits: the student's, float32, shape (B, C).
        teacher_logits: the teacher's, float32, shape (B, C), or None without one.
    """

    indices: Tensor
    logits: Tensor
    teacher_logits: Tensor | None


class RLDModule(LightningModule):
    """Trains a student: ``ce_weight * CE + warm_up(epoch) * loss(student, teacher, target)``.

    Batches are `rld_distill.data.Batch` or plain (images, target). Logs train/loss, train/ce,
    train/distill, train/accuracy, train/teacher_wrong, train/scd, train/mcd and train/masked (the
    last three for RLD), val/loss, val/accuracy, and the test metrics of `classification_metrics`
    with agreement with the teacher and accuracy where it is right and where it is wrong. The
    teacher is neither saved nor changed; it runs in evaluation mode.

    Args:
        student: a network, or a name for `create_model`.
        teacher: a network (B, 3, H, W) -> (B, C), or None: logits come with the batch, or the
            method is ce.
        num_classes: C, >= 2.
        pretrained: begin with timm's or torchvision's published weights.
        method: rld, ce, kd, dkd, la, rc, lr, mlkd, nkd, ctkd, dist, ttm or wttm.
        loss_options: keyword arguments of the method's loss, see `rld_distill.methods`.
        loss: a module ``(student_logits, teacher_logits, target) -> scalar`` instead of the
            method's.
        ce_weight: weight of cross-entropy; None: the method's.
        warmup_epochs: the distillation term's weight in epoch e (from 1) is min(e / this, 1);
            0 for none. Only methods that the papers warm up use it.
        lr: of SGD. Paper: 0.05 on CIFAR, 0.01 for light students.
        momentum: of SGD, no Nesterov.
        weight_decay: on all parameters.
        milestones: epochs after which lr falls to a tenth.

    Raises:
        ValueError: unknown method or network, or an option out of range.
    """

    def __init__(
        self,
        student: nn.Module | str = "resnet8x4",
        teacher: nn.Module | None = None,
        num_classes: int = 100,
        *,
        pretrained: bool = False,
        method: str = "rld",
        loss_options: Mapping[str, Any] | None = None,
        loss: nn.Module | None = None,
        ce_weight: float | None = None,
        warmup_epochs: int = 20,
        lr: float = 0.05,
        momentum: float = 0.9,
        weight_decay: float = 5e-4,
        milestones: Sequence[int] = (150, 180, 210),
    ) -> None:
        super().__init__()
        if warmup_epochs < 0:
            raise ValueError(f"warmup_epochs must be >= 0 (0 is none), got {warmup_epochs}")
        injected = [
            n for n, v in (("student", student), ("loss", loss)) if isinstance(v, nn.Module)
        ]
        self.save_hyperparameters(ignore=["teacher", *injected])
        self.student = (
            create_model(student, num_classes, pretrained=pretrained)
            if isinstance(student, str)
            else student
        ).to(memory_format=torch.channels_last)
        recipe = create_recipe(method, **(loss_options or {}))
        self.loss = recipe.loss if loss is None else loss
        self.loss_takes_target = recipe.takes_target or loss is not None
        self.loss_weight = recipe.weight if loss is None else 1.0
        self.ce_weight = recipe.ce_weight if ce_weight is None else ce_weight
        self.warmup_epochs = warmup_epochs if recipe.warm_up or loss is not None else 0
        self.lr, self.momentum, self.weight_decay = lr, momentum, weight_decay
        self.milestones = list(milestones)
        self.num_classes = num_classes
        self.val_loss, self.val_accuracy = (
            MeanMetric(),
            MulticlassAccuracy(num_classes, average="micro"),
        )
        self.test_metrics = classification_metrics(num_classes)
        self.test_means = nn.ModuleDict(
            {n: MeanMetric() for n in ("nll", "agreement", "teacher_accuracy", *_SPLIT_NAMES)}
        )
        self._lr_now = lr
        self._seen_names: tuple[str, ...] = ()
        self._seen_sum, self._seen_count = torch.zeros(()), 0
        # Hidden from nn.Module: not saved, not in DDP's buckets, not among the parameters.
        self._teacher = (prepare_teacher(teacher),) if teacher is not None else ()

    def setup(self, stage: str) -> None:
        """Bring the teacher to where Lightning moves the student after this hook."""
        for teacher in self._teacher:
            teacher.to(self.trainer.strategy.root_device)

    def forward(self, images: Tensor) -> Tensor:
        """Return the student's logits, shape (B, C), for normalised images (B, 3, H, W)."""
        logits: Tensor = self.student(images.contiguous(memory_format=torch.channels_last))
        return logits

    def teacher_logits(self, batch: Batch) -> Tensor | None:
        """Return cached or fresh teacher logits, float32, shape (B, C), or None without teacher."""
        if batch.teacher_logits is not None:
            return batch.teacher_logits
        if not self._teacher:
            return None
        with torch.inference_mode():
            images = batch.images.contiguous(memory_format=torch.channels_last)
            logits: Tensor = self._teacher[0](images)
        return logits.float().clone()

    def on_train_epoch_start(self) -> None:
        """Note the learning rate, and tell a loss with a schedule of its own the epoch, from 1."""
        self._lr_now = self.trainer.optimizers[0].param_groups[0]["lr"]
        set_epoch = getattr(self.loss, "set_epoch", None)
        if set_epoch is not None:
            set_epoch(self.current_epoch + 1)

    def warm_up(self, epoch: int) -> float:
        """Return the weight of the distillation term in `epoch`, counted from 1."""
        return min(epoch / self.warmup_epochs, 1.0) if self.warmup_epochs else 1.0

    def training_step(self, batch: Batch | Sequence[Tensor], batch_idx: int) -> Tensor:
        """Return the training loss of one batch, a float32 scalar.

        Args:
            batch: a `Batch`, or images (B, 3, H, W) and target (B,).
            batch_idx: its number, for messages.
        """
        batch = as_batch(batch)
        logits = self(batch.images)
        target = batch.target
        ce = F.cross_entropy(logits.float(), target)
        total = self.ce_weight * ce
        seen = {"ce": ce, "accuracy": (logits.argmax(1) == target).float().mean()}
        if self.loss is not None:
            teacher = self.teacher_logits(batch)
            self._check(logits, teacher, batch_idx)
            assert teacher is not None
            if isinstance(self.loss, RLDLoss):
                terms = self.loss.terms(logits, teacher, target)
                distill = terms.loss
                above = teacher >= teacher.gather(1, target[:, None])
                masked = above.sum(1, dtype=torch.float32).mean()
                seen |= {"scd": terms.scd, "mcd": terms.mcd, "masked": masked}
            else:
                labels = (target,) if self.loss_takes_target else ()
                distill = self.loss_weight * self.loss(logits, teacher, *labels)
            total = total + self.warm_up(self.current_epoch + 1) * distill
            wrong = (teacher.argmax(1) != target).float().mean()
            seen |= {"distill": distill, "teacher_wrong": wrong}
        seen["loss"] = total
        weighted = torch.stack([value.detach().float() for value in seen.values()]) * len(target)
        self._seen_names = tuple(seen)
        self._seen_sum = weighted if self._seen_count == 0 else self._seen_sum + weighted
        self._seen_count += len(target)
        return total

    def on_train_epoch_end(self) -> None:
        """Log the epoch's means."""
        means = self._seen_sum / self._seen_count
        for name, mean in zip(self._seen_names, means, strict=True):
            self.log(f"train/{name}", mean, sync_dist=True)
        self._seen_count = 0
        self.log("lr", self._lr_now)

    def on_validation_epoch_start(self) -> None:
        """Forget what was seen; here, since states made in inference mode cannot grow in fit."""
        self.val_loss.reset()
        self.val_accuracy.reset()

    def validation_step(self, batch: Batch | Sequence[Tensor], batch_idx: int) -> None:
        """Add one batch to the val metrics.

        Args:
            batch: a `Batch`, or images (B, 3, H, W) and target (B,).
            batch_idx: its number, not used.
        """
        batch = as_batch(batch)
        logits = self(batch.images).float()
        self.val_loss.update(F.cross_entropy(logits, batch.target), len(batch.target))
        self.val_accuracy.update(logits, batch.target)

    def on_validation_epoch_end(self) -> None:
        """Log the val metrics."""
        self.log("val/loss", self.val_loss.compute())
        self.log("val/accuracy", self.val_accuracy.compute())

    def on_test_epoch_start(self) -> None:
        """Forget what was seen."""
        self.test_metrics.reset()
        for name in self.test_means:
            self._test_mean(name).reset()

    def test_step(self, batch: Batch | Sequence[Tensor], batch_idx: int) -> None:
        """Add one batch to the test metrics.

        Args:
            batch: a `Batch`, or images (B, 3, H, W) and target (B,).
            batch_idx: its number, not used.
        """
        batch = as_batch(batch)
        logits, target = self(batch.images).float(), batch.target
        self.test_metrics.update(logits.softmax(1), target)
        self._test_mean("nll").update(F.cross_entropy(logits, target), len(target))
        teacher = self.teacher_logits(batch)
        if teacher is None:
            return
        right = (logits.argmax(1) == target).float()
        teacher_right = (teacher.argmax(1) == target).float()
        self._test_mean("teacher_accuracy").update(teacher_right)
        self._test_mean("agreement").update((logits.argmax(1) == teacher.argmax(1)).float())
        self._test_mean("accuracy_teacher_right").update(right, teacher_right)
        self._test_mean("accuracy_teacher_wrong").update(right, 1 - teacher_right)

    def on_test_epoch_end(self) -> None:
        """Log the test metrics."""
        self.log_dict({f"test/{name}": v for name, v in self.test_metrics.compute().items()})
        for name in self.test_means:
            mean = self._test_mean(name)
            if mean.update_called:
                self.log(f"test/{name}", mean.compute())

    def _test_mean(self, name: str) -> MeanMetric:
        return cast(MeanMetric, self.test_means[name])

    def predict_step(self, batch: Batch | Sequence[Tensor], batch_idx: int) -> Prediction:
        """Return the logits of one batch, on the CPU.

        Args:
            batch: a `Batch`, or images (B, 3, H, W) and target (B,).
            batch_idx: its number, not used.
        """
        batch = as_batch(batch)
        teacher = self.teacher_logits(batch)
        return Prediction(
            batch.indices.cpu(),
            self(batch.images).float().cpu(),
            None if teacher is None else teacher.cpu(),
        )

    def configure_optimizers(self) -> Any:
        """Return SGD and its steps."""
        optimizer = SGD(
            [p for p in self.parameters() if p.requires_grad],
            lr=self.lr,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
        )
        return {"optimizer": optimizer, "lr_scheduler": MultiStepLR(optimizer, self.milestones)}

    def _check(self, logits: Tensor, teacher: Tensor | None, batch_idx: int) -> None:
        if teacher is None:
            raise ValueError("this method needs a teacher, or cached teacher logits in the batch")
        if logits.shape != teacher.shape:
            raise DataError(
                f"teacher gives {teacher.shape[1]} classes, student {logits.shape[1]}; "
                "they must agree"
            )
        looks = teacher.device.type == "cpu" or batch_idx == 0  # on CUDA each look waits for it
        if looks and not torch.isfinite(teacher).all():
            raise DataError(
                f"teacher logits of batch {batch_idx} in epoch {self.current_epoch + 1} "
                "are not finite; check the teacher's weights and its input"
            )


def as_batch(batch: Batch | Sequence[Tensor]) -> Batch:
    """Return a `Batch`; plain (images, target) of anybody's loader count their own images.

    Args:
        batch: a `Batch`, or images (B, 3, H, W) and target (B,).
    """
    if isinstance(batch, Batch):
        return batch
    images, target = batch
    return Batch(images, target, torch.arange(len(target)))


_SPLIT_NAMES = ("accuracy_teacher_right", "accuracy_teacher_wrong")


def classification_metrics(num_classes: int) -> MetricCollection:
    """Return top-1 and top-5 accuracy and calibration error (15 bins), from probabilities.

    Args:
        num_classes: C; top-5 is left out below 6 classes.
    """
    metrics: dict[str, Any] = {
        "accuracy": MulticlassAccuracy(num_classes, average="micro"),
        "ece": MulticlassCalibrationError(num_classes, n_bins=15),
    }
    if num_classes > 5:
        metrics["top5"] = MulticlassAccuracy(num_classes, average="micro", top_k=5)
    return MetricCollection(metrics)


def prepare_teacher(teacher: nn.Module) -> nn.Module:
    """Return the teacher in evaluation mode, without gradients, channels last."""
    teacher.eval().requires_grad_(requires_grad=False)
    return teacher.to(memory_format=torch.channels_last)


class RenormalizedTeacher(nn.Module):
    """A teacher that expects another normalisation than the student gets.

    Args:
        network: the teacher.
        mean: of each channel in [0, 1], as the images were normalised.
        std: likewise.
        own_mean: as the teacher's training images were normalised.
        own_std: likewise.
    """

    scale: Tensor
    shift: Tensor

    def __init__(
        self,
        network: nn.Module,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        own_mean: Sequence[float],
        own_std: Sequence[float],
    ) -> None:
        super().__init__()
        self.network = network
        given_mean, given_std, mean_, std_ = (
            torch.tensor(v).view(3, 1, 1) for v in (mean, std, own_mean, own_std)
        )
        self.register_buffer("scale", given_std / std_, persistent=False)
        self.register_buffer("shift", (given_mean - mean_) / std_, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits, (B, C), for images normalised the student's way, (B, 3, H, W)."""
        logits: Tensor = self.network(images * self.scale + self.shift)
        return logits
