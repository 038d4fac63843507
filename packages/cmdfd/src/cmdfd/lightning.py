"""The LightningModule that trains the detector, with or without teachers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import torch
from lightning.pytorch import LightningModule
from papercommons.metrics.roc import weighted_auc
from papercommons.optimization import stop_if_diverged
from torch import Tensor, nn
from torch.optim import Adam
from torch.optim.lr_scheduler import ExponentialLR
from torchmetrics import CatMetric, MeanMetric

from cmdfd.data import AVBatch
from cmdfd.losses import (
    Distill,
    OverTime,
    Target,
    contrastive_loss,
    correlation,
    correlation_target,
    distillation_loss,
    frame_cross_entropy,
)
from cmdfd.model import CMDFDNet, CMDFDOutput
from cmdfd.one_stream import build_net
from cmdfd.teachers import ContentTeacher

Score = Literal["margin", "fake"]

_SEEN = ("scores", "labels", "right", "correlations")  # of clips, while validating


class Prediction(NamedTuple):
    """What is said of one batch, on the CPU.

    Attributes:
        names: of the clips.
        labels: 0 real, 1 fake, int64, shape (B,).
        scores: higher = more fake, float32, shape (B,).
        logits: of real and fake per frame, float32, shape (B, T, 2).
        correlation: c_t, how well mouth and voice go together, float32 in [0, 1], shape (B, T).
    """

    names: list[str]
    labels: Tensor
    scores: Tensor
    logits: Tensor
    correlation: Tensor


class CMDFDModule(LightningModule):
    """Trains `CMDFDNet`: ``L_ce + w_dist * L_dist + w_con * L_con``; Adam, 5 % less each epoch.

    Without a teacher it is the plain audio-visual classifier, L_ce alone. Logs train/loss, /ce,
    /distill, /contrast and /target (mean r); of the val split val/loss (L_ce), val/auc,
    val/accuracy, and val/correlation_real and /correlation_fake (mean c_t), likewise test/. The
    teacher is neither saved nor changed; it runs in evaluation mode, on the frames before
    augmentation.

    Args:
        net: a network, or arguments for one; None is the paper's.
        teacher: says what is heard and seen, or None.
        target: see `correlation_target`. Official: ``jeffreys``.
        distill: see `distillation_loss`. Official: ``all``.
        over_time: see `contrastive_loss`. Official: ``sum``.
        w_dist: weight of L_dist, >= 0. Paper: 1.
        w_con: weight of L_con, >= 0. Paper: 1.
        score: of a clip: ``margin``, the mean of fake minus real logits; ``fake``, the official
            code's mean fake logit.
        teacher_dropout: let the teacher's dropout act, as in the official code.
        lr: learning rate, > 0; the official 1e-5 begins with TalkNet's weights.
        lr_decay: factor per epoch, in (0, 1]. Paper: 0.95.

    Raises:
        ValueError: a number out of range, or an unknown way.
    """

    def __init__(
        self,
        net: CMDFDNet | Mapping[str, Any] | None = None,
        teacher: ContentTeacher | None = None,
        *,
        target: Target = "js",
        distill: Distill = "all",
        over_time: OverTime = "mean",
        w_dist: float = 1.0,
        w_con: float = 1.0,
        score: Score = "margin",
        teacher_dropout: bool = False,
        lr: float = 1e-4,
        lr_decay: float = 0.95,
    ) -> None:
        super().__init__()
        if lr <= 0 or not 0 < lr_decay <= 1 or w_dist < 0 or w_con < 0:
            raise ValueError(
                "lr must be > 0, lr_decay in (0, 1], w_dist and w_con >= 0, got "
                f"{lr}, {lr_decay}, {w_dist}, {w_con}"
            )
        for name, value, known in (
            ("target", target, ("js", "jeffreys")),
            ("distill", distill, ("all", "real")),
            ("over_time", over_time, ("mean", "sum")),
            ("score", score, ("margin", "fake")),
        ):
            if value not in known:
                raise ValueError(f"{name} must be {' or '.join(known)}, got {value!r}")
        self.save_hyperparameters(ignore=["teacher", "net"])
        self.net = net if isinstance(net, CMDFDNet) else build_net(net or {})
        self.save_hyperparameters({"net": dict(self.net.config)})
        self.target, self.distill, self.over_time = target, distill, over_time
        self.w_dist, self.w_con, self.score = w_dist, w_con, score
        self.lr, self.lr_decay = lr, lr_decay
        # in a tuple, so that it is neither a part of this module nor of its checkpoints
        self._teacher = () if teacher is None else (_frozen(teacher, dropout=teacher_dropout),)
        self.seen_loss = MeanMetric(nan_strategy="disable")
        self.seen = nn.ModuleDict({name: CatMetric(nan_strategy="disable") for name in _SEEN})

    def setup(self, stage: str) -> None:
        """Bring the teacher to where Lightning moves the network after this hook."""
        for teacher in self._teacher:
            teacher.to(self.trainer.strategy.root_device)

    def forward(self, mfcc: Tensor, frames: Tensor) -> CMDFDOutput:
        """Return what the network says, see `CMDFDNet.forward`.

        Args:
            mfcc: of the voice, float, shape (B, 4T, 13).
            frames: grey face crops, 0 to 255, shape (B, T, H, W).
        """
        return self.net(mfcc, frames)

    def agreement(self, batch: AVBatch) -> Tensor | None:
        """Return the target r of each frame, float32, shape (B, T), or None without a teacher."""
        if not self._teacher:
            return None
        with torch.no_grad():
            heard, seen = self._teacher[0](batch.waveform, batch.teacher_video)
            return correlation_target(heard, seen, target=self.target)

    def training_step(self, batch: AVBatch, batch_idx: int) -> Tensor:
        """Return the loss of one batch."""
        out = self(batch.mfcc, batch.frames)
        loss = frame_cross_entropy(out.logits, batch.labels)
        seen = {"ce": loss.detach()}
        r = self.agreement(batch)
        if r is not None:
            s = correlation(out.audio, out.visual)
            distill = distillation_loss(s, r, batch.labels, distill=self.distill)
            contrast = contrastive_loss(s, r, batch.labels, over_time=self.over_time)
            loss = loss + self.w_dist * distill + self.w_con * contrast
            seen |= {"distill": distill.detach(), "contrast": contrast.detach(), "target": r.mean()}
        self.log_dict(
            {f"train/{name}": value for name, value in {"loss": loss.detach(), **seen}.items()},
            on_step=False,
            on_epoch=True,
            sync_dist=True,
            batch_size=len(batch.labels),
        )
        return loss

    def on_train_epoch_end(self) -> None:
        """End the run if its loss is not finite."""
        stop_if_diverged(self)

    def clip_scores(self, logits: Tensor) -> Tensor:
        """Return the score of each clip, (B, T, 2) -> float32 (B,)."""
        real, fake = logits.float().mean(1).unbind(1)
        return fake - real if self.score == "margin" else fake

    def on_validation_epoch_start(self) -> None:
        """Forget what was seen: here, as states reset in inference mode could not train on."""
        metrics: Any = [self.seen_loss, *self.seen.values()]
        for metric in metrics:
            metric.reset()

    def on_test_epoch_start(self) -> None:
        """Forget what was seen."""
        self.on_validation_epoch_start()

    def validation_step(self, batch: AVBatch, batch_idx: int) -> None:
        """Keep the scores of one batch."""
        out = self(batch.mfcc, batch.frames)
        logits = out.logits.float()
        self.seen_loss.update(frame_cross_entropy(logits, batch.labels), len(logits))
        of_clips = (
            self.clip_scores(logits),
            batch.labels.float(),
            (logits.mean(1).argmax(1) == batch.labels).float(),
            correlation(out.audio, out.visual).mean(1),
        )
        metrics: Any = self.seen
        for name, values in zip(_SEEN, of_clips, strict=True):
            metrics[name].update(values)

    def on_validation_epoch_end(self) -> None:
        """Log the numbers of all clips seen, from all processes."""
        self._log_numbers("val")

    def test_step(self, batch: AVBatch, batch_idx: int) -> None:
        """Keep the scores of one batch."""
        self.validation_step(batch, batch_idx)

    def on_test_epoch_end(self) -> None:
        """Log the numbers of all clips seen, from all processes."""
        self._log_numbers("test")

    def _log_numbers(self, split: str) -> None:
        metrics: Any = self.seen
        seen = (torch.atleast_1d(metrics[name].compute()) for name in _SEEN)
        scores, labels, right, together = seen
        finite = torch.isfinite(scores).all()
        auc = weighted_auc(scores, labels == 1)[0].float() if finite else torch.tensor(torch.nan)
        numbers = {
            "loss": self.seen_loss.compute(),
            "auc": auc,
            "accuracy": right.mean(),
            "correlation_real": together[labels == 0].mean(),
            "correlation_fake": together[labels == 1].mean(),
        }
        self.log_dict({f"{split}/{name}": value for name, value in numbers.items()})

    def predict_step(self, batch: AVBatch, batch_idx: int) -> Prediction:
        """Return what is said of one batch, on the CPU."""
        out = self(batch.mfcc, batch.frames)
        logits = out.logits.float()
        return Prediction(
            list(batch.names),
            batch.labels.cpu(),
            self.clip_scores(logits).cpu(),
            logits.cpu(),
            correlation(out.audio, out.visual).cpu(),
        )

    def configure_optimizers(self) -> Any:
        """Return Adam without weight decay, and its rate per epoch."""
        parameters = [p for p in self.net.parameters() if p.requires_grad]
        optimizer = Adam(parameters, lr=self.lr)
        return {"optimizer": optimizer, "lr_scheduler": ExponentialLR(optimizer, self.lr_decay)}


def _frozen(teacher: ContentTeacher, *, dropout: bool) -> ContentTeacher:
    teacher.eval().requires_grad_(requires_grad=False)
    if dropout:  # layers alone: norms of batches stay as they are
        for part in teacher.modules():
            if isinstance(part, nn.Dropout | nn.MultiheadAttention | nn.TransformerEncoderLayer):
                part.train()
    return teacher
