"""All of training a text-to-image model: the autoencoder, the text encoder, then the U-Net.

A small U-Net that learns from the start at all levels of noise, and mostly from captions that say
one or two facts, tells no place from another for thousands of steps. It learns to in a few hundred
where only the caption says what to draw: first, it sketches from nearly pure noise and captions
that say everything.
"""

from __future__ import annotations

import copy
import logging
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from lightning.pytorch import LightningModule

from papercommons.cli import RunOptions
from papercommons.data.scene_data import SceneData, as_images
from papercommons.text_to_image.autoencoder import AutoencoderModule, set_latent_scale
from papercommons.text_to_image.module import TextToImageModule
from papercommons.text_to_image.text_encoder import TextEncoderModule
from papercommons.training import History, fit

log = logging.getLogger("papercommons")
_SCALE_FROM = 512  # pictures
_SKETCHED = 0.1  # share of the levels of noise, the highest
AUTOENCODER_BATCH, TEXT_BATCH = 8, 32  # what learns most in the same time on one core


class Histories(NamedTuple):
    """What the parts logged, in the order of their training."""

    autoencoder: History
    text_encoder: History
    sketch: History
    unet: History


def train_text_to_image(
    module: TextToImageModule,
    data: SceneData,
    *,
    autoencoder_epochs: int,
    epochs: int,
    run: RunOptions,
    text_epochs: int = 2,
    sketch_epochs: int = 2,
    out: Path | None = None,
    autoencoder_lr: float = 4e-3,
) -> Histories:
    """Train autoencoder and text encoder, fix the scale of latents, train the U-Net with the text.

    Args:
        module: with an untrained pipeline; trained in place.
        data: scenes.
        autoencoder_epochs: passes for the autoencoder, in batches of at most 8; >= 1.
        epochs: passes for U-Net and text encoder together, >= 1.
        run: options of the command; with ``resume="last"`` it goes on in the part that was broken
            off; a checkpoint is one of the last part.
        text_epochs: passes for the text encoder alone, in batches of at most 32; >= 1.
        sketch_epochs: passes for U-Net and text encoder over the highest noise, from captions that
            say everything; >= 1.
        out: folder of the run; the first parts' are autoencoder, text_encoder and sketch in it.
            None writes nothing.
        autoencoder_lr: its peak learning rate.

    Raises:
        DataError: see `papercommons.training.fit`.
        ValueError: likewise.
    """
    autoencoder = AutoencoderModule(module.vae, lr=autoencoder_lr)
    text = TextEncoderModule(module.network["text_encoder"], module.tokenizer)
    drawn, read = (
        _fit_part(part, in_batches(data, size), passes, run, _part(out, name), name)
        for part, size, passes, name in (
            (autoencoder, AUTOENCODER_BATCH, autoencoder_epochs, "autoencoder"),
            (text, TEXT_BATCH, text_epochs, "text_encoder"),
        )
    )
    module.vae.requires_grad_(False).eval()
    set_latent_scale(module.vae, as_images(data.train.pictures[:_SCALE_FROM]))
    sketched = sketch(module, data, epochs=sketch_epochs, run=run, out=_part(out, "sketch"))
    if run.resume == "last":
        run = replace(run, resume=_last_if_begun(run, out))
    log.info("training the U-Net and the text encoder")
    _, history = fit(module, data, epochs=epochs, run=run, out=out)
    return Histories(drawn, read, sketched, history)


def sketch(
    module: TextToImageModule, data: SceneData, *, epochs: int, run: RunOptions, out: Path | None
) -> History:
    """Train U-Net and text encoder where the noise is highest and captions say everything.

    Args:
        module: its autoencoder is trained; trained in place.
        data: scenes.
        epochs: passes, >= 1.
        run: options of the command.
        out: folder of this part; None writes nothing.
    """
    module.begin_average()
    module.least_noise = 1 - _SKETCHED
    history = _fit_part(module, data.saying_all(), epochs, run, out, "sketch")
    module.least_noise = 0.0
    module.begin_average()
    return history


def _fit_part(
    module: LightningModule,
    data: SceneData,
    epochs: int,
    run: RunOptions,
    out: Path | None,
    name: str,
) -> History:
    log.info("training the %s", name.replace("_", " "))
    run = replace(run, resume=_last_if_begun(run, out))
    return fit(module, data, epochs=epochs, run=run, out=out)[1]


def in_batches(data: SceneData, size: int) -> SceneData:
    """Return the same scenes in batches of at most a size."""
    other = copy.copy(data)
    other.batch_size = min(size, data.batch_size)
    return other


def _part(out: Path | None, name: str) -> Path | None:
    return None if out is None else out / name


def _last_if_begun(run: RunOptions, folder: Path | None) -> str | None:
    """Return what one part resumes from: only one that has a checkpoint can be resumed."""
    if run.resume is None or folder is None or not (folder / "last.ckpt").is_file():
        return None
    return "last"
