"""The LightningModule that trains a network on faces with partly known labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol

import torch
from lightning.pytorch import LightningModule
from papercommons.metrics.roc import weighted_auc
from papercommons.optimization import stop_if_diverged
from torch import Tensor
from torch.optim import Adam, AdamW
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, StepLR
from torchmetrics import CatMetric, MeanMetric

from semforge.auto_lambda import AutoLambda, Form
from semforge.graph import LabelGraph, RootPrior
from semforge.heads import HeadName
from semforge.inference import UNKNOWN
from semforge.losses import Loss, task_losses
from semforge.model import Embedding, SemForgeNet

Weighting = Literal["equal", "autol"]


class Faces(Protocol):
    """What batches must have; `semforge.data.FaceBatch` does.

    Attributes:
        images: RGB in [0, 1], float32, shape (N, 3, S, S).
        labels: 0, 1 or 2 = unknown, int8, shape (N, n) with the nodes of the graph.
        names: of the images.
        videos: which video each is from.
    """

    @property
    def images(self) -> Tensor: ...  # noqa: D102
    @property
    def labels(self) -> Tensor: ...  # noqa: D102
    @property
    def names(self) -> Sequence[str]: ...  # noqa: D102
    @property
    def videos(self) -> Sequence[str]: ...  # noqa: D102


class Prediction(NamedTuple):
    """Scores of one batch, on the CPU.

    Attributes:
        names: of the images.
        videos: which video each is from.
        labels: 0, 1 or 2 = unknown, int8, shape (N, n of the graph).
        scores: float32, shape (N, n of the head).
    """

    names: list[str]
    videos: list[str]
    labels: Tensor
    scores: Tensor


class SemForgeModule(LightningModule):
    """Trains `SemForgeNet`, by default as the paper's Xception: Adam 1e-4, halved every 5 epochs.

    Batches are `Faces`, or, for ``autol``, a mapping of ``train`` and ``meta`` to `Faces` (a
    CombinedLoader makes them); meta batches come from a held-out split. Logs train/loss and
    train/loss_LEVEL, of the val split val/loss, val/auc (of the root) and val/auc_NODE over the
    images whose label is known (NaN without both classes), likewise test/; and lambda/LEVEL.

    Args:
        net: a network, or a name for its backbone.
        graph: of a named backbone, see `SemForgeNet`.
        head: see `SemForgeNet`.
        embedding: see `SemForgeNet`.
        root_prior: see `SemForgeNet`.
        dropout: see `SemForgeNet`.
        image_size: see `SemForgeNet`.
        pretrained: see `SemForgeNet`.
        loss: ``bce``, ``fidelity`` or ``nll``, see `task_losses`.
        weighting: of the levels: ``equal``, or ``autol`` for `AutoLambda`.
        lambda_lr: rate of the weights of the levels.
        lambda_init: their first value.
        lambda_min: they are held at or above it, or None.
        lambda_every: batches between their steps.
        lambda_form: ``exact`` or ``finite``, see `AutoLambda`.
        lr: learning rate, > 0.
        weight_decay: >= 0.
        optimizer: ``adam`` or ``adamw``.
        schedule: ``step`` multiplies the rate by `lr_decay` every `lr_step` epochs (the paper's);
            ``cosine`` takes it to 0 within `lr_step` epochs, and up again (the follow-up's).
        lr_step: epochs, >= 1.
        lr_decay: in (0, 1]; 1 keeps the rate.

    Raises:
        ValueError: a number out of range, or Auto-lambda with a single loss.
    """

    def __init__(
        self,
        net: SemForgeNet | str = "legacy_xception",
        graph: LabelGraph | Mapping[str, Any] | str = "ffsc",
        head: HeadName = "graph",
        *,
        embedding: Embedding = "linear",
        root_prior: RootPrior = "none",
        dropout: float | None = None,
        image_size: int | None = None,
        pretrained: bool | str = False,
        loss: Loss = "bce",
        weighting: Weighting = "equal",
        lambda_lr: float = 1e-3,
        lambda_init: float = 1.0,
        lambda_min: float | None = None,
        lambda_every: int = 1,
        lambda_form: Form = "exact",
        lr: float = 1e-4,
        weight_decay: float = 0.0,
        optimizer: Literal["adam", "adamw"] = "adam",
        schedule: Literal["step", "cosine"] = "step",
        lr_step: int = 5,
        lr_decay: float = 0.5,
    ) -> None:
        super().__init__()
        if lr <= 0 or weight_decay < 0:
            raise ValueError(f"lr must be > 0 and weight_decay >= 0, got {lr}, {weight_decay}")
        if lr_step < 1 or not 0 < lr_decay <= 1:
            raise ValueError(
                f"lr_step must be >= 1 and lr_decay in (0, 1], got {lr_step}, {lr_decay}"
            )
        if optimizer not in ("adam", "adamw"):
            raise ValueError(f"optimizer must be adam or adamw, got {optimizer}")
        if schedule not in ("step", "cosine"):
            raise ValueError(f"schedule must be step or cosine, got {schedule}")
        if weighting not in ("equal", "autol"):
            raise ValueError(f"weighting must be equal or autol, got {weighting}")
        self.save_hyperparameters(ignore=["graph"] if isinstance(net, str) else ["net", "graph"])
        self.net = (
            net
            if isinstance(net, SemForgeNet)
            else SemForgeNet(
                net,
                graph,
                head,
                embedding=embedding,
                root_prior=root_prior,
                dropout=dropout,
                image_size=image_size,
                pretrained=pretrained,
            )
        )
        if isinstance(net, str):
            self.save_hyperparameters({"graph": self.net.graph.to_dict()})
        self.loss = loss
        self.levels = ("all",) if loss == "nll" else self.net.head.levels
        self.auto_lambda: AutoLambda | None = None
        if weighting == "autol":
            if len(self.levels) < 2:
                raise ValueError(
                    f"weighting autol weighs several losses; head {head} with loss {loss} has one"
                )
            self.auto_lambda = AutoLambda(
                len(self.levels),
                lr=lambda_lr,
                init=lambda_init,
                minimum=lambda_min,
                every=lambda_every,
                form=lambda_form,
            )
            self.automatic_optimization = False
        self.lr, self.weight_decay, self.optimizer_class = (
            lr,
            weight_decay,
            {"adam": Adam, "adamw": AdamW}[optimizer],
        )
        self.schedule, self.lr_step, self.lr_decay = schedule, lr_step, lr_decay
        self.seen_loss = MeanMetric(nan_strategy="disable")
        self.seen_odds = CatMetric(nan_strategy="disable")
        self.seen_labels = CatMetric(nan_strategy="disable")

    def forward(self, images: Tensor) -> Tensor:
        """Return scores, float, shape (N, n).

        Args:
            images: RGB in [0, 1], float, shape (N, 3, S, S).
        """
        return self.net(self.net.normalised(images))

    def objective(self, scores: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of each level, see `task_losses`.

        Args:
            scores: of the nodes, float, shape (N, n).
            labels: 0, 1 or 2 = unknown, shape (N, n).
        """
        return task_losses(self.net.head, scores, labels, loss=self.loss)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor | None:
        """Return the loss of one batch; with Auto-lambda, take the step."""
        faces: Faces = batch["train"] if isinstance(batch, Mapping) else batch
        if self.auto_lambda is None:
            losses = self.objective(self(faces.images), faces.labels)
            self._log_losses(losses.detach(), losses.detach().sum(), len(faces.images))
            return losses.sum()
        self._step_with_weights(self.auto_lambda, batch, faces, batch_idx)
        return None

    def _step_with_weights(
        self, auto_lambda: AutoLambda, batch: Any, faces: Faces, batch_idx: int
    ) -> None:
        optimizer: Any = self.optimizers()[0]  # type: ignore[index]
        images = self.net.normalised(faces.images)
        if auto_lambda.due(batch_idx):
            if not isinstance(batch, Mapping) or "meta" not in batch:
                raise ValueError(
                    "Auto-lambda needs held-out images: batches must be a mapping with train and "
                    "meta"
                )
            meta = (self.net.normalised(batch["meta"].images), batch["meta"].labels)
            total, losses = auto_lambda.update(
                self.net, self.objective, (images, faces.labels), meta, optimizer.optimizer
            )
        else:
            of_levels = self.objective(self.net(images), faces.labels)
            total, losses = auto_lambda.weighted(of_levels), of_levels.detach()
        optimizer.zero_grad()
        self.manual_backward(total)
        optimizer.step()
        self._log_losses(losses, total.detach(), len(images))

    def _log_losses(self, losses: Tensor, total: Tensor, count: int) -> None:
        of_levels = zip(self.levels, losses.unbind(), strict=True)
        self.log_dict(
            {"train/loss": total, **{f"train/loss_{level}": loss for level, loss in of_levels}},
            on_step=False,
            on_epoch=True,
            sync_dist=True,
            batch_size=count,
        )

    def on_train_epoch_end(self) -> None:
        """Log the weights of the levels; a loss that is not finite ends the run."""
        stop_if_diverged(self)
        if self.auto_lambda is not None:
            weights = self.auto_lambda.weights.unbind()
            self.log_dict({f"lambda/{k}": w for k, w in zip(self.levels, weights, strict=True)})
            self.lr_schedulers().step()  # type: ignore[union-attr]

    def on_validation_epoch_start(self) -> None:
        """Forget what was seen; here, since states made in inference mode cannot grow in fit."""
        for metric in (self.seen_loss, self.seen_odds, self.seen_labels):
            metric.reset()

    def on_test_epoch_start(self) -> None:
        """Forget what was seen."""
        self.on_validation_epoch_start()

    def validation_step(self, batch: Faces, batch_idx: int) -> None:
        """Keep the scores of one batch."""
        scores = self(batch.images).float()
        self.seen_loss.update(self.objective(scores, batch.labels).sum(), len(scores))
        on, off = self.net.log_probabilities(scores)
        self.seen_odds.update(on - off)
        self.seen_labels.update(batch.labels.float())

    def on_validation_epoch_end(self) -> None:
        """Log the numbers of all images seen, from all processes."""
        self._log_numbers("val")

    def test_step(self, batch: Faces, batch_idx: int) -> None:
        """Keep the scores of one batch."""
        self.validation_step(batch, batch_idx)

    def on_test_epoch_end(self) -> None:
        """Log the numbers of all images seen, from all processes."""
        self._log_numbers("test")

    def _log_numbers(self, split: str) -> None:
        odds: Any = self.seen_odds.compute()
        labels: Any = self.seen_labels.compute()
        aucs = node_aucs(odds, labels)
        numbers = dict(zip((f"auc_{node}" for node in self.net.nodes), aucs, strict=True))
        numbers = {"loss": self.seen_loss.compute(), "auc": aucs[0], **numbers}
        self.log_dict({f"{split}/{name}": number for name, number in numbers.items()})

    def predict_step(self, batch: Faces, batch_idx: int) -> Prediction:
        """Return the scores of one batch, on the CPU."""
        scores = self(batch.images).float().cpu()
        return Prediction(list(batch.names), list(batch.videos), batch.labels.cpu(), scores)

    def configure_optimizers(self) -> Any:
        """Return the optimiser, its schedule per epoch, and that of the weights of the levels."""
        parameters = [p for p in self.net.parameters() if p.requires_grad]
        optimizer = self.optimizer_class(parameters, lr=self.lr, weight_decay=self.weight_decay)
        schedule: LRScheduler
        if self.schedule == "step":
            schedule = StepLR(optimizer, self.lr_step, self.lr_decay)
        else:
            schedule = CosineAnnealingLR(optimizer, self.lr_step)
        if self.auto_lambda is None:
            return {"optimizer": optimizer, "lr_scheduler": schedule}
        return [optimizer, self.auto_lambda.optimizer], [schedule]


def node_aucs(scores: Tensor, labels: Tensor) -> Tensor:
    """Return the area under the ROC curve of each node over the images whose label is known.

    Args:
        scores: any increasing function of p, float, shape (B, n).
        labels: 0, 1 or 2 = unknown, shape (B, N) with N >= n.

    Returns:
        float32, shape (n,); NaN where a node has no known positive or no known negative, and
        everywhere if scores are not finite.
    """
    aucs = []
    if not torch.isfinite(scores).all():
        return torch.full((scores.shape[1],), torch.nan)
    for score, label in zip(scores.T, labels.T, strict=False):
        known = label != UNKNOWN
        aucs.append(weighted_auc(score[known], label[known] == 1)[0])
    return torch.stack(aucs).float()
