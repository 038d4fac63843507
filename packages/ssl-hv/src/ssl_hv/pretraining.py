"""Pre-training an encoder: what `ssl-hv-pretrain` does once its options stand."""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from typing import Any, Literal

import torch
from papercommons.cli import RunOptions, leave_process_group
from papercommons.data.word_options import WordOptions
from papercommons.devices import compute_device
from papercommons.errors import counted
from papercommons.files import is_first_process
from papercommons.presets import resolve_preset
from papercommons.report import Result, Section, describe_device, image_grid_png, write_report
from papercommons.training import (
    begin_run,
    fit,
    history_section,
    may_use_cuda,
    run_files,
    seed_everything,
)

from ssl_hv.data import WordData
from ssl_hv.embedding import embed
from ssl_hv.encoders import NETWORKS
from ssl_hv.evaluation import score_pairs
from ssl_hv.heads import CosineHead
from ssl_hv.lightning import PRETRAINING, PretrainModule
from ssl_hv.options import PACKAGE, RecipeOptions
from ssl_hv.pictures import curves_of, embedding_sections
from ssl_hv.presets import ENCODER, Recipe, pretraining_presets, recipe_of
from ssl_hv.saved import save_encoder
from ssl_hv.training import describe
from ssl_hv.verifier import SiameseVerifier, as_ink

LOOKED_AT = (
    "The AUC needs the writers of some training words; it is only looked at and chooses nothing."
)
LIMITS = {
    "word": "No label was used, so nothing here is a verdict: ssl-hv-train makes a verifier of the "
    f"encoder. {LOOKED_AT}",
    "page": "Words of one page were taken to be of one hand: a weak label, so this is not "
    "self-supervision as the paper means it. Nothing here is a verdict: ssl-hv-train makes a "
    f"verifier of the encoder. {LOOKED_AT}",
}
COMPARING = ("resnet18", "resnet-layout", "vit-b32", "vit-tiny")
OWN_ENCODER = {"mae": "vit", "aim": "vit", "bigan": "bigan", "flow": "flow"}
TINY: dict[str, dict[str, int]] = {
    "barlow-twins": {"projection_dim": 256},
    "vicreg": {"projection_dim": 256},
    "moco": {"queue_size": 2048, "splits": 4},
    "vae": {"width": 16, "latent": 128},
    "mae": {"decoder_width": 64, "decoder_heads": 4},
}
"""Sizes of the quick preset where they differ from the paper's.

Covariances of 2048 dimensions say little in batches of 128.
"""


def pretrain_encoder(
    data: str,
    method: str,
    encoder: str | None,
    width: int | None,
    channels: int,
    positives: Literal["word", "page"],
    allow_writer_overlap: bool,
    out: str,
    words: WordOptions,
    options: RecipeOptions,
    run: RunOptions,
) -> Result | None:
    """Pre-train an encoder, write the run's folder, and return the result.

    Of several processes the first goes on after training; the others return None.

    Args:
        data: folder of words.
        method: one of `ssl_hv.presets.METHODS`.
        encoder: name of an encoder; the preset's if not given.
        width: of resnet-layout; the preset's if not given.
        channels: of the images.
        positives: what a word is compared with, see `WordData`.
        allow_writer_overlap: accept writers in both training and test split.
        out: folder of the run.
        words: the images.
        options: the recipe.
        run: how to run.

    Raises:
        ValueError: an encoder that the method cannot train.
        DataError: the words cannot be used, see `WordData`.
    """
    values = resolve_preset(
        pretraining_presets(method), options.preset, asdict(options), cuda=may_use_cuda(run)
    )
    preset = values["preset"]
    encoder = choose_encoder(method, encoder, preset)
    recipe = replace(
        recipe_of(method, preset),
        optimizer=values["optimizer"],
        lr=values["lr"],
        weight_decay=values["weight_decay"],
    )
    seed_everything(run.seed)
    data_module = WordData(
        data,
        batches="images",
        positives=positives,
        **asdict(words),
        allow_writer_overlap=allow_writer_overlap,
        batch_size=values["batch_size"],
        seed=run.seed,
        num_workers=run.num_workers,
        in_channels=channels,
    )
    describe(data_module)
    size = data_module.images.shape[-1]
    encoder_options: dict[str, Any] = {"in_channels": channels, "image_size": size}
    if encoder == "resnet-layout":
        encoder_options["width"] = width or ENCODER[preset]["width"]
    if encoder == "resnet18" and method == "vae":
        encoder_options["stem"] = "small"
    module = create_module(
        method, encoder, encoder_options, recipe, options, values["warmup"], preset, size
    )
    settings: dict[str, Any] = {"data": data, "method": method, "encoder": encoder}
    settings |= {"width": width, "channels": channels, "positives": positives, "out": out}
    settings["allow_writer_overlap"] = allow_writer_overlap
    settings |= {**asdict(words), **values}
    settings |= {
        "views": recipe.views,
        "momentum": recipe.momentum,
        "augment": module.augmentation,
        **run.settings(),
    }
    folder = begin_run(settings, run)
    if run.compile:
        module.objective.compile()
    started = time.perf_counter()
    trainer, history = fit(module, data_module, epochs=values["epochs"], run=run, out=folder)
    seconds = time.perf_counter() - started
    leave_process_group()  # the first process goes on; the others need not wait for it
    if not is_first_process():
        return None
    device = compute_device(replace(run, trainer={}))
    auc = label_free_auc(module, data_module, device)
    images = trainer.global_step * values["batch_size"] * trainer.world_size
    result = Result(
        package=PACKAGE,
        command="ssl-hv-pretrain",
        title=f"{method} with {encoder}, epochs: {values['epochs']}; "
        f"{len(data_module.splits['unlabelled']):,} unlabelled words",
        metrics={
            **{k: v for k, v in history.rows[-1].items() if k.startswith("train/")},
            "val_auc_centred_cosine": auc,
            "seconds": seconds,
            "epochs": len(history.rows),
            "images_per_second": images / seconds,
            "parameters": sum(p.numel() for p in module.encoder.parameters()),
            "left_out": len(data_module.words.bad),
        },
        settings={**settings, "split_by": data_module.split_by},
        limits=LIMITS[positives],
        data_hash=data_module.words.digest,
        device=describe_device(device),
        notes=[f"left out: {name}" for name in data_module.words.bad],
    )
    if folder is None:
        return result
    save_encoder(
        module.encoder.cpu(),
        folder / "export",
        name=encoder,
        options=encoder_options,
        method=method,
        made_by=f"ssl-hv-pretrain --method {method}, seed {run.seed}, "
        + counted(values["epochs"], "epoch"),
        data_hash=data_module.words.digest,
        device=describe_device(device),
    )
    result.files |= run_files(folder)
    module.to(device)
    embeddings = embed(module.encoder, data_module.images, device=device)
    sections = [
        history_section(history.rows, curves_of(history.rows)),
        *picture_sections(module, data_module),
        *embedding_sections(data_module.words, embeddings, data_module.splits["val"]),
    ]
    write_report(folder / "report.html", result, sections)
    result.save(folder)
    return result


def choose_encoder(method: str, encoder: str | None, preset: str) -> str:
    """Return the encoder of a method: the one asked for, if it fits, else the preset's.

    Args:
        method: one of `ssl_hv.presets.METHODS`.
        encoder: name; None is the preset's.
        preset: quick or paper.

    Raises:
        ValueError: the method cannot train that encoder.
    """
    kind = OWN_ENCODER.get(method)
    if kind is None:
        name = encoder or ENCODER[preset]["encoder"]
    elif kind == "vit":
        name = encoder or ("vit-b32" if preset == "paper" else "vit-tiny")
    else:
        name = encoder or kind
    allowed = [n for n in NETWORKS if n.startswith(kind)] if kind else list(COMPARING)
    if method == "dino":  # its local crops are smaller
        allowed = [n for n in allowed if n.startswith("resnet")]
    if name not in allowed:
        raise ValueError(f"--encoder {name}: {method} trains {', '.join(allowed)}")
    return name


def create_module(
    method: str,
    encoder: str,
    encoder_options: dict[str, Any],
    recipe: Recipe,
    options: RecipeOptions,
    warmup: float,
    preset: str,
    size: int,
) -> PretrainModule:
    """Return the LightningModule of a method.

    Args:
        method: one of `ssl_hv.presets.METHODS`.
        encoder: name of the encoder.
        encoder_options: further arguments of `create_encoder`.
        recipe: the optimiser, and what its views look like.
        options: give the augmentation.
        warmup: share of the steps.
        preset: quick or paper.
        size: side of the images in pixels.
    """
    objective_options: dict[str, Any] = dict(TINY.get(method, {})) if preset == "quick" else {}
    if method == "vae":
        objective_options |= {
            "in_channels": encoder_options["in_channels"],
            "image_size": size,
        }
    return PRETRAINING[method](
        encoder,
        encoder_options=encoder_options,
        objective_options=objective_options,
        augmentation=options.augment,
        recipe=recipe,
        warmup=warmup,
    )


def label_free_auc(module: PretrainModule, data: WordData, device: torch.device) -> float:
    """Return the AUC of centred cosines on pairs of held-out training writers.

    Args:
        module: with the encoder.
        data: its words.
        device: where to embed.
    """
    from papercommons.metrics.roc import binary_auc

    verifier = SiameseVerifier(module.encoder, "cosine")
    embeddings = embed(module.encoder, data.images, device=device)
    assert isinstance(verifier.head, CosineHead)
    verifier.head.fit(embeddings[torch.as_tensor(data.splits["unlabelled"])])
    pairs = data.pairs["val"]
    return binary_auc(score_pairs(verifier, embeddings, pairs), pairs.same)


@torch.no_grad()
def picture_sections(module: PretrainModule, data: WordData) -> list[Section]:
    """Return pictures of what the objective sees and, where it can, of what it makes of it.

    Args:
        module: trained.
        data: the first six of its unlabelled words are shown.
    """
    places = torch.as_tensor(data.splits["unlabelled"])[:6]
    images = as_ink(data.images[places].to(next(module.parameters()).device))
    module.eval()
    views = module.views(images)
    rows = [images, *views] if module.objective.views > 1 else [images]
    names = ["word", *(f"view {k}" for k in range(1, len(rows)))]
    if hasattr(module.objective, "reconstruct"):
        rows, names = [*rows, module.objective.reconstruct(images)], [*names, "reconstruction"]
    if hasattr(module.objective, "sample"):
        rows, names = [*rows, module.objective.sample(len(images))], [*names, "sample"]
    pictures = [
        (1 - row[k].mean(0)).clamp(0, 1).cpu().numpy() for row in rows for k in range(len(images))
    ]
    captions = [name for name in names for _ in range(len(images))]
    return [
        Section(
            "What it sees",
            "Words, and what the training makes of them.",
            figure=image_grid_png(pictures, captions, columns=len(images)),
            caption=", ".join(names),
        )
    ]
