"""LightningModules that train with labels: on pairs (the paper), and on writers (our choice)."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningModule
from papercommons.metrics.pair_scores import PairScores
from papercommons.optimization import stop_if_diverged, with_warmup_cosine
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_hv.augmentation import Augment, handwriting, paper
from ssl_hv.data import ImageBatch, PairBatch
from ssl_hv.optimization import make_optimizer
from ssl_hv.presets import Recipe
from ssl_hv.verifier import SiameseVerifier, as_ink


class JudgedOnPairs(LightningModule):
    """What training with labels has in common: pairs of held-out writers say how it goes.

    Args:
        verifier: what is trained.
    """

    def __init__(self, verifier: SiameseVerifier) -> None:
        super().__init__()
        self.verifier = verifier
        self.seen = PairScores()

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        """Return the scores of pairs, shape (N,)."""
        scores: Tensor = self.verifier(left, right)
        return scores

    def on_validation_epoch_start(self) -> None:
        """Forget what was seen; here, since states made in inference mode cannot grow in fit."""
        self.seen.reset()

    def validation_step(self, batch: PairBatch, batch_idx: int) -> None:
        """Keep the scores of one batch."""
        self.seen.update(self(batch.left, batch.right), batch.same)

    def on_validation_epoch_end(self) -> None:
        """Log AUC and equal error rate over all pairs, of all processes."""
        self.log_dict({f"val/{name}": value for name, value in self.seen.compute().items()})

    def on_train_epoch_end(self) -> None:
        """End the run if a loss is not finite."""
        stop_if_diverged(self)


class VerifierModule(JudgedOnPairs):
    """Trains a verifier on pairs with binary cross-entropy (section 3.1).

    Batches are `PairBatch`. Logs train/loss and, of the pairs of held-out writers, val/auc and
    val/eer.

    Args:
        verifier: what is trained; any head with parameters.
        freeze: leave the encoder as it is, in evaluation mode.
        augmentation: of the training images, see `augmented`.
        recipe: optimiser.
        encoder_lr: factor of the learning rate for the encoder; below 1 keeps more of what
            pre-training found.
        warmup: share of the steps over which the learning rate rises.
    """

    def __init__(
        self,
        verifier: SiameseVerifier | None = None,
        *,
        freeze: bool = False,
        augmentation: Augment = "handwriting",
        recipe: Recipe = Recipe("adamw", lr=1e-3, weight_decay=1e-2),  # noqa: B008
        encoder_lr: float = 1.0,
        warmup: float = 0.05,
    ) -> None:
        super().__init__(verifier or SiameseVerifier())
        self.frozen, self.augmentation = freeze, augmentation
        self.recipe, self.encoder_lr, self.warmup = recipe, encoder_lr, warmup
        self.verifier.encoder.requires_grad_(not freeze)

    def on_train_epoch_start(self) -> None:
        """Keep the statistics of a frozen encoder."""
        if self.frozen:
            self.verifier.encoder.eval()

    def training_step(self, batch: PairBatch, batch_idx: int) -> Tensor:
        """Return the loss of one batch."""
        images = augmented(as_ink(torch.cat([batch.left, batch.right])), self.augmentation)
        logits = self.verifier(*images.chunk(2))
        loss = F.binary_cross_entropy_with_logits(logits.float(), batch.same.float())
        self.log("train/loss", loss.detach(), on_epoch=True, on_step=False, sync_dist=True)
        return loss

    def configure_optimizers(self) -> Any:
        """Return the optimiser and its schedule, stepped after each batch."""
        groups = [{"params": list(self.verifier.head.parameters())}]
        if not self.frozen:
            lr = self.recipe.lr * self.encoder_lr
            groups.append({"params": list(self.verifier.encoder.parameters()), "lr": lr})  # type: ignore[dict-item]
        return with_warmup_cosine(make_optimizer(groups, self.recipe), self, self.warmup)


class WriterModule(JudgedOnPairs):
    """Trains an encoder to name the training writers, with a cosine margin; our choice.

    The logits are scale * (cos(embedding, writer) - margin at the true writer), so the cosine of
    two embeddings becomes a score of pairs by itself. Batches are `ImageBatch`, of validation
    `PairBatch`. Logs train/loss, train/accuracy and val/auc, val/eer of held-out writers.

    Args:
        verifier: with a cosine head.
        writers: how many there are in training.
        scale: inverse temperature of the softmax.
        margin: subtracted from the cosine of the true writer, in [0, 1).
        augmentation: of the training images, see `augmented`.
        recipe: optimiser.
        encoder_lr: factor of the learning rate for the encoder.
        warmup: share of the steps over which the learning rate rises.
    """

    def __init__(
        self,
        verifier: SiameseVerifier,
        writers: int,
        *,
        scale: float = 30.0,
        margin: float = 0.3,
        augmentation: Augment = "handwriting",
        recipe: Recipe = Recipe("adamw", lr=2e-3, weight_decay=5e-2),  # noqa: B008
        encoder_lr: float = 1.0,
        warmup: float = 0.15,
    ) -> None:
        super().__init__(verifier)
        if writers < 2:
            raise ValueError(f"writers must be >= 2, got {writers}")
        dim: Any = verifier.encoder.dim
        self.prototypes = nn.Parameter(0.05 * torch.randn(writers, dim))
        self.scale, self.margin, self.augmentation = scale, margin, augmentation
        self.recipe, self.encoder_lr, self.warmup = recipe, encoder_lr, warmup

    def training_step(self, batch: ImageBatch, batch_idx: int) -> Tensor:
        """Return the loss of one batch."""
        images = augmented(as_ink(batch.images), self.augmentation)
        embeddings = self.verifier.encoder(images).float()
        cosines = F.linear(F.normalize(embeddings), F.normalize(self.prototypes.float()))
        own = F.one_hot(batch.writers, cosines.shape[1])
        loss = F.cross_entropy(self.scale * (cosines - self.margin * own), batch.writers)
        right = (cosines.detach().argmax(1) == batch.writers).float().mean()
        self.log_dict(
            {"train/loss": loss.detach(), "train/accuracy": right},
            on_epoch=True,
            on_step=False,
            sync_dist=True,
            batch_size=len(images),
        )
        return loss

    def configure_optimizers(self) -> Any:
        """Return the optimiser and its schedule, stepped after each batch."""
        lr = self.recipe.lr * self.encoder_lr
        groups: Any = [
            {"params": [self.prototypes]},
            {"params": list(self.verifier.encoder.parameters()), "lr": lr},
        ]
        return with_warmup_cosine(make_optimizer(groups, self.recipe), self, self.warmup)


def augmented(images: Tensor, kind: Augment) -> Tensor:
    """Return images as training with labels sees them.

    Args:
        images: float, ink = 1, shape (N, C, H, W).
        kind: ``handwriting``, ``paper`` or ``none``.
    """
    if kind == "none":
        return images
    return handwriting(images) if kind == "handwriting" else paper(images)
