"""`vlm-hv-train`: fine-tunes a model on pairs, calibrates it, exports it, and judges the export."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from papercommons.checkpoint import read_torch_file
from papercommons.cli import RunOptions
from papercommons.data.pairs import Pairs
from papercommons.files import is_first_process
from papercommons.report import Result, describe_device
from papercommons.training import (
    begin_run,
    fit,
    history_section,
    may_use_cuda,
    seed_everything,
)

from vlm_hv import prompts
from vlm_hv.cases import Images, from_pairs
from vlm_hv.choosing import draw_pairs
from vlm_hv.comparable import PREDS
from vlm_hv.data import PairData
from vlm_hv.images import PictureOptions
from vlm_hv.lightning import VLMHVModule
from vlm_hv.loading import Loaded, Precision, choose_device
from vlm_hv.local import LocalModel
from vlm_hv.modes import AskOptions
from vlm_hv.options import LabelOptions, TinyOptions, TuneOptions, WordOptions
from vlm_hv.predicting import judge, run_notes, write_run
from vlm_hv.records import LIMITS, Record
from vlm_hv.running import Run, run_cases
from vlm_hv.seeing import teach_tower
from vlm_hv.tiny import tiny_paligemma
from vlm_hv.verifier import VLMVerifier

log = logging.getLogger("papercommons")

TRAINING: dict[str, dict[str, Any]] = {
    "quick": {"epochs": 3, "batch_size": 16, "max_pairs": 2000, "accumulate": 1, "judged": 1000},
    "tiny": {"epochs": 1, "batch_size": 64, "max_pairs": 40_000, "accumulate": 1, "judged": 1000},
    "paper": {"epochs": 3, "batch_size": 4, "max_pairs": None, "accumulate": 4, "judged": None},
}
CURVES = {name: (name,) for name in ("train/loss", "val/auc", "val/eer")}
TINY_LR = 3e-3
MOST_DEV = 1000  # pairs to calibrate on
PREDS_DEV = "preds_dev.jsonl"
_WEIGHTS: dict[str, Precision] = {"bf16-mixed": "bfloat16", "16-mixed": "float16"}


def train_model(
    data: str,
    model: str | None,
    test_limit: int | None,
    out: str,
    words: WordOptions,
    labels: LabelOptions,
    tune: TuneOptions,
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
        tune: what is trained.
        tiny: the model that is built here instead.
        run: how to run.

    Raises:
        DataError: words or model cannot be used.
    """
    seed_everything(run.seed)
    preset = tune.preset
    if preset == "auto":
        preset = "paper" if may_use_cuda(run) else "quick"
    length = TRAINING["tiny" if tiny.tiny else preset]
    how = tune.tune or ("full" if tiny.tiny else "lora")
    epochs = tune.epochs or length["epochs"]
    batch_size = tune.batch_size or length["batch_size"]
    accumulate = length["accumulate"] if tune.batch_size is None else 1
    run = replace(run, trainer={"accumulate_grad_batches": accumulate, **run.trainer})
    labels = replace(labels, max_pairs=labels.max_pairs or length["max_pairs"])
    verifier = open_verifier(model, how, tune, tiny, run)
    data_module = PairData(
        data,
        verifier.prompt,
        **asdict(words),
        **asdict(labels),
        batch_size=batch_size,
        seed=run.seed,
        num_workers=run.num_workers,
    )
    module = VLMHVModule(
        verifier,
        tune=how,
        lora_r=tune.lora_r,
        lora_alpha=tune.lora_alpha,
        lora_dropout=tune.lora_dropout,
        adapt_projector=tune.adapt_projector,
        lr=tune.lr or (TINY_LR if tiny.tiny else None),
        weight_decay=tune.weight_decay,
        warmup=tune.warmup,
    )
    values = {"preset": preset, "tune": how, "epochs": epochs, "batch_size": batch_size}
    settings: dict[str, Any] = {"data": data, "model": model, "test_limit": test_limit, "out": out}
    settings |= {**asdict(words), **asdict(labels), **asdict(tune), **asdict(tiny), **values}
    settings |= {"lr": module.lr, **run.settings()}
    folder = begin_run(settings, run)
    describe(data_module, module, epochs, batch_size)
    if run.compile:
        verifier.model.compile()
    started = time.perf_counter()
    if tiny.tiny and tiny.tower_steps:
        log.info("first the vision tower alone: %d steps", tiny.tower_steps)
        teach_tower(verifier, data_module, run, steps=tiny.tower_steps)
        verifier.model.model.vision_tower.requires_grad_(False)
    _, history = fit(module, data_module, epochs=epochs, run=run, out=folder, monitor="val/auc")
    which = "last epoch"
    if folder is not None and (folder / "best.ckpt").is_file():
        module.load_state_dict(read_torch_file(folder / "best.ckpt")["state_dict"])
        which = "best on held-out training writers"
    device = choose_device("cuda" if may_use_cuda(run) else "cpu")
    result = Result(
        package="vlm-hv",
        command="vlm-hv-train",
        title=f"{'tiny PaliGemma' if tiny.tiny else model}, {how}: {which}",
        metrics={"seconds": time.perf_counter() - started, **_last(history.rows)},
        settings={**settings, "split": data_module.split},
        limits=LIMITS,
        data_hash=data_module.words.digest,
        device=describe_device(device),
    )
    if folder is None or not is_first_process():
        return result
    verifier.to(device).eval()
    made_by = f"vlm-hv-train, {how}, seed {run.seed}, {which}; from {model or 'random weights'}"
    export(verifier, data_module, folder, made_by)
    records = judge_export(
        verifier, data_module, folder, result, test_limit or length["judged"], run.seed
    )
    images = Images(data_module.words.root, data_module.words)
    sections = [history_section(history.rows, CURVES)] if history.rows else []
    write_run(folder, result, records, images, sections)
    return result


def open_verifier(
    model: str | None, how: str, tune: TuneOptions, tiny: TinyOptions, run: RunOptions
) -> VLMVerifier:
    """Return the verifier to train: a loaded model, or a tiny one with random weights."""
    asked: dict[str, Any] = {"question": tune.question, "layout": tune.layout}
    if model is None:
        sizes = {k: v for k, v in vars(tiny).items() if k not in ("tiny", "tower_steps")}
        return VLMVerifier(*tiny_paligemma(**sizes, seed=run.seed), **asked)
    frozen = _WEIGHTS.get(run.precision, "float32") if how == "lora" else "float32"
    return VLMVerifier.from_pretrained(
        model,
        device="cuda" if may_use_cuda(run) else "cpu",
        precision=frozen,
        four_bit=tune.four_bit,
        **{name: value for name, value in asked.items() if value},
    )


def describe(data: PairData, module: VLMHVModule, epochs: int, batch_size: int) -> None:
    """Say in log lines what is trained on what."""
    trained = sum(p.numel() for p in module.parameters() if p.requires_grad)
    whole = sum(p.numel() for p in module.parameters())
    log.info("%s of %s weights are trained, lr %g", f"{trained:,}", f"{whole:,}", module.lr)
    log.info(
        "split %s: %s; %d epochs of %s pairs, %d at a time",
        data.split,
        ", ".join(f"{part} {len(pairs):,} pairs" for part, pairs in data.pairs.items()),
        epochs,
        f"{len(data.pairs['train']):,}",
        batch_size,
    )


def export(verifier: VLMVerifier, data: PairData, folder: Path, made_by: str) -> None:
    """Calibrate on pairs of held-out training writers and write the folder ``export``.

    Args:
        verifier: trained, in evaluation mode.
        data: its dev pairs calibrate.
        folder: of the run.
        made_by: for the card.
    """
    dev = dev_pairs(data)
    odds = verifier.score(data.images[dev.left], data.images[dev.right], swap=True).mean(axis=0)
    verifier.calibrate(odds, dev.same)
    verifier.save_pretrained(
        folder / "export", made_by=made_by, data_hash=data.words.digest, dev_pairs=len(dev)
    )


def dev_pairs(data: PairData) -> Pairs:
    """Return the pairs to calibrate on."""
    return draw_pairs(data.pairs["dev"], MOST_DEV, seed=data.seed)


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
        data: its test pairs are asked about, and its dev pairs, for later calibration.
        folder: of the run; gets preds.jsonl and preds_dev.jsonl.
        result: changed in place.
        limit: most test pairs, half of each kind.
        seed: of the draw.

    Returns:
        the records of the test pairs.
    """
    test = data.pairs["test"] if limit is None else draw_pairs(data.pairs["test"], limit, seed=seed)
    _ask(verifier, dev_pairs(data), data, folder, PREDS_DEV, seed)
    records = _ask(verifier, test, data, folder, PREDS, seed).records
    found = judge(records, seed=seed)
    result.title = f"{result.title}; {len(records):,} test pairs of split {data.split}"
    result.rows = found.rows() if found else ()
    result.metrics = {**(found.numbers() if found else {}), **result.metrics}
    result.metrics = {**result.metrics, "training_pairs": len(data.pairs["train"])}
    result.notes = [*overlap_notes(data), *run_notes(records, found)]
    result.files |= {"export": str(folder / "export"), "dev_predictions": str(folder / PREDS_DEV)}
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
        {data.words.writers[place] for place in data.parts[part]} for part in ("train", "test")
    )
    common = len(train & test)
    return [f"{common} TEST WRITERS ARE IN THE TRAINING PART TOO: the numbers flatter."] * bool(
        common
    )


def _last(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return the best dev numbers and the last loss."""
    found: dict[str, float] = {}
    aucs = [row["val/auc"] for row in rows if "val/auc" in row]
    if aucs:
        best = max(rows, key=lambda row: row.get("val/auc", 0.0))
        found = {"dev_auc": best["val/auc"], "dev_eer": best["val/eer"]}
    if rows and "train/loss" in rows[-1]:
        found["train_loss"] = rows[-1]["train/loss"]
    return found
