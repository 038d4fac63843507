"""`cmdfd-train`: a network trained, calibrated on val, looked at on its test part, and saved."""

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
from papercommons.checkpoint import load_weights, read_config, read_state_dict, read_torch_file
from papercommons.cli import RunOptions
from papercommons.errors import DataError
from papercommons.files import find_saved, is_first_process
from papercommons.report import Result, Section, describe_device, write_report
from papercommons.training import (
    begin_run,
    fit,
    history_section,
    make_trainer,
    may_use_cuda,
    seed_everything,
)

from cmdfd.data import AVData
from cmdfd.lightning import CMDFDModule
from cmdfd.model import CMDFDNet
from cmdfd.official import student_weights
from cmdfd.one_stream import build_net
from cmdfd.options import PACKAGE, CropOptions, ListOptions, LossOptions, RecipeOptions
from cmdfd.saved import LIMITS, load_net, save_net
from cmdfd.teachers import ContentTeacher
from cmdfd.teaching_saved import HUGGING_FACE, open_teacher
from cmdfd.training_judging import judge_parts
from cmdfd.training_parts import Parts, count_rows, metadata_rows, open_parts
from cmdfd.training_presets import resolve

log = logging.getLogger("papercommons")

NO_VAL = "THERE IS NO VAL PART: no best.ckpt, no calibration, and the last epoch is what is saved"
COLOURS = (
    "the clips were prepared in right grey; for the official code's, prepare them with "
    "--official-gray"
)
CURVES = {
    "losses": ("train/loss", "train/ce", "val/loss"),
    "correlation losses": ("train/distil", "train/contrast"),
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
    lists: ListOptions,
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
        allow_leak: parts may share people, genuine clips and files.
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
    shown = {k: v for k, v in values.items() if k not in ("preset", "net")}
    words = ", ".join(f"{name} {value}" for name, value in shown.items())
    log.info("preset %s: %s", values["preset"], words)
    seed_everything(run.seed)
    if legacy:
        crop = CropOptions(**{**asdict(crop), "official_gray": True})
    with _cache(out, run) as cache:
        parts = open_parts(
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
        )
        metadata = metadata_rows(parts)
        for row in metadata:
            log.info("%s: AUC of sound minus picture alone %.3f (%s)", *_told(row))
        settings: dict[str, Any] = {"data": data, "val": val, "test": test, "out": out}
        settings |= {"teacher": teacher, "init": init, "legacy": legacy, "allow_leak": allow_leak}
        for group in (lists, crop, recipe, losses):
            settings |= asdict(group)
        settings |= {k: v for k, v in values.items() if k != "net"}
        folder = begin_run({**settings, **run.settings()}, run)
        opened, taught = find_teacher(teacher, parts, folder, run)
        train = parts.clips["train"]
        if opened is not None and opened.needs_lips:
            train = train.giving_lips()
        module = make_module(opened, values, losses, legacy=legacy, init=init, stream=recipe.stream)
        if run.compile:
            module.net.compile()
        found = AVData(
            train,
            val=parts.clips.get("val"),
            frames_per_batch=values["frames_per_batch"],
            max_frames=values["max_frames"],
            augmented=recipe.augment,
            window="start" if legacy else "random",
            seed=run.seed,
            num_workers=run.num_workers,
            legacy=legacy,
        )
        started = time.perf_counter()
        monitor, mode = what_is_best(parts)
        _, history = fit(
            module, found, epochs=values["epochs"], run=run, out=folder, monitor=monitor, mode=mode
        )
        seconds = time.perf_counter() - started
        which = f"epoch {len(history.rows)}, the last"
        if folder is not None and (folder / "best.ckpt").is_file():
            state = read_torch_file(folder / "best.ckpt")
            module.load_state_dict(state["state_dict"])
            which = f"epoch {int(state['epoch']) + 1}, the best on val"
        net = module.net
        device: torch.device = make_trainer(run).strategy.root_device
        part = "test" if "test" in parts.clips else "val" if "val" in parts.clips else "no"
        result = Result(
            package=PACKAGE,
            command="cmdfd-train",
            title=f"{data}: preset {values['preset']}, teacher {teacher}; {which}; {part} part",
            metrics={
                "seconds": seconds,
                "epochs": len(history.rows),
                "parameters": sum(p.numel() for p in net.parameters()),
                "clips": {name: len(clips) for name, clips in parts.clips.items()},
                "metadata": {r["part"]: r["AUC of sound minus picture"] for r in metadata},
                **({"teacher": taught} if taught else {}),
            },
            settings=settings | run.settings(),
            limits=LIMITS,
            data_hash=parts.data_hash,
            device=describe_device(device),
            notes=[
                *([] if "val" in parts.clips else [NO_VAL]),
                *(
                    ["there is no test part: these numbers are of val, which chose"]
                    * (part == "val")
                ),
                *(_metadata_note(row) for row in metadata),
                *crop_notes(teacher, parts),
                *([COLOURS] if legacy and not parts.crop.get("swapped") else []),
                *parts.notes,
            ],
        )
        if folder is None or not is_first_process():
            return result
        judged = judge_parts(net, device, parts, legacy=legacy)
        save_net(
            net,
            folder / "export",
            size=parts.crop["size"],
            crop=dict(parts.crop),
            score="fake" if legacy else "margin",
            threshold=0.0,
            legacy=legacy,
            teacher=teacher,
            calibration=judged.calibration,
            made_by=f"cmdfd-train, preset {values['preset']}, teacher {teacher}, target "
            f"{values['target']}, seed {run.seed}, {which}",
            data_hash=parts.data_hash,
            device=describe_device(device),
        )
        result.files |= {"last": str(folder / "last.ckpt"), "export": str(folder / "export")}
        if (folder / "best.ckpt").is_file():
            result.files["best"] = str(folder / "best.ckpt")
        if part != "no":
            result.rows = judged.rows[part]
            result.metrics = {**result.metrics, part: judged.numbers[part]}
            result.files["scores"] = judged.save(folder / "scores.csv")
        sections = [
            *judged.sections(part),
            history_section(history.rows, CURVES, caption=MEANS),
            *_data_sections(parts, metadata),
        ]
        write_report(folder / "report.html", result, sections)
        result.save(folder)
        return result


def find_teacher(
    name: str, parts: Parts, folder: Path | None, run: RunOptions
) -> tuple[ContentTeacher | None, dict[str, float]]:
    """Return the teacher, and how good it is if it was taught now.

    Args:
        name: as given; ``hf:FOLDER`` teaches a lip reader on the run's real clips, and keeps it in
            the run's folder.
        parts: of the run.
        folder: of the run; None in a dry run.
        run: how to run.
    """
    if name == "none":
        return None, {}
    if not name.startswith(HUGGING_FACE):
        return open_teacher(name), {}
    from cmdfd.teaching_command import teach_beside

    return teach_beside(name.removeprefix(HUGGING_FACE), parts, folder, run)


def crop_notes(teacher: str, parts: Parts) -> list[str]:
    """Return a line if a teacher was taught on faces that were cut in another way.

    Args:
        teacher: as given.
        parts: of the run.
    """
    if teacher == "none" or not Path(teacher).is_dir():
        return []
    taught = read_config(find_saved(teacher)).get("crop")
    if taught is None or taught == dict(parts.crop):
        return []
    return [f"the teacher was taught on faces cut as {taught}, these are cut as {parts.crop}"]


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
        values: see `cmdfd.training_presets.resolve`.
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
        distil=losses.distil,
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
        other, _ = load_net(find_saved(init))
        weights = other.state_dict()
    try:
        load_weights(net, weights, source=init)
    except DataError as error:
        raise DataError(f"{error}; official and TalkNet's weights need --preset full") from None


def what_is_best(parts: Parts) -> tuple[str | None, str]:
    """Return what chooses best.ckpt, and whether more or less of it is better."""
    if "val" not in parts.clips:
        return None, "min"
    return ("val/auc", "max") if len(set(parts.clips["val"].labels)) == 2 else ("val/loss", "min")


@contextmanager
def _cache(out: str, run: RunOptions) -> Iterator[Path]:
    """Give the folder where raw clips are prepared: OUT/cache, or in a dry run one that goes."""
    if not run.dry_run:
        yield Path(out) / "cache"
        return
    with tempfile.TemporaryDirectory(prefix="cmdfd-") as name:
        yield Path(name)


def _told(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return row["part"], row["AUC of sound minus picture"], row["verdict"]


def _metadata_note(row: Mapping[str, Any]) -> str:
    part, auc, verdict = _told(row)
    return (
        f"metadata of {part}: how much longer the sound is than the picture has an AUC of "
        f"{auc:.3f} alone ({verdict}); the network sees both cut to one length"
    )


def _data_sections(parts: Parts, metadata: list[dict[str, Any]]) -> list[Section]:
    text = "The lengths of the files as the only score. The network sees clips cut to one length."
    sections = [Section("Clips", rows=count_rows(parts))]
    if metadata:
        sections.append(Section("What the lengths of the files give away", text, rows=metadata))
    return sections
