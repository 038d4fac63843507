"""Trains a text encoder to say what is where, before a U-Net asks it.

A U-Net that starts beside an untrained text encoder has to learn at once what words mean and which
of them concern a place, and for long learns neither. Stable Diffusion's text encoder, too, is
trained before.
"""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import AdamW

from papercommons.data.scene_data import SceneBatch
from papercommons.optimization import stop_if_diverged, with_warmup_cosine

_SIDE, _POOLED = 8, 16  # places asked for, and pixels answered, along a side
_HEADS, _HIDDEN = 4, 256


class PlaceReader(nn.Module):
    """Answers with a small picture to the states of a caption: each place asks for itself.

    Args:
        width: D, of the states.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.places = nn.Parameter(torch.randn(_SIDE**2, width))
        self.attention = nn.MultiheadAttention(width, _HEADS, bias=False, batch_first=True)
        answers = 3 * (_POOLED // _SIDE) ** 2
        self.answer = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, _HIDDEN), nn.GELU(), nn.Linear(_HIDDEN, answers)
        )

    def forward(self, states: Tensor) -> Tensor:
        """Return pictures, float, shape (N, 3, 16, 16).

        Args:
            states: of the captions' tokens, float, shape (N, L, D).
        """
        asked = self.places.expand(len(states), -1, -1)
        found, _ = self.attention(asked, states, states, need_weights=False)
        answers = self.answer(found).transpose(1, 2).unflatten(2, (_SIDE, _SIDE))
        return F.pixel_shuffle(answers, _POOLED // _SIDE)


class TextEncoderModule(LightningModule):
    """Trains a text encoder and a `PlaceReader` to give the picture of a caption, made small.

    The squared error; AdamW, warm-up, cosine. Batches are `SceneBatch`. Logs train/loss and
    val/loss, of pictures in [-1, 1]. The reader is of no use afterwards.

    Args:
        text_encoder: a CLIPTextModel, trained in place.
        tokenizer: its tokenizer.
        lr: peak learning rate, > 0.
        warmup: share of the steps over which it rises, in [0, 1).

    Raises:
        ValueError: a number out of range.
    """

    def __init__(
        self, text_encoder: Any, tokenizer: Any, *, lr: float = 1e-3, warmup: float = 0.05
    ) -> None:
        super().__init__()
        if not (lr > 0 and 0 <= warmup < 1):
            raise ValueError(f"need lr > 0 and warmup in [0, 1), got {lr} and {warmup}")
        self.save_hyperparameters(ignore=["text_encoder", "tokenizer"])
        self.text_encoder: Any = text_encoder
        self.tokenizer = tokenizer
        self.reader = PlaceReader(int(text_encoder.config.hidden_size))
        self.lr, self.warmup = lr, warmup

    def on_fit_start(self) -> None:
        """Train all of it."""
        self.text_encoder.requires_grad_(True).train()

    def training_step(self, batch: SceneBatch, batch_idx: int) -> Tensor:
        """Return the loss of one batch."""
        loss = self._loss(batch)
        self.log(
            "train/loss",
            loss.detach(),
            on_step=False,
            on_epoch=True,
            sync_dist=True,
            batch_size=len(batch.captions),
        )
        return loss

    def validation_step(self, batch: SceneBatch, batch_idx: int) -> None:
        """Log the loss of one batch."""
        self.log(
            "val/loss",
            self._loss(batch),
            on_epoch=True,
            sync_dist=True,
            batch_size=len(batch.captions),
        )

    def _loss(self, batch: SceneBatch) -> Tensor:
        tokens = self.tokenizer(
            batch.captions, padding="max_length", truncation=True, return_tensors="pt"
        )
        drawn = self.reader(self.text_encoder(tokens.input_ids.to(self.device))[0])
        return F.mse_loss(drawn.float(), F.adaptive_avg_pool2d(batch.images, _POOLED))

    def on_train_epoch_end(self) -> None:
        """End the run if the loss is not finite."""
        stop_if_diverged(self)

    def configure_optimizers(self) -> Any:
        """Return AdamW and its schedule, stepped after each batch."""
        return with_warmup_cosine(AdamW(self.parameters(), lr=self.lr), self, self.warmup)
