"""What a command does that trains a tiny text-to-image model on scenes."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np

from papercommons.cli import RunOptions
from papercommons.data.scene_data import SceneData, draw_scenes
from papercommons.data.scenes import Preset
from papercommons.errors import counted
from papercommons.files import hash_texts, is_first_process
from papercommons.report import (
    Result,
    Section,
    describe_device,
    image_grid_png,
    write_report,
)
from papercommons.text_to_image.binding import draw_captions, measure_binding
from papercommons.text_to_image.module import TextToImageModule
from papercommons.text_to_image.options import SceneModelOptions
from papercommons.text_to_image.training import Histories, train_text_to_image
from papercommons.training import (
    begin_run,
    history_section,
    may_use_cuda,
    seed_everything,
)

log = logging.getLogger("papercommons")

LIMITS = (
    "A tiny model of made-up scenes: it shows what a method does where the truth is known, and "
    "says nothing about photographs or large models."
)
TEST_SEED = 1_000_000  # added to the seed of the run
MOST_VAL = 200
SHOWN = 24


def train_on_scenes(
    make_module: Callable[..., TextToImageModule],
    out: str,
    options: SceneModelOptions,
    run: RunOptions,
    *,
    package: str,
    command: str,
) -> Result:
    """Train a model, draw test captions, read the pictures, write the run's folder.

    The folder gets ``model``, an ordinary diffusers folder.

    Args:
        make_module: called as ``make_module(preset, full_attention=..., seed=..., lr=...)``.
        out: folder of the run.
        options: scenes and training.
        run: how to run.
        package: distribution whose command this is.
        command: its name.

    Raises:
        DataError: see `papercommons.training.begin_run`.
        ValueError: options that do not go together.
    """
    seed_everything(run.seed)
    values = options.resolved()
    log.info("scenes %s: %s", options.scenes, ", ".join(f"{k} {v}" for k, v in values.items()))
    data = SceneData(
        options.scenes,
        train=options.count,
        val=min(MOST_VAL, options.count),
        batch_size=options.batch_size,
        seed=run.seed,
        num_workers=run.num_workers,
    )
    module = make_module(
        options.scenes, full_attention=values["full_attention"], seed=run.seed, lr=options.lr
    )
    folder = begin_run({"out": out, **asdict(options), **values, **run.settings()}, run)
    if run.compile:
        module.network["unet"].compile()
    started = time.perf_counter()
    histories = train_text_to_image(
        module,
        data,
        autoencoder_epochs=values["autoencoder_epochs"],
        text_epochs=values["text_epochs"],
        sketch_epochs=values["sketch_epochs"],
        epochs=values["epochs"],
        run=run,
        out=folder,
        autoencoder_lr=options.autoencoder_lr,
    )
    seconds = time.perf_counter() - started
    if may_use_cuda(run):
        module.cuda()
    result = Result(
        package=package,
        command=command,
        title=f"{options.scenes} scenes: {counted(values['epochs'], 'epoch')} of {options.count:,}",
        metrics={
            "seconds": seconds,
            "epochs": values["epochs"],
            "steps": module.steps,
            "parameters": sum(
                p.numel() for p in [*module.average.parameters(), *module.vae.parameters()]
            ),
            **losses(histories),
        },
        settings={"out": out, **asdict(options), **values, **run.settings()},
        limits=LIMITS,
        data_hash=hash_texts(scene.caption() for scene in data.train.scenes),
        device=describe_device(module.device),
    )
    if folder is None or not is_first_process():
        return result
    finish(folder, result, module, data.preset, histories, options.judged, run.seed)
    return result


def losses(histories: Histories) -> dict[str, float]:
    """Return the last losses of all parts."""
    return {
        "autoencoder_val_mse": histories.autoencoder.rows[-1]["val/mse"],
        "text_encoder_val_loss": histories.text_encoder.rows[-1]["val/loss"],
        "train/loss": histories.unet.rows[-1]["train/loss"],
        "val/loss": histories.unet.rows[-1]["val/loss"],
    }


def finish(
    folder: Path,
    result: Result,
    module: TextToImageModule,
    preset: Preset,
    histories: Histories,
    judged: int,
    seed: int,
) -> None:
    """Save the model, judge it on captions of unseen scenes, and write the report.

    Args:
        folder: of the run.
        result: gets what is found.
        module: trained.
        preset: of the scenes.
        histories: of all parts.
        judged: number of test scenes.
        seed: of the run.
    """
    result.files["model"] = str(module.save_pretrained(folder / "model"))
    scenes = draw_scenes(preset, judged, seed=seed + TEST_SEED)
    pictures = draw_captions(module.pipeline(), [scene.caption() for scene in scenes], seed=seed)
    found = measure_binding(pictures, scenes)
    result.rows = [
        {"right in pictures of full captions": name, "share": value}
        for name, value in found.items()
    ]
    result.metrics = dict(result.metrics) | {f"test/{name}": value for name, value in found.items()}
    shown = min(judged, SHOWN)
    drawn = image_grid_png(
        [
            np.concatenate([s.render(), p], axis=1)
            for s, p in zip(scenes[:shown], pictures, strict=False)
        ],
        [str(number) for number in range(1, shown + 1)],
    )
    sections = [
        Section("Samples", figure=drawn, caption="Left the scene, right what its caption gave."),
        history_section(histories.autoencoder.rows, {"autoencoder": ("train/mse", "val/mse")}),
        history_section(histories.text_encoder.rows, {"text encoder": ("train/loss", "val/loss")}),
        history_section(histories.sketch.rows, {"sketch": ("train/loss", "val/loss")}),
        history_section(histories.unet.rows, {"loss": ("train/loss", "val/loss")}),
    ]
    write_report(folder / "report.html", result, sections)
    result.save(folder)
