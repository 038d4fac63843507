"""`cmdfd-teach`: content teachers trained on real clips, and how much they hear and see."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from papercommons.cli import RunOptions
from papercommons.devices import compute_device
from papercommons.errors import DataError, counted
from papercommons.files import is_first_process
from papercommons.report import Result, Section, describe_device, write_report
from papercommons.training import (
    begin_run,
    fit,
    history_section,
    load_best,
    run_files,
    seed_everything,
)

from cmdfd.hf_teacher import HFTeacher
from cmdfd.mouths import CLASSES
from cmdfd.options import PACKAGE, CropOptions, DataOptions, TeachOptions
from cmdfd.prepared import PreparedClips
from cmdfd.small_teacher import SmallTeacher, VisualContent
from cmdfd.teacher_lightning import ContentModule, Objective, TeachData
from cmdfd.teachers import ContentTeacher
from cmdfd.teaching_saved import open_teacher, save_teacher
from cmdfd.teaching_words import (
    LETTERS,
    frame_targets,
    letter_error_rate,
    letter_targets,
    read_letters,
)
from cmdfd.training_splits import Splits, open_splits

log = logging.getLogger("papercommons")

LIMITS = (
    "A teacher knows the voices, faces and words of its training clips. One that is taught on the "
    "clips that a detector is trained on knows these too well: take others where you can."
)
CURVES = {"loss": ("train/loss", "val/loss"), "right on val": ("val/audio", "val/video")}


def teach_network(
    data: str,
    val: str | None,
    hf_asr: str | None,
    out: str,
    lists: DataOptions,
    crop: CropOptions,
    options: TeachOptions,
    run: RunOptions,
) -> Result:
    """Train a teacher on real clips, write the run's folder, and return the result.

    Args:
        data: list, set or prepared folder; forged clips in it are left out.
        val: another one to judge on.
        hf_asr: folder of a recogniser of Hugging Face, whose posteriors a lip reader learns.
        out: folder of the run.
        lists: how lists are read.
        crop: how faces are cut.
        options: how it is trained.
        run: how to run.

    Raises:
        DataError: the data or the recogniser cannot be used.
    """
    run = replace(run, devices="1")
    seed_everything(run.seed)
    way: Objective = (
        "distill" if hf_asr else "frames" if options.labels == "phonemes" else "letters"
    )
    with tempfile.TemporaryDirectory(prefix="cmdfd-") as name:
        cache = Path(name) if run.dry_run else Path(out) / "cache"
        splits = only_real(
            open_splits(
                data,
                val,
                None,
                cache,
                size=options.size,
                lists=lists,
                crop=crop,
                val_fraction=0.0,
                allow_leak=True,
                seed=run.seed,
                num_workers=run.num_workers,
            ),
            options.val_fraction,
            run.seed,
        )
        settings: dict[str, Any] = {"data": data, "val": val, "hf_asr": hf_asr, "out": out}
        for group in (lists, crop, options):
            settings |= asdict(group)
        folder = begin_run({**settings, **run.settings()}, run)
        started = time.perf_counter()
        teacher, numbers, rows = teach(hf_asr, way, splits, folder, options, run)
        seconds = time.perf_counter() - started
        device = compute_device(run)
        result = Result(
            package=PACKAGE,
            command="cmdfd-teach",
            title=f"{data}: {describe(way, hf_asr)}, {teacher.classes} classes",
            rows=[
                {"what": key.replace("_", " "), "value": value} for key, value in numbers.items()
            ],
            metrics={
                **numbers,
                "seconds": seconds,
                "epochs": len(rows),
                "parameters": sum(p.numel() for p in teacher.parameters()),
                "clips": {k: len(v) for k, v in splits.clips.items()},
            },
            settings=settings | run.settings(),
            limits=LIMITS,
            data_hash=splits.data_hash,
            device=describe_device(device),
            notes=[
                f"real clips: {', '.join(f'{k} {len(v)}' for k, v in splits.clips.items())}",
                *weaknesses(numbers),
            ],
        )
        if folder is None or not is_first_process():
            return result
        save_teacher(
            teacher,
            folder / "export",
            **remembered(hf_asr, options),
            labels=list(CLASSES if way == "frames" else LETTERS) if way != "distill" else None,
            accuracy={k: None if np.isnan(v) else v for k, v in numbers.items()},
            crop=dict(splits.crop),
            made_by=f"cmdfd-teach, {describe(way, hf_asr)}, {counted(options.epochs, 'epoch')}, "
            f"seed {run.seed}",
            data_hash=splits.data_hash,
        )
        result.files |= run_files(folder)
        sections = [history_section(rows, CURVES, caption="Means over each epoch")]
        if "val" in splits.clips and way != "distill":
            sections.append(examples(teacher, splits.clips["val"], way))
        write_report(folder / "report.html", result, sections)
        result.save(folder)
        return result


def teach_beside(
    recogniser: str, splits: Splits, folder: Path | None, run: RunOptions
) -> tuple[ContentTeacher, dict[str, float]]:
    """Return a recogniser with a lip reader that learnt from it on a run's real clips.

    It is kept in the folder ``teacher`` of the run, and taken from there when the run goes on.

    Args:
        recogniser: folder of a recogniser of Hugging Face.
        splits: of the run.
        folder: of the run; None in a dry run.
        run: how to run.
    """
    kept = None if folder is None else folder / "teacher"
    if kept is not None and (kept / "export" / "config.json").is_file():
        return open_teacher(str(kept)), {}
    real = only_real(splits, 0.0, run.seed)
    alone = replace(run, devices="1", resume=None)
    teacher, numbers, _ = teach(recogniser, "distill", real, kept, TeachOptions(), alone)
    if kept is not None and is_first_process():
        save_teacher(
            teacher,
            kept / "export",
            **remembered(recogniser, TeachOptions()),
            crop=dict(splits.crop),
            accuracy={k: None if np.isnan(v) else v for k, v in numbers.items()},
            made_by=f"cmdfd-train --teacher hf:..., seed {run.seed}",
            data_hash=real.data_hash,
        )
    return teacher, numbers


def teach(
    recogniser: str | None,
    way: Objective,
    splits: Splits,
    folder: Path | None,
    options: TeachOptions,
    run: RunOptions,
) -> tuple[ContentTeacher, dict[str, float], list[dict[str, float]]]:
    """Return a trained teacher in evaluation mode, how good it is, and the history.

    Args:
        recogniser: folder of a recogniser of Hugging Face for ``distill``.
        way: see `cmdfd.teacher_lightning`.
        splits: real clips.
        folder: gets checkpoints and metrics.csv; None writes nothing.
        options: how it is trained.
        run: how to run.
    """
    targets = {split: targets_of(clips, way) for split, clips in splits.clips.items()}
    if recogniser is not None:
        heard = HFTeacher.from_folder(recogniser)
        heard.video = VisualContent(heard.classes, options.dim, options.width)
        teacher: ContentTeacher = heard
    else:
        classes = len(CLASSES if way == "frames" else LETTERS)
        teacher = SmallTeacher(classes, dim=options.dim, width=options.width)
    module = ContentModule(teacher, way, lr=options.lr, lr_decay=options.lr_decay)
    pairs = {split: (clips, targets[split]) for split, clips in splits.clips.items()}
    data = TeachData(
        pairs["train"],
        pairs.get("val"),
        way,
        frames_per_batch=options.frames_per_batch,
        max_frames=options.max_frames,
        augmented=options.augment,
        seed=run.seed,
        num_workers=run.num_workers,
    )
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    monitor = "val/loss" if "val" in pairs else None
    _, history = fit(
        module, data, epochs=options.epochs, run=run, out=folder, monitor=monitor, mode="min"
    )
    log.info("taught for %.0f s", time.perf_counter() - started)
    load_best(module, folder, history)
    module.teacher.eval().cpu()
    split = "val" if "val" in splits.clips else "train"
    numbers = judge(module.teacher, splits.clips[split], targets[split], way, split)
    return module.teacher, numbers, history.rows


def targets_of(clips: PreparedClips, way: Objective) -> list[np.ndarray] | None:
    """Return what the clips say, int64 of each clip; None for distillation.

    Args:
        clips: real ones.
        way: see `cmdfd.teacher_lightning`.
    """
    if way == "distill":
        return None
    return frame_targets(clips) if way == "frames" else letter_targets(clips)


@torch.no_grad()
def judge(
    teacher: ContentTeacher,
    clips: PreparedClips,
    targets: list[np.ndarray] | None,
    way: Objective,
    split: str,
) -> dict[str, float]:
    """Return how much of the clips a teacher hears and sees, by words that say what is counted.

    Args:
        teacher: in evaluation mode.
        clips: real ones.
        targets: what they say, see `targets_of`.
        way: see `cmdfd.teacher_lightning`.
        split: they are of.
    """
    best: dict[str, list[np.ndarray]] = {"voice": [], "mouth": []}
    for k, frames in enumerate(clips.lengths):
        sample = clips.read(k, 0, frames)
        heard = teacher.audio_logits(torch.from_numpy(sample.waveform)[None], frames)
        seen = teacher.visual_logits(torch.from_numpy(sample.frames)[None])
        for name, logits in (("voice", heard), ("mouth", seen)):
            best[name].append(logits[0].argmax(-1).numpy())
    both = {name: np.concatenate(found) for name, found in best.items()}
    agree = f"{split}_frames_agreeing"
    if way == "letters":
        truth = ["".join(LETTERS[n] for n in letters) for letters in targets or []]
        rates = {
            f"{split}_letter_error_rate_{name}": letter_error_rate(
                [read_letters(one) for one in found], truth
            )
            for name, found in best.items()
        }
        return {**rates, agree: float((both["voice"] == both["mouth"]).mean())}
    truth_frames = both["voice"] if way == "distill" else np.concatenate(targets or [])
    numbers = {
        f"{split}_accuracy_{name}": float((found == truth_frames).mean())
        for name, found in both.items()
        if way == "frames" or name == "mouth"
    }
    common = np.bincount(truth_frames).max() / len(truth_frames)
    return {**numbers, f"{split}_share_of_most_frequent_class": float(common)}


@torch.no_grad()
def examples(teacher: ContentTeacher, clips: PreparedClips, way: Objective) -> Section:
    """Return what a teacher hears and sees in the first clips.

    Args:
        teacher: in evaluation mode.
        clips: real ones.
        way: see `cmdfd.teacher_lightning`.
    """
    rows = []
    for k in range(min(6, len(clips))):
        frames = clips.lengths[k]
        sample = clips.read(k, 0, frames)
        heard = teacher.audio_logits(torch.from_numpy(sample.waveform)[None], frames)
        seen = teacher.visual_logits(torch.from_numpy(sample.frames)[None])
        said = {"voice": heard[0].argmax(-1).numpy(), "mouth": seen[0].argmax(-1).numpy()}
        row = {"clip": clips.names[k]}
        if way == "letters":
            row |= {name: read_letters(best) for name, best in said.items()}
        else:
            truth = frame_targets(clips)[k]
            said = {"truth": truth, **said}
            row |= {name: _runs(best) for name, best in said.items()}
        rows.append(row)
    return Section("Examples", "What is heard and seen in clips of val.", rows=rows)


def _runs(numbers: np.ndarray) -> str:
    kept = numbers[np.append(True, numbers[1:] != numbers[:-1])]
    return " ".join(CLASSES[number] for number in kept[:24]) + " ..." * (len(kept) > 24)


def only_real(splits: Splits, val_fraction: float, seed: int) -> Splits:
    """Return the real clips of train and val; some people are held out if there is no val split.

    Args:
        splits: of the run.
        val_fraction: share of the people held out.
        seed: of the division.

    Raises:
        DataError: there are no real clips to train on.
    """
    from cmdfd.splits import split_by_identity

    found: dict[str, PreparedClips] = {}
    for split in ("train", "val"):
        clips = splits.clips.get(split)
        real = None if clips is None else clips.select([e for e in clips.entries if not e.entire])
        if real is not None:
            found[split] = real
    if "train" not in found:
        raise DataError("no real clips to teach on; forged ones may say two things at once")
    if "val" not in found and val_fraction > 0:
        shares = {"train": 1 - val_fraction, "val": val_fraction}
        train = found["train"]
        divided = split_by_identity(train.entries, shares, seed=seed).splits
        chosen = {split: train.select(entries) for split, entries in divided.items()}
        found |= {split: clips for split, clips in chosen.items() if clips is not None}
    return replace(splits, clips=found)


def weaknesses(numbers: Mapping[str, float]) -> list[str]:
    """Return a line for each stream that is no better than the most frequent class."""
    common = next((v for name, v in numbers.items() if "most_frequent" in name), 0.0)
    return [
        f"{name.rpartition('_')[2]}: NO BETTER THAN THE MOST FREQUENT CLASS; such a teacher "
        "teaches nothing: take more real clips or epochs"
        for name, value in numbers.items()
        if "_accuracy_" in name and value <= common
    ]


def remembered(recogniser: str | None, options: TeachOptions) -> dict[str, Any]:
    """Return what is kept of a recogniser and its lip reader; nothing without a recogniser.

    Args:
        recogniser: its folder, or None.
        options: sizes of the lip reader.
    """
    if recogniser is None:
        return {}
    folder = str(Path(recogniser).absolute())
    return {"recogniser": folder, "dim": options.dim, "width": options.width}


def describe(way: Objective, recogniser: str | None) -> str:
    """Return in words what is taught.

    Args:
        way: see `cmdfd.teacher_lightning`.
        recogniser: folder of the recogniser, for distillation.
    """
    words: Mapping[Objective, str] = {
        "frames": "phonemes by frame",
        "letters": "letters by CTC",
        "distill": f"a lip reader after {Path(recogniser or '').name}",
    }
    return words[way]
