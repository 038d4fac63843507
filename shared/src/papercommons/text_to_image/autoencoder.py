"""Trains the autoencoder whose latents a text-to-image model lives in."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.nn import functional as F
from torch.optim import AdamW

from papercommons.data.scene_data import SceneBatch
from papercommons.optimization import stop_if_diverged, with_warmup_cosine


class AutoencoderModule(LightningModule):
    """Trains with the squared error of pictures and a little KL; AdamW, warm-up, cosine.

    Batches are `SceneBatch`. Logs train/loss, train/mse and val/mse, of pictures in [-1, 1].

    Args:
        vae: what is trained, an AutoencoderKL.
        lr: peak learning rate, > 0.
        warmup: share of the steps over which it rises, in [0, 1).
        kl: weight of the mean KL of a latent's number, >= 0. Stable Diffusion: 1e-6 of the sum.

    Raises:
        ValueError: a number out of range.
    """

    def __init__(
        self, vae: Any, *, lr: float = 4e-3, warmup: float = 0.05, kl: float = 1e-4
    ) -> None:
        super().__init__()
        if not (lr > 0 and kl >= 0 and 0 <= warmup < 1):
            raise ValueError(
                f"need lr > 0, kl >= 0 and warmup in [0, 1), got {lr}, {kl} and {warmup}"
            )
        self.save_hyperparameters(ignore=["vae"])
        self.vae: Any = vae
        self.lr, self.warmup, self.kl = lr, warmup, kl

    def on_fit_start(self) -> None:
        """Train all of it."""
        self.vae.requires_grad_(True).train()

    def training_step(self, batch: SceneBatch, batch_idx: int) -> Tensor:
        """Return the loss of one batch."""
        posterior = self.vae.encode(batch.images).latent_dist
        mse = F.mse_loss(self.vae.decode(posterior.sample()).sample.float(), batch.images)
        loss = mse + self.kl * posterior.kl().mean() / posterior.mean[0].numel()
        found = {"train/loss": loss.detach(), "train/mse": mse.detach()}
        self.log_dict(
            found, on_step=False, on_epoch=True, sync_dist=True, batch_size=len(batch.images)
        )
        return loss

    def validation_step(self, batch: SceneBatch, batch_idx: int) -> None:
        """Log the squared error without noise."""
        back = self.vae.decode(self.vae.encode(batch.images).latent_dist.mode()).sample
        mse = F.mse_loss(back.float(), batch.images)
        self.log("val/mse", mse, on_epoch=True, sync_dist=True, batch_size=len(batch.images))

    def on_train_epoch_end(self) -> None:
        """End the run if the loss is not finite."""
        stop_if_diverged(self)

    def configure_optimizers(self) -> Any:
        """Return AdamW and its schedule, stepped after each batch."""
        optimizer = AdamW(self.vae.parameters(), lr=self.lr)
        return with_warmup_cosine(optimizer, self, self.warmup)


@torch.no_grad()
def set_latent_scale(vae: Any, images: Tensor) -> float:
    """Set and return the factor that gives the latents of `images` a standard deviation of 1.

    Args:
        vae: its ``config.scaling_factor`` is set.
        images: float in [-1, 1], shape (N, 3, H, W), with variety; N in the hundreds.

    Raises:
        ValueError: the latents are all the same.
    """
    deviation = float(vae.encode(images.to(vae.device)).latent_dist.mode().std())
    if not 0 < deviation < float("inf"):
        raise ValueError(f"the latents' standard deviation is {deviation}; train the autoencoder")
    vae.register_to_config(scaling_factor=1 / deviation)
    return 1 / deviation
