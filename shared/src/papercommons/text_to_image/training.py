"""Both halves of training a text-to-image model: the autoencoder, then the rest."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from papercommons.cli import RunOptions
from papercommons.data.scene_data import SceneData, as_images
from papercommons.text_to_image.autoencoder import AutoencoderModule, set_latent_scale
from papercommons.text_to_image.module import TextToImageModule
from papercommons.training import History, fit

_SCALE_FROM = 512  # pictures


def train_text_to_image(
    module: TextToImageModule,
    data: SceneData,
    *,
    autoencoder_epochs: int,
    epochs: int,
    run: RunOptions,
    out: Path | None = None,
    autoencoder_lr: float = 4e-3,
) -> tuple[History, History]:
    """Train the autoencoder, fix the scale of its latents, train the rest; return both histories.

    Args:
        module: with an untrained pipeline; trained in place.
        data: scenes.
        autoencoder_epochs: passes for the autoencoder, >= 1.
        epochs: passes for the rest, >= 1.
        run: options of the command; with ``resume="last"`` it goes on in the half that was broken
            off; a checkpoint is one of the second half.
        out: folder of the run; the autoencoder's is the folder autoencoder in it. None writes
            nothing.
        autoencoder_lr: its peak learning rate.

    Raises:
        DataError: see `papercommons.training.fit`.
        ValueError: likewise.
    """
    first = None if out is None else out / "autoencoder"
    autoencoder = AutoencoderModule(module.vae, lr=autoencoder_lr)
    begun = replace(run, resume=_last_if_begun(run, first))
    _, drawn = fit(autoencoder, data, epochs=autoencoder_epochs, run=begun, out=first)
    module.vae.requires_grad_(False).eval()
    set_latent_scale(module.vae, as_images(data.train.pictures[:_SCALE_FROM]))
    if run.resume == "last":
        run = replace(run, resume=_last_if_begun(run, out))
    _, history = fit(module, data, epochs=epochs, run=run, out=out)
    return drawn, history


def _last_if_begun(run: RunOptions, folder: Path | None) -> str | None:
    """Return what one half resumes from: only one that has a checkpoint can be resumed."""
    if run.resume is None or folder is None or not (folder / "last.ckpt").is_file():
        return None
    return "last"
