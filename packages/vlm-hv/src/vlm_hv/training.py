"""`vlm-hv-train`: fine-tunes a model on pairs, calibrates it, exports it, and judges the export."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from papercommons.cli import RunOptions
from papercommons.data.pairs import Pairs
from papercommons.data.word_options import WordOptions, name_split
from papercommons.files import is_first_process
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

from vlm_hv import prompts
from vlm_hv.cases import Images, from_pairs
from vlm_hv.data import PairData
from vlm_hv.images import PictureOptions
from vlm_hv.lightning import VLMHVModule
from vlm_hv.loading import Dtype, Loaded, choose_device
from vlm_hv.local import LocalModel
from vlm_hv.modes import AskOptions
from vlm_hv.options import PACKAGE, PairOptions, RecipeOptions, TinyOptions
from vlm_hv.pairs import draw_pairs
from vlm_hv.predicting import judge, run_notes, write_run
from vlm_hv.presets import TINY_LR, TRAINING
from vlm_hv.records import LIMITS, Record
from vlm_hv.running import Run, run_cases
from vlm_hv.runs import PREDICTIONS, PREDICTIONS_VAL
from vlm_hv.tiny import tiny_paligemma
from vlm_hv.verifier import VLMVerifier
from vlm_hv.vision_pretraining import teach_tower

log = logging.getLogger("papercommons")

CURVES = {name: (name,) for name in ("train/loss", "val/auc", "val/eer")}
MOST_VAL = 1000  # pairs to calibrate on
_WEIGHTS: dict[str, Dtype] = {"bf16-mixed": "bfloat16", "16-mixed": "float16"}


def train_model(
    data: str,
    model: str | None,
    test_limit: int | None,
    out: str,
    words: WordOptions,
    labels: PairOptions,
    recipe: RecipeOptions,
    tiny: TinyOptions,
    run: RunOptions,
) -> Result:
    """Train, calibrate, export and judge a model, write the run's folder, and return the result.

    Args:
        data: folder of words.
        model: folder or hub id; None for a tiny one.
        test_limit: most test pairs; None is the preset's.
        out: folder of the run.
        words: the images.
        labels: the labels.
        recipe: what is trained.
        tiny: the model that is built here instead.
        run: how to run.

    Raises:
        DataError: words or model cannot be used.
    """
    seed_everything(run.seed)
    given = {**asdict(recipe), "max_pairs": labels.max_pairs, "test_limit": test_limit}
    given["accumulate"] = None if recipe.batch_size is None else 1
    values = resolve_preset(
        TRAINING["tiny" if tiny.tiny else "model"], recipe.preset, given, cuda=may_use_cuda(run)
    )
    how = recipe.tune or ("full" if tiny.tiny else "lora")
    run = replace(run, trainer={"accumulate_grad_batches": values.pop("accumulate"), **run.trainer})
    labels = replace(labels, max_pairs=values["max_pairs"])
    verifier = open_verifier(model, how, recipe, tiny, run)
    data_module = PairData(
        data,
        verifier.prompt,
        **asdict(words),
        **asdict(labels),
        batch_size=values["batch_size"],
        seed=run.seed,
        num_workers=run.num_workers,
    )
    module = VLMHVModule(
        verifier,
        tune=how,
        lora_r=recipe.lora_r,
        lora_alpha=recipe.lora_alpha,
        lora_dropout=recipe.lora_dropout,
        adapt_projector=recipe.adapt_projector,
        lr=recipe.lr or (TINY_LR if tiny.tiny else None),
        weight_decay=recipe.weight_decay,
        warmup=recipe.warmup,
    )
    settings: dict[str, Any] = {"data": data, "model": model, "out": out}
    settings |= {**asdict(words), **asdict(labels), **asdict(recipe), **asdict(tiny), **values}
    settings |= {"tune": how, "lr": module.lr, **run.settings()}
    folder = begin_run(settings, run)
    describe(data_module, module)
    if run.compile:
        verifier.model.compile()
    started = time.perf_counter()
    if tiny.tiny and tiny.tower_steps:
        log.info("first the vision tower alone: %d steps", tiny.tower_steps)
        teach_tower(verifier, data_module, run, steps=tiny.tower_steps)
        verifier.model.model.vision_tower.requires_grad_(False)
    _, history = fit(
        module, data_module, epochs=values["epochs"], run=run, out=folder, monitor="val/auc"
    )
    which = load_best(module, folder, history)
    device = choose_device("cuda" if may_use_cuda(run) else "cpu")
    result = Result(
        package=PACKAGE,
        command="vlm-hv-train",
        title=f"{'tiny PaliGemma' if tiny.tiny else model}, {how}: {which}",
        metrics={
            "seconds": time.perf_counter() - started,
            "epochs": len(history.rows),
            "parameters": sum(p.numel() for p in module.parameters()),
            "left_out": len(data_module.words.bad),
            **_last(history.rows),
        },
        settings={**settings, "split_by": data_module.split_by},
        limits=LIMITS,
        data_hash=data_module.words.digest,
        device=describe_device(device),
    )
    if folder is None or not is_first_process():
        return result
    verifier.to(device).eval()
    made_by = f"vlm-hv-train, {how}, seed {run.seed}, {which}; from {model or 'random weights'}"
    export(verifier, data_module, folder, made_by)
    records = judge_export(verifier, data_module, folder, result, values["test_limit"], run.seed)
    images = Images(data_module.words.root, data_module.words)
    sections = [history_section(history.rows, CURVES)] if history.rows else []
    write_run(folder, result, records, images, sections)
    return result


def open_verifier(
    model: str | None, how: str, recipe: RecipeOptions, tiny: TinyOptions, run: RunOptions
) -> VLMVerifier:
    """Return the verifier to train: a loaded model, or a tiny one with random weights.

    Args:
        model: folder or hub id; None for a tiny one.
        how: lora or full.
        recipe: question, layout, and whether weights are in 4 bits.
        tiny: sizes of the tiny one.
        run: seed, device and number format.
    """
    asked: dict[str, Any] = {"question": recipe.question, "layout": recipe.layout}
    if model is None:
        sizes = {k: v for k, v in vars(tiny).items() if k not in ("tiny", "tower_steps")}
        return VLMVerifier(*tiny_paligemma(**sizes, seed=run.seed), **asked)
    frozen = _WEIGHTS.get(run.precision, "float32") if how == "lora" else "float32"
    return VLMVerifier.from_pretrained(
        model,
        device="cuda" if may_use_cuda(run) else "cpu",
        dtype=frozen,
        four_bit=recipe.four_bit,
        **{name: value for name, value in asked.items() if value},
    )


def describe(data: PairData, module: VLMHVModule) -> None:
    """Say in log lines what is trained on what.

    Args:
        data: the pairs.
        module: what is trained.
    """
    trained = sum(p.numel() for p in module.parameters() if p.requires_grad)
    whole = sum(p.numel() for p in module.parameters())
    log.info("%s of %s weights are trained, lr %g", f"{trained:,}", f"{whole:,}", module.lr)
    log.info(
        "split by %s: %s",
        data.split_by,
        ", ".join(f"{split} {len(pairs):,} pairs" for split, pairs in data.pairs.items()),
    )


def export(verifier: VLMVerifier, data: PairData, folder: Path, made_by: str) -> None:
    """Calibrate on pairs of held-out training writers and write the folder ``export``.

    Args:
        verifier: trained, in evaluation mode.
        data: its val pairs calibrate.
        folder: of the run.
        made_by: for the card.
    """
    val = val_pairs(data)
    odds = verifier.score(data.images[val.left], data.images[val.right], swap=True).mean(axis=0)
    verifier.calibrate(odds, val.same)
    verifier.save_pretrained(
        folder / "export", made_by=made_by, data_hash=data.words.digest, val_pairs=len(val)
    )


def val_pairs(data: PairData) -> Pairs:
    """Return the pairs to calibrate on."""
    return draw_pairs(data.pairs["val"], MOST_VAL, seed=data.seed)


def judge_export(
    verifier: VLMVerifier,
    data: PairData,
    folder: Path,
    result: Result,
    limit: int | None,
    seed: int,
) -> list[Record]:
    """Ask the exported model about test pairs as `vlm-hv-predict` would; fill in the result.

    Args:
        verifier: that was exported.
        data: its test pairs are asked about, and its val pairs, for later calibration.
        folder: of the run; gets predictions.jsonl and predictions_val.jsonl.
        result: changed in place.
        limit: most test pairs, half of each kind.
        seed: of the draw.

    Returns:
        the records of the test pairs.
    """
    test = data.pairs["test"] if limit is None else draw_pairs(data.pairs["test"], limit, seed=seed)
    _ask(verifier, val_pairs(data), data, folder, PREDICTIONS_VAL, seed)
    records = _ask(verifier, test, data, folder, PREDICTIONS, seed).records
    found = judge(records, seed=seed)
    result.title = f"{result.title}; {len(records):,} pairs, {name_split('test', data.split_by)}"
    result.rows = found.rows() if found else ()
    result.metrics = {**(found.numbers() if found else {}), **result.metrics}
    result.metrics = {**result.metrics, "training_pairs": len(data.pairs["train"])}
    result.notes = [*overlap_notes(data), *run_notes(records, found)]
    result.files |= run_files(folder) | {"val_predictions": str(folder / PREDICTIONS_VAL)}
    return records


def _ask(
    verifier: VLMVerifier, pairs: Pairs, data: PairData, folder: Path, name: str, seed: int
) -> Run:
    """Ask about pairs through the same code as `vlm-hv-predict --model FOLDER`."""
    place = str(folder / "export")
    backend = LocalModel(Loaded(verifier.model, verifier.prompt.processor, place), batch_size=16)
    return run_cases(
        from_pairs(pairs, data.words),
        backend,
        prompts.load("forensic_v1"),
        AskOptions(mode="logprob", swap=True, seed=seed),
        out=folder / name,
        options=PictureOptions(min_side=0, border=0, layout=verifier.prompt.layout),
        batch_size=16,
        overwrite=True,
    )


def overlap_notes(data: PairData) -> list[str]:
    """Return a loud line if test writers were trained on."""
    train, test = (
        {data.words.writers[place] for place in data.splits[split]} for split in ("train", "test")
    )
    common = len(train & test)
    return [f"{common} TEST WRITERS ARE IN THE TRAINING SPLIT TOO: the numbers flatter."] * bool(
        common
    )


def _last(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return the best val numbers and the last loss."""
    found: dict[str, float] = {}
    aucs = [row["val/auc"] for row in rows if "val/auc" in row]
    if aucs:
        best = max(rows, key=lambda row: row.get("val/auc", 0.0))
        found = {"val_auc": best["val/auc"], "val_eer": best["val/eer"]}
    if rows and "train/loss" in rows[-1]:
        found["train_loss"] = rows[-1]["train/loss"]
    return found
