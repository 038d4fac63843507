"""The LightningModule that trains a latent text-to-image model and saves a diffusers folder."""

from __future__ import annotations

import contextlib
import copy
import io
import tempfile
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import AdamW
from torch.optim.swa_utils import get_ema_multi_avg_fn

from papercommons.data.sampling import mix_seeds
from papercommons.data.scene_data import SceneBatch
from papercommons.errors import DataError
from papercommons.optimization import stop_if_diverged, with_warmup_cosine

_HIGH = 0.6  # share of the levels of noise below the high ones


class TextToImageModule(LightningModule):
    """Trains U-Net and text encoder to predict the noise in latents; the autoencoder stays.

    AdamW, warm-up, cosine, and an average of the weights, which is what is saved. Batches are
    `SceneBatch`. Logs train/loss, and of the averaged weights val/loss, on noise that is the same
    every time. Epsilon- and v-prediction, as the pipeline's scheduler says.

    Attributes:
        least_noise: in [0, 1): of the levels of noise, those below this share are left out.
        steps: done by the averaged networks.

    Args:
        pipeline: a StableDiffusionPipeline; its parts are trained in place.
        lr: peak learning rate, > 0.
        warmup: share of the steps over which it rises, in [0, 1).
        ema_decay: of the average, in [0, 1); less in the first steps.
        empty: share of the captions left empty, so that guidance is possible, in [0, 1).
        noisy: share of the pictures that get one of the highest 40 % of the levels of noise, where
            the caption decides what is drawn; the others get any. In [0, 1).

    Raises:
        ValueError: a number out of range, or a pipeline that predicts neither noise nor v.
    """

    def __init__(
        self,
        pipeline: Any,
        *,
        lr: float = 2e-3,
        warmup: float = 0.05,
        ema_decay: float = 0.995,
        empty: float = 0.1,
        noisy: float = 0.3,
    ) -> None:
        super().__init__()
        if not lr > 0:
            raise ValueError(f"lr must be > 0, got {lr}")
        shares = {"warmup": warmup, "ema_decay": ema_decay, "empty": empty, "noisy": noisy}
        for name, value in shares.items():
            if not 0 <= value < 1:
                raise ValueError(f"{name} must be in [0, 1), got {value}")
        kind = pipeline.scheduler.config.get("prediction_type", "epsilon")
        if kind not in ("epsilon", "v_prediction"):
            raise ValueError(f"the model predicts {kind!r}; must be epsilon or v_prediction")
        self.save_hyperparameters(ignore=["pipeline"])
        self.lr, self.warmup, self.ema_decay = lr, warmup, ema_decay
        self.empty, self.noisy = empty, noisy
        self.tokenizer, self.scheduler = pipeline.tokenizer, pipeline.scheduler
        self._assemble = type(pipeline)
        self.predicts = kind
        self.vae: Any = pipeline.vae.requires_grad_(False).eval()
        self.network = nn.ModuleDict(
            {"unet": pipeline.unet, "text_encoder": pipeline.text_encoder}
        ).requires_grad_(True)
        self.average = copy.deepcopy(self.network).requires_grad_(False).eval()
        self.steps = 0
        self.least_noise = 0.0

    def begin_average(self) -> None:
        """Let the average start from what the networks are now."""
        self.average.load_state_dict(self.network.state_dict())
        self.steps = 0

    def on_fit_start(self) -> None:
        """Let the networks learn."""
        self.network.train()

    def training_step(self, batch: SceneBatch, batch_idx: int) -> Tensor:
        """Return the loss of one batch; noise comes from torch's global generator."""
        left_out = (torch.rand(len(batch.captions)) < self.empty).tolist()
        captions = [
            "" if none else caption for caption, none in zip(batch.captions, left_out, strict=True)
        ]
        with torch.no_grad():
            latents = self.vae.encode(batch.images).latent_dist.sample()
        latents = latents * self.vae.config.scaling_factor
        noise = torch.randn_like(latents)
        times = self._draw_times(len(latents)).to(latents.device)
        loss = self._loss(self.network, latents, captions, times, noise)
        self.log(
            "train/loss",
            loss.detach(),
            on_step=False,
            on_epoch=True,
            sync_dist=True,
            batch_size=len(latents),
        )
        return loss

    def _draw_times(self, count: int) -> Tensor:
        """Return levels of noise, int64, shape (count,), from torch's global generator."""
        anywhere = torch.randint(*self._levels(0.0), (count,))
        high = torch.randint(*self._levels(_HIGH), (count,))
        return torch.where(torch.rand(count) < self.noisy, high, anywhere)

    def _levels(self, least: float) -> tuple[int, int]:
        """Return the first and the end of the levels that are trained, above a share of all."""
        end = int(self.scheduler.config.num_train_timesteps)
        return int(max(least, self.least_noise) * end), end

    def _loss(
        self, network: Any, latents: Tensor, captions: list[str], times: Tensor, noise: Tensor
    ) -> Tensor:
        noised = self.scheduler.add_noise(latents, noise, times)
        text = network["text_encoder"](self._tokens(captions))[0]
        predicted = network["unet"](noised, times, text).sample
        wanted = noise
        if self.predicts == "v_prediction":
            wanted = self.scheduler.get_velocity(latents, noise, times)
        return F.mse_loss(predicted.float(), wanted.float())

    def _tokens(self, captions: list[str]) -> Tensor:
        tokens = self.tokenizer(
            captions, padding="max_length", truncation=True, return_tensors="pt"
        )
        return tokens.input_ids.to(self.device)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Take the step, and let the average follow."""
        super().optimizer_step(*args, **kwargs)
        self.steps += 1
        follow = get_ema_multi_avg_fn(min(self.ema_decay, self.steps / (self.steps + 9)))
        follow(list(self.average.parameters()), list(self.network.parameters()), 0)

    def configure_gradient_clipping(self, optimizer: Any, *_: Any, **options: Any) -> None:
        """Clip the gradients' norm to 1, whatever the trainer says."""
        self.clip_gradients(optimizer, 1.0, gradient_clip_algorithm="norm")

    def on_train_epoch_end(self) -> None:
        """End the run if the loss is not finite."""
        stop_if_diverged(self)

    def validation_step(self, batch: SceneBatch, batch_idx: int) -> None:
        """Log the averaged networks' loss of one batch."""
        generator = torch.Generator().manual_seed(mix_seeds(self.global_rank, batch_idx))
        latents = self.vae.encode(batch.images).latent_dist.mode() * self.vae.config.scaling_factor
        noise = torch.randn(latents.shape, generator=generator).to(latents)
        times = torch.randint(*self._levels(0.0), (len(latents),), generator=generator)
        times = times.to(latents.device)
        loss = self._loss(self.average, latents, batch.captions, times, noise)
        self.log("val/loss", loss, on_epoch=True, sync_dist=True, batch_size=len(latents))

    def configure_optimizers(self) -> Any:
        """Return AdamW and its schedule, stepped after each batch."""
        optimizer = AdamW(self.network.parameters(), lr=self.lr)
        return with_warmup_cosine(optimizer, self, self.warmup)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what the weights do not hold."""
        scale = float(self.vae.config.scaling_factor)
        checkpoint["text_to_image"] = {"steps": self.steps, "scaling_factor": scale}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take it."""
        state = checkpoint["text_to_image"]
        self.steps = state["steps"]
        self.vae.register_to_config(scaling_factor=state["scaling_factor"])

    def pipeline(self, *, ema: bool = True) -> Any:
        """Return the model as a pipeline of the same class; it shares this module's weights.

        Args:
            ema: of the averaged weights; else as trained.
        """
        parts: Any = self.average if ema else self.network
        return self._assemble(
            vae=self.vae,
            text_encoder=parts["text_encoder"].eval(),
            tokenizer=self.tokenizer,
            unet=parts["unet"].eval(),
            scheduler=self.scheduler,
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write an ordinary diffusers folder of the averaged weights, and return it.

        Args:
            folder: must be new or empty, or hold a pipeline, which is replaced.

        Raises:
            DataError: the folder holds something else.
        """
        return save_pipeline(self.pipeline(), folder)


def save_pipeline(pipeline: Any, folder: str | Path) -> Path:
    """Write a pipeline's folder, whole or not at all, and return it.

    Args:
        pipeline: what is written, as safetensors; any of diffusers.
        folder: must be new or empty, or hold a pipeline, which is replaced.

    Raises:
        DataError: the folder holds something else.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder}: is a file; give a folder for the model")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / "model_index.json").is_file():
        raise DataError(f"{folder}: holds other files; give a new folder for the model")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as beside:
        written = Path(beside) / folder.name
        with contextlib.redirect_stderr(io.StringIO()):  # a bar for each file
            pipeline.save_pretrained(written)
        if folder.is_dir():
            folder.replace(Path(beside) / "old")  # deleted there: half a model has no name
        written.replace(folder)
    return folder
