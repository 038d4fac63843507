"""`cmdfd-train`: a network trained, calibrated on val, looked at on its test split, and saved."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import torch
from papercommons.checkpoint import load_weights, read_config, read_state_dict
from papercommons.cli import RunOptions
from papercommons.errors import DataError
from papercommons.files import find_saved, is_first_process
from papercommons.report import Result, Section, describe_device, write_report
from papercommons.training import (
    NO_VAL,
    begin_run,
    fit,
    history_section,
    load_best,
    make_trainer,
    may_use_cuda,
    run_files,
    seed_everything,
)

from cmdfd.data import AVData
from cmdfd.lightning import CMDFDModule
from cmdfd.model import CMDFDNet
from cmdfd.official import student_weights
from cmdfd.one_stream import build_net
from cmdfd.options import PACKAGE, CropOptions, DataOptions, LossOptions, RecipeOptions
from cmdfd.presets import resolve
from cmdfd.saved import LIMITS, load_network, save_network
from cmdfd.teachers import ContentTeacher
from cmdfd.teaching_saved import HUGGING_FACE, open_teacher
from cmdfd.training_judging import judge_splits
from cmdfd.training_splits import Splits, count_rows, metadata_rows, open_splits

log = logging.getLogger("papercommons")

COLOURS = (
    "the clips were prepared in right grey; for the official code's, prepare them with "
    "--official-gray"
)
CURVES = {
    "losses": ("train/loss", "train/ce", "val/loss"),
    "correlation losses": ("train/distill", "train/contrast"),
    "AUC on val": ("val/auc",),
    "mean correlation on val": ("val/correlation_real", "val/correlation_fake"),
}
MEANS = "Means over each epoch. train/loss is the sum of all losses, val/loss the cross-entropy."


def train_network(
    data: str,
    val: str | None,
    test: str | None,
    out: str,
    teacher: str,
    init: str | None,
    legacy: bool,
    allow_leak: bool,
    lists: DataOptions,
    crop: CropOptions,
    recipe: RecipeOptions,
    losses: LossOptions,
    run: RunOptions,
) -> Result:
    """Train a network, look at how it does, write the run's folder, and return the result.

    Args:
        data: list, set or prepared folder.
        val: another one for validation.
        test: another one for testing.
        out: folder of the run.
        teacher: see `cmdfd.teaching_saved.open_teacher`; also ``hf:FOLDER`` and ``none``.
        init: weights to begin with, or None.
        legacy: as the official code does it.
        allow_leak: splits may share people, genuine clips and files.
        lists: how lists are read.
        crop: how faces are cut.
        recipe: how it is trained.
        losses: which losses.
        run: how to run.

    Raises:
        DataError: the data, the teacher or the weights cannot be used.
        ValueError: options that do not go together.
    """
    values = resolve(recipe, losses, legacy=legacy, cuda=may_use_cuda(run))
    seed_everything(run.seed)
    if legacy:
        crop = CropOptions(**{**asdict(crop), "official_gray": True})
    with _cache(out, run) as cache:
        splits = open_splits(
            data,
            val,
            test,
            cache,
            size=values["size"],
            lists=lists,
            crop=crop,
            val_fraction=recipe.val_fraction,
            allow_leak=allow_leak,
            seed=run.seed,
            num_workers=run.num_workers,
        )
        metadata = metadata_rows(splits)
        for row in metadata:
            log.info("%s: AUC of sound minus picture alone %.3f (%s)", *_told(row))
        settings: dict[str, Any] = {"data": data, "val": val, "test": test, "out": out}
        settings |= {"teacher": teacher, "init": init, "legacy": legacy, "allow_leak": allow_leak}
        for group in (lists, crop, recipe, losses):
            settings |= asdict(group)
        settings |= {k: v for k, v in values.items() if k != "net"}
        folder = begin_run({**settings, **run.settings()}, run)
        opened, taught = find_teacher(teacher, splits, folder, run)
        train = splits.clips["train"]
        if opened is not None and opened.needs_lips:
            train = train.giving_lips()
        module = make_module(opened, values, losses, legacy=legacy, init=init, stream=recipe.stream)
        if run.compile:
            module.net.compile()
        found = AVData(
            train,
            val=splits.clips.get("val"),
            frames_per_batch=values["frames_per_batch"],
            max_frames=values["max_frames"],
            augmented=recipe.augment,
            window="start" if legacy else "random",
            seed=run.seed,
            num_workers=run.num_workers,
            legacy=legacy,
        )
        started = time.perf_counter()
        monitor, mode = choose_monitor(splits)
        _, history = fit(
            module, found, epochs=values["epochs"], run=run, out=folder, monitor=monitor, mode=mode
        )
        seconds = time.perf_counter() - started
        which = load_best(module, folder, history)
        net = module.net
        device: torch.device = make_trainer(run).strategy.root_device
        split = "test" if "test" in splits.clips else "val" if "val" in splits.clips else "no"
        result = Result(
            package=PACKAGE,
            command="cmdfd-train",
            title=f"{data}: preset {values['preset']}, teacher {teacher}; {which}; {split} split",
            metrics={
                "seconds": seconds,
                "epochs": len(history.rows),
                "parameters": sum(p.numel() for p in net.parameters()),
                "clips": {name: len(clips) for name, clips in splits.clips.items()},
                "metadata": {r["split"]: r["AUC of sound minus picture"] for r in metadata},
                **({"teacher": taught} if taught else {}),
            },
            settings=settings | run.settings(),
            limits=LIMITS,
            data_hash=splits.data_hash,
            device=describe_device(device),
            notes=[
                *([] if "val" in splits.clips else [NO_VAL]),
                *(
                    ["there is no test split: these numbers are of val, which chose"]
                    * (split == "val")
                ),
                *(_metadata_note(row) for row in metadata),
                *crop_notes(teacher, splits),
                *([COLOURS] if legacy and not splits.crop.get("swapped") else []),
                *splits.notes,
            ],
        )
        if folder is None or not is_first_process():
            return result
        judged = judge_splits(net, device, splits, legacy=legacy)
        save_network(
            net,
            folder / "export",
            size=splits.crop["size"],
            crop=dict(splits.crop),
            score="fake" if legacy else "margin",
            threshold=0.0,
            legacy=legacy,
            teacher=teacher,
            calibration=judged.calibration,
            made_by=f"cmdfd-train, preset {values['preset']}, teacher {teacher}, target "
            f"{values['target']}, seed {run.seed}, {which}",
            data_hash=splits.data_hash,
            device=describe_device(device),
        )
        result.files |= run_files(folder)
        if split != "no":
            result.rows = judged.rows[split]
            result.metrics = {**result.metrics, split: judged.numbers[split]}
            result.files["items"] = judged.save(folder / "items.csv")
        sections = [
            *judged.sections(split),
            history_section(history.rows, CURVES, caption=MEANS),
            *_data_sections(splits, metadata),
        ]
        write_report(folder / "report.html", result, sections)
        result.save(folder)
        return result


def find_teacher(
    name: str, splits: Splits, folder: Path | None, run: RunOptions
) -> tuple[ContentTeacher | None, dict[str, float]]:
    """Return the teacher, and how good it is if it was taught now.

    Args:
        name: as given; ``hf:FOLDER`` teaches a lip reader on the run's real clips, and keeps it in
            the run's folder.
        splits: of the run.
        folder: of the run; None in a dry run.
        run: how to run.
    """
    if name == "none":
        return None, {}
    if not name.startswith(HUGGING_FACE):
        return open_teacher(name), {}
    from cmdfd.teaching import teach_beside

    return teach_beside(name.removeprefix(HUGGING_FACE), splits, folder, run)


def crop_notes(teacher: str, splits: Splits) -> list[str]:
    """Return a line if a teacher was taught on faces that were cut in another way.

    Args:
        teacher: as given.
        splits: of the run.
    """
    if teacher == "none" or not Path(teacher).is_dir():
        return []
    taught = read_config(find_saved(teacher)).get("crop")
    if taught is None or taught == dict(splits.crop):
        return []
    return [f"the teacher was taught on faces cut as {taught}, these are cut as {splits.crop}"]


def make_module(
    teacher: ContentTeacher | None,
    values: Mapping[str, Any],
    losses: LossOptions,
    *,
    legacy: bool,
    init: str | None,
    stream: Literal["both", "visual", "audio"] = "both",
) -> CMDFDModule:
    """Return the module before training.

    Args:
        teacher: or None.
        values: see `cmdfd.presets.resolve`.
        losses: options.
        legacy: as the official code does it.
        init: weights to begin with: a checkpoint of the official code or of TalkNet, or a network
            that cmdfd saved.
        stream: what the network gets, see `cmdfd.options.RecipeOptions`.

    Raises:
        DataError: the weights are missing, broken, or of a network of another size.
    """
    sizes = values["net"] if stream == "both" else {**values["net"], "stream": stream}
    net = build_net({**sizes, "legacy_concat": legacy})
    if init is not None:
        begin_with(net, init)
    return CMDFDModule(
        net,
        teacher,
        target=values["target"],
        distill=losses.distill,
        over_time="sum" if legacy else "mean",
        w_dist=losses.w_dist,
        w_con=losses.w_con,
        score="fake" if legacy else "margin",
        teacher_dropout=legacy,
        lr=values["lr"],
        lr_decay=values["lr_decay"],
    )


def begin_with(net: CMDFDNet, init: str) -> None:
    """Load weights into a network.

    Args:
        net: gets them in place.
        init: see `make_module`.

    Raises:
        DataError: see `make_module`.
    """
    if Path(init).is_file():
        weights = student_weights(read_state_dict(init), net.state_dict())
        if not weights:
            raise DataError(f"{init}: holds no weights of this network; see --init")
    else:
        other, _ = load_network(find_saved(init))
        weights = other.state_dict()
    try:
        load_weights(net, weights, source=init)
    except DataError as error:
        raise DataError(f"{error}; official and TalkNet's weights need --preset paper") from None


def choose_monitor(splits: Splits) -> tuple[str | None, str]:
    """Return what chooses best.ckpt, and whether more or less of it is better."""
    if "val" not in splits.clips:
        return None, "min"
    return ("val/auc", "max") if len(set(splits.clips["val"].labels)) == 2 else ("val/loss", "min")


@contextmanager
def _cache(out: str, run: RunOptions) -> Iterator[Path]:
    """Give the folder where raw clips are prepared: OUT/cache, or in a dry run one that goes."""
    if not run.dry_run:
        yield Path(out) / "cache"
        return
    with tempfile.TemporaryDirectory(prefix="cmdfd-") as name:
        yield Path(name)


def _told(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return row["split"], row["AUC of sound minus picture"], row["verdict"]


def _metadata_note(row: Mapping[str, Any]) -> str:
    split, auc, verdict = _told(row)
    return (
        f"metadata of {split}: how much longer the sound is than the picture has an AUC of "
        f"{auc:.3f} alone ({verdict}); the network sees both cut to one length"
    )


def _data_sections(splits: Splits, metadata: list[dict[str, Any]]) -> list[Section]:
    text = "The lengths of the files as the only score. The network sees clips cut to one length."
    sections = [Section("Clips", rows=count_rows(splits))]
    if metadata:
        sections.append(Section("What the lengths of the files give away", text, rows=metadata))
    return sections
