"""Training a verifier: what `ssl-hv-train` does once its options stand."""

from __future__ import annotations

import logging
import time
from dataclasses import asdict, replace
from typing import Any

import torch
from lightning.pytorch import LightningModule
from papercommons.cli import RunOptions, leave_process_group
from papercommons.data.word_options import LabelOptions, WordOptions, name_split
from papercommons.devices import compute_device
from papercommons.errors import DataError
from papercommons.files import find_saved, is_first_process
from papercommons.presets import resolve_preset
from papercommons.report import Result, describe_device
from papercommons.training import (
    begin_run,
    fit,
    history_section,
    load_best,
    may_use_cuda,
    run_files,
    seed_everything,
)
from torch import Tensor

from ssl_hv.data import WordData
from ssl_hv.embedding import embed
from ssl_hv.encoders import DESCRIPTORS, NETWORKS, Descriptor
from ssl_hv.evaluating import write_judgement
from ssl_hv.evaluation import calibrate, judge, notes_of
from ssl_hv.heads import CosineHead, LogisticHead
from ssl_hv.options import PACKAGE, RecipeOptions
from ssl_hv.pictures import curves_of
from ssl_hv.presets import ENCODER, TRAINING, Recipe
from ssl_hv.saved import load_encoder
from ssl_hv.shapes import check_size
from ssl_hv.supervised import VerifierModule, WriterModule
from ssl_hv.verifier import LIMITS, SiameseVerifier, as_ink

log = logging.getLogger("papercommons")

HEAD_OF = {
    "pairs": "pair",
    "writers": "cosine",
    "whitened": "cosine",
    "cosine": "cosine",
    "logistic": "logistic",
}
MOST_LOGISTIC_PAIRS = 20_000
WRITERS_DROPOUT = 0.3


def train_verifier(
    data: str,
    encoder: str,
    width: int | None,
    objective: str,
    freeze: bool,
    encoder_lr: float,
    head_input: str,
    out: str,
    words: WordOptions,
    labels: LabelOptions,
    recipe: RecipeOptions,
    run: RunOptions,
) -> Result | None:
    """Train, calibrate and judge a verifier, write the run's folder, and return the result.

    Of several processes the first judges and writes; the others return None after training.

    Args:
        data: folder of words.
        encoder: folder of a saved encoder, or a name.
        width: of resnet-layout from scratch; the preset's if not given.
        objective: see `ssl_hv.cli.train`.
        freeze: leave the encoder as it is.
        encoder_lr: factor of the learning rate for the encoder.
        head_input: absolute, product or signed.
        out: folder of the run.
        words: the images.
        labels: the labels.
        recipe: the recipe.
        run: how to run.

    Raises:
        ValueError: options that do not go together.
        DataError: the words cannot be used, see `WordData`.
    """
    fixed = encoder in DESCRIPTORS
    if objective == "auto":
        about_pairs = freeze or labels.pairs is not None or head_input != "absolute"
        objective = "logistic" if fixed else "pairs" if about_pairs else "writers"
    if fixed and objective in ("pairs", "writers") and not (freeze and objective == "pairs"):
        raise ValueError(
            f"--encoder {encoder} has nothing to train: --objective must be logistic, whitened or "
            "cosine, or pairs with --freeze"
        )
    if objective == "writers" and freeze:
        raise ValueError("--objective writers trains the encoder; leave out --freeze")
    if encoder in NETWORKS and freeze:
        raise ValueError(f"--freeze would keep the random weights of {encoder}; give a trained one")
    seed_everything(run.seed)
    if fixed and recipe.augment is None:
        recipe = replace(recipe, augment="none")  # a faint word may lose all ink
    presets = TRAINING.get(objective, TRAINING["fitted"])
    values = resolve_preset(presets, recipe.preset, asdict(recipe), cuda=may_use_cuda(run))
    if encoder == "resnet-layout" and width is None:
        width = ENCODER[values["preset"]]["width"]
    verifier, origin = build_verifier(encoder, width, objective, head_input, words.resize)
    data_module = WordData(
        data,
        batches="writers" if objective == "writers" else "pairs",
        **asdict(words),
        **asdict(labels),
        batch_size=values["batch_size"],
        seed=run.seed,
        num_workers=run.num_workers,
        in_channels=verifier.channels,
    )
    check_size(verifier.image_size, data_module.images.shape[2:], data)
    describe(data_module)
    settings: dict[str, Any] = {"data": data, "encoder": encoder, "objective": objective}
    settings |= {
        "width": width,
        "freeze": freeze,
        "encoder_lr": encoder_lr,
        "head_input": head_input,
        "out": out,
    }
    settings |= {**asdict(words), **asdict(labels), **asdict(recipe), **values}
    settings |= run.settings()
    folder = begin_run(settings, run)
    device = compute_device(replace(run, trainer={}))
    started = time.perf_counter()
    rows: list[dict[str, float]] = []
    which = "fitted once"
    if objective in ("pairs", "writers"):
        fit_thresholds(verifier, data_module)
        module = make_module(verifier, objective, data_module, values, freeze, encoder_lr)
        if run.compile:
            verifier.encoder.compile()
        _, history = fit(
            module,
            data_module,
            epochs=values["epochs"],
            run=run,
            out=folder,
            monitor="val/auc" if data_module.has_val else None,
        )
        rows, which = history.rows, load_best(module, folder, history)
    leave_process_group()  # the first process judges; the others need not wait for it
    if not is_first_process():
        return None
    embeddings = embed_words(verifier, data_module, device, run.precision)
    fit_head(verifier, embeddings, data_module, objective)
    seconds = time.perf_counter() - started
    remembered = calibrate(verifier, embeddings, data_module.pairs["val"])
    found = judge(verifier, embeddings, data_module.words, data_module.pairs["test"], seed=run.seed)
    result = Result(
        package=PACKAGE,
        command="ssl-hv-train",
        title=f"{encoder}, {objective}: {which}; {len(found.pairs):,} pairs, "
        f"{name_split('test', data_module.split_by)}",
        rows=found.rows(),
        metrics={
            **found.numbers(),
            "seconds": seconds,
            "epochs": len(rows),
            "parameters": sum(p.numel() for p in verifier.parameters()),
            "writers": {k: len(writers_of(data_module, k)) for k in data_module.splits},
            "images": {k: len(places) for k, places in data_module.splits.items()},
            "training_pairs": len(data_module.pairs["train"]),
            "left_out": len(data_module.words.bad),
        },
        settings={**settings, "split_by": data_module.split_by},
        limits=LIMITS,
        data_hash=data_module.words.digest,
        device=describe_device(device),
        notes=[*overlap_notes(data_module), *notes_of(found, data_module.words)],
    )
    if folder is None:
        return result
    verifier.cpu().save_pretrained(
        folder / "export",
        made_by=f"ssl-hv-train, objective {objective}, seed {run.seed}, {which}; "
        f"{len(data_module.writers)} training writers; encoder: {origin}",
        data_hash=data_module.words.digest,
        device=describe_device(device),
        val_ln_lr=remembered,
    )
    result.files |= run_files(folder)
    sections = [history_section(rows, curves_of(rows))] if rows else []
    write_judgement(
        folder, result, found, data_module.words, data_module.images, embeddings, sections
    )
    return result


def build_verifier(
    encoder: str, width: int | None, objective: str, head_input: str, resize: int | None
) -> tuple[SiameseVerifier, str]:
    """Return an untrained verifier around a saved or new encoder, and where that comes from.

    Args:
        encoder: folder or name.
        width: of resnet-layout from scratch; None is its own.
        objective: see `ssl_hv.cli.train`.
        head_input: absolute, product or signed.
        resize: side of the images; 64 if not given.

    Raises:
        DataError: the folder holds no encoder.
    """
    head_options: dict[str, Any] = {}
    if objective == "pairs":
        head_options = {
            "product": head_input == "product",
            "signed": head_input == "signed",
        }
    if objective in ("writers", "whitened"):
        head_options = {"whiten": True}
    if encoder in NETWORKS + DESCRIPTORS:
        options: dict[str, Any] = {"image_size": resize or 64}
        options |= {} if width is None else {"width": width}
        if encoder == "resnet-layout" and objective == "writers":
            options["dropout"] = WRITERS_DROPOUT
        name, weights, origin = encoder, None, f"{encoder} from scratch"
    else:
        found, config = load_encoder(find_saved(encoder))
        name, options = config["encoder"], config["encoder_options"]
        weights = found.state_dict()
        origin = str(config.get("made_by", encoder))
    verifier = SiameseVerifier(
        name, HEAD_OF[objective], encoder_options=options, head_options=head_options
    )
    if weights is not None:
        verifier.encoder.load_state_dict(weights)
    return verifier, origin


def make_module(
    verifier: SiameseVerifier,
    objective: str,
    data: WordData,
    values: dict[str, Any],
    freeze: bool,
    encoder_lr: float,
) -> LightningModule:
    """Return the LightningModule of an objective that trains.

    Args:
        verifier: to train.
        objective: pairs or writers.
        data: gives the number of writers.
        values: the recipe, see `ssl_hv.presets.TRAINING`.
        freeze: leave the encoder as it is.
        encoder_lr: factor of the learning rate for the encoder.
    """
    recipe = Recipe(values["optimizer"], values["lr"], values["weight_decay"])
    common: dict[str, Any] = {
        "recipe": recipe,
        "augmentation": values["augment"],
        "encoder_lr": encoder_lr,
        "warmup": values["warmup"],
    }
    if objective == "writers":
        return WriterModule(verifier, len(data.writers), **common)
    return VerifierModule(verifier, freeze=freeze, **common)


def fit_thresholds(verifier: SiameseVerifier, data: WordData) -> None:
    """Fit the thresholds of a descriptor, where it has any, to the training words.

    Args:
        verifier: with the encoder.
        data: its labelled training words are used.
    """
    if isinstance(verifier.encoder, Descriptor):
        train = torch.as_tensor(data.splits["train"])
        verifier.encoder.fit(as_ink(data.images[train]))


def embed_words(
    verifier: SiameseVerifier,
    data: WordData,
    device: torch.device,
    precision: str = "32-true",
) -> Tensor:
    """Return the embeddings of every image, float32, shape (N, dim).

    Thresholds of a descriptor are fitted first, to the training words.

    Args:
        verifier: with the encoder.
        data: the words.
        device: where to embed.
        precision: see `embed`.
    """
    fit_thresholds(verifier, data)
    return embed(verifier.encoder, data.images, device=device, precision=precision)


def fit_head(verifier: SiameseVerifier, embeddings: Tensor, data: WordData, objective: str) -> None:
    """Fit what a head needs without gradients: mean, whitening, regression; on the training split.

    Args:
        verifier: with the head.
        embeddings: of every image, float32, shape (N, dim).
        data: its labelled training words are used, without labels all of its training split.
        objective: see `ssl_hv.cli.train`.

    Raises:
        DataError: training pairs of one kind only.
    """
    head = verifier.head.cpu()
    if isinstance(head, CosineHead):
        labelled = objective != "cosine"
        places = torch.as_tensor(data.splits["train" if labelled else "unlabelled"])
        head.fit(embeddings[places], data.writer_numbers[places] if labelled else None)
    elif isinstance(head, LogisticHead):
        pairs = data.pairs["train"]
        generator = torch.Generator().manual_seed(data.seed)
        some = torch.randperm(len(pairs), generator=generator)[:MOST_LOGISTIC_PAIRS].numpy()
        pairs = pairs.take(some)
        if len(set(pairs.same.tolist())) < 2:
            raise DataError("the training pairs are all of one kind; both kinds are needed")
        left, right = torch.as_tensor(pairs.left), torch.as_tensor(pairs.right)
        head.fit(embeddings[left], embeddings[right], torch.as_tensor(pairs.same))


def writers_of(data: WordData, split: str) -> set[str]:
    """Return the writers of a split.

    Args:
        data: the words.
        split: unlabelled, train, val or test.
    """
    return {data.words.writers[place] for place in data.splits[split]}


def describe(data: WordData) -> None:
    """Say in one log line what there is."""
    log.info(
        "split by %s: %s",
        data.split_by,
        ", ".join(
            f"{split} {len(places):,} images of {len(writers_of(data, split)):,} writers"
            for split, places in data.splits.items()
        ),
    )


def overlap_notes(data: WordData) -> list[str]:
    """Return a loud line if test writers were trained on."""
    common = writers_of(data, "unlabelled") & writers_of(data, "test")
    if not common:
        return []
    return [f"{len(common)} TEST WRITERS ARE IN THE TRAINING SPLIT TOO: the numbers flatter."]
