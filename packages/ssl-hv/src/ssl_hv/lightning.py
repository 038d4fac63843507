"""LightningModules that train without labels: one per method."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from lightning.pytorch import LightningModule
from papercommons.optimization import stop_if_diverged, with_warmup_cosine
from torch import Tensor, nn

from ssl_hv import augmentation
from ssl_hv.augmentation import Augment
from ssl_hv.data import ImageBatch
from ssl_hv.encoders import create_encoder
from ssl_hv.objectives.aim import AIM
from ssl_hv.objectives.barlow_twins import BarlowTwins
from ssl_hv.objectives.bigan import BiGAN
from ssl_hv.objectives.byol import BYOL
from ssl_hv.objectives.dino import DINO
from ssl_hv.objectives.fastsiam import FastSiam
from ssl_hv.objectives.flow import Flow
from ssl_hv.objectives.mae import MAE
from ssl_hv.objectives.moco import MoCo
from ssl_hv.objectives.simclr import SimCLR
from ssl_hv.objectives.simsiam import SimSiam
from ssl_hv.objectives.vae import VAE
from ssl_hv.objectives.vicreg import VICReg
from ssl_hv.optimization import make_optimizer
from ssl_hv.presets import PAPER, Recipe
from ssl_hv.verifier import as_ink


class PretrainModule(LightningModule):
    """Trains an objective on unlabelled words; the subclasses name it.

    Batches are `ImageBatch`. Logs train/loss and whatever parts the objective gives.

    Args:
        encoder: a module with ``dim``, or a name for `create_encoder`.
        encoder_options: further arguments of the encoder.
        objective_options: further arguments of the objective.
        augmentation: of the views: ``handwriting`` (ours), ``paper``, or ``none``; by default ours
            for methods that compare views and none for generative ones.
        recipe: optimiser; the paper's if not given.
        warmup: share of the steps over which the learning rate rises, in [0, 1).
    """

    method: ClassVar[str]
    objective_class: ClassVar[type[nn.Module]]
    default_encoder: ClassVar[str] = "resnet18"
    default_augmentation: ClassVar[Augment] = "handwriting"

    def __init__(
        self,
        encoder: nn.Module | str | None = None,
        *,
        encoder_options: Mapping[str, Any] | None = None,
        objective_options: Mapping[str, Any] | None = None,
        augmentation: Augment | None = None,
        recipe: Recipe | None = None,
        warmup: float = 0.05,
    ) -> None:
        super().__init__()
        if not 0 <= warmup < 1:
            raise ValueError(f"warmup must be in [0, 1), got {warmup}")
        encoder = encoder or self.default_encoder
        if isinstance(encoder, str):
            encoder = create_encoder(encoder, **(encoder_options or {}))
        self.objective: Any = self.objective_class(encoder, **(objective_options or {}))
        self.augmentation = augmentation or self.default_augmentation
        self.recipe, self.warmup = recipe or PAPER[self.method], warmup

    @property
    def encoder(self) -> nn.Module:
        """What is kept after pre-training."""
        encoder: nn.Module = self.objective.encoder
        return encoder

    def forward(self, images: Tensor) -> Tensor:
        """Return embeddings, float, shape (N, dim); images as in `SiameseVerifier.embed`."""
        embeddings: Tensor = self.encoder(as_ink(images))
        return embeddings

    def views(self, images: Tensor, partners: Tensor | None = None) -> list[Tensor]:
        """Return what the objective compares: random views of float images with ink = 1.

        Args:
            images: float, shape (N, C, H, W).
            partners: likewise; every other view is of these. The images themselves if not given.
        """
        shown = images, images if partners is None else partners
        return [self._view(shown[number % 2]) for number in range(self.objective.views)]

    def _view(self, images: Tensor, **local: Any) -> Tensor:
        if self.augmentation == "none":
            return images
        if self.augmentation == "paper":
            return augmentation.paper(images, **(self.recipe.views | local))
        return augmentation.handwriting(images, **local)

    def training_step(self, batch: ImageBatch, batch_idx: int) -> Tensor:
        """Return the loss of one batch."""
        partners = None if batch.partners is None else as_ink(batch.partners)
        views = self.views(as_ink(batch.images), partners)
        parts: dict[str, Tensor] = self.objective(views)
        self.log_parts(parts, len(batch.images))
        return parts["loss"]

    def log_parts(self, parts: Mapping[str, Tensor], count: int) -> None:
        """Log the means of an epoch.

        Args:
            parts: scalars by name, of one batch.
            count: images in the batch.
        """
        named = {f"train/{name}": value.detach() for name, value in parts.items()}
        self.log_dict(named, on_step=False, on_epoch=True, sync_dist=True, batch_size=count)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Let momentum networks, centres and queues follow."""
        self.objective.update(self.trainer.global_step / self.trainer.estimated_stepping_batches)

    def on_train_epoch_end(self) -> None:
        """End the run if a loss is not finite."""
        stop_if_diverged(self)

    def configure_optimizers(self) -> Any:
        """Return the optimiser and its schedule, stepped after each batch."""
        parameters = [p for p in self.objective.parameters() if p.requires_grad]
        return with_warmup_cosine(make_optimizer(parameters, self.recipe), self, self.warmup)


class SimCLRModule(PretrainModule):
    """SimCLR, see `PretrainModule`."""

    method, objective_class = "simclr", SimCLR


class MoCoModule(PretrainModule):
    """MoCo v2, see `PretrainModule`."""

    method, objective_class = "moco", MoCo


class BYOLModule(PretrainModule):
    """BYOL, see `PretrainModule`."""

    method, objective_class = "byol", BYOL


class SimSiamModule(PretrainModule):
    """SimSiam, see `PretrainModule`."""

    method, objective_class = "simsiam", SimSiam


class FastSiamModule(PretrainModule):
    """FastSiam, see `PretrainModule`."""

    method, objective_class = "fastsiam", FastSiam


class DINOModule(PretrainModule):
    """DINO with two global and six local views, see `PretrainModule`."""

    method, objective_class = "dino", DINO

    def views(self, images: Tensor, partners: Tensor | None = None) -> list[Tensor]:
        """Return the global views, then the local ones, at half the side.

        Args:
            images: ink 1, shape (N, C, H, W).
            partners: what they are compared with, of the same shape; None is themselves.
        """
        side = images.shape[-1] // 2
        local: dict[str, Any] = {"size": side, "share": 0.6}
        if self.augmentation == "paper":
            local = {"size": side, "scale": (0.05, 0.4)}
        shown = images, images if partners is None else partners
        crops = [self._view(shown[k % 2], **local) for k in range(self.objective.local_views)]
        return [*super().views(images, partners), *crops]


class BarlowTwinsModule(PretrainModule):
    """Barlow Twins, see `PretrainModule`."""

    method, objective_class = "barlow-twins", BarlowTwins


class VICRegModule(PretrainModule):
    """VICReg, see `PretrainModule`."""

    method, objective_class = "vicreg", VICReg


class VAEModule(PretrainModule):
    """The variational autoencoder, see `PretrainModule`."""

    method, objective_class, default_augmentation = "vae", VAE, "none"


class MAEModule(PretrainModule):
    """The masked autoencoder, see `PretrainModule`."""

    method, objective_class, default_augmentation = "mae", MAE, "none"
    default_encoder = "vit-b32"


class AIMModule(PretrainModule):
    """The autoregressive image model, see `PretrainModule`."""

    method, objective_class, default_augmentation = "aim", AIM, "none"
    default_encoder = "vit-b32"


class FlowModule(PretrainModule):
    """The normalising flow, see `PretrainModule`."""

    method, objective_class, default_augmentation = "flow", Flow, "none"
    default_encoder = "flow"


class BiGANModule(PretrainModule):
    """The bidirectional GAN, see `PretrainModule`.

    Each loss has gradients for its own side alone, so one optimiser of their sum takes the step of
    both players at once.
    """

    method, objective_class, default_augmentation = "bigan", BiGAN, "none"
    default_encoder = "bigan"

    def training_step(self, batch: ImageBatch, batch_idx: int) -> Tensor:
        """Return the sum of both players' losses."""
        parts: dict[str, Tensor] = self.objective(self.views(as_ink(batch.images)))
        self.log_parts(parts, len(batch.images))
        return parts["loss"] + parts["discriminator_loss"]


PRETRAINING: dict[str, type[PretrainModule]] = {
    module.method: module
    for module in (
        SimCLRModule,
        MoCoModule,
        BYOLModule,
        SimSiamModule,
        FastSiamModule,
        DINOModule,
        BarlowTwinsModule,
        VICRegModule,
        VAEModule,
        MAEModule,
        AIMModule,
        BiGANModule,
        FlowModule,
    )
}
