"""The experiment behind docs/results/d-tiil.json: is the wrong word found, and the wrong region?

A tiny model of simple scenes is trained and asked about scenes whose captions, or pictures, were
changed in one respect. The method's first step alone and its four steps are measured against the
true caption (an upper reference) and every baseline. One of crowded scenes, likewise, is asked
about captions that training kept apart; that gives d-tiil-crowded.json beside it. Scenes, methods,
settings, thresholds' scenes, measures and aims were settled before any of these pairs was looked
at. Pairs that are done are kept in --runs.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from answers import FOUR, METHODS, SEED, SETTINGS, Clip, answer
from d_tiil import ClipModel, DTIILPipeline, __version__
from d_tiil.calibration import Calibration
from d_tiil.clip_patches import ClipPatches
from d_tiil.training import train_model
from diffusers import StableDiffusionPipeline
from papercommons.cli import RunOptions
from papercommons.data.scene_data import draw_scenes
from papercommons.data.scenes import find_preset
from papercommons.files import hash_files, hash_texts, write_json
from papercommons.report import describe_device
from papercommons.text_to_image.binding import draw_captions, measure_binding
from papercommons.text_to_image.command import TEST_SEED
from papercommons.text_to_image.options import SceneModelOptions
from plan import (
    CROWDED,
    EVALUATION,
    FURTHER,
    HELD_OUT,
    KINDS,
    MAIN,
    SCENES,
    SEEN,
    SIMPLE,
    TRIAL,
    Job,
    jobs,
    record_of,
)
from scene_clip import STEPS, train_clip
from tables import (
    ABOVE,
    NEAR,
    RIGHT,
    THRESHOLD,
    Fitted,
    Pair,
    aims,
    compared,
    costs,
    errors,
    false_alarms,
    fit_on,
    judge,
    summarize,
)

SHARES = {**MAIN, "further kinds": FURTHER, "crowded scenes": CROWDED}
UNFITTED = ("accuracy", "IoU, threshold of val")  # columns that crowded scenes have no use for
JUDGED = 100  # captions whose pictures tell what a model has learnt
QUICK_SCENES, QUICK_JUDGED = 4, 4
QUICK_MODEL: dict[str, Any] = {
    "count": 64,
    "epochs": 1,
    "autoencoder_epochs": 1,
    "text_epochs": 1,
    "sketch_epochs": 1,
    "judged": 2,
}
NOTES = (
    "IoU of masks: maps above the reference's threshold of "
    f"{THRESHOLD:g}, before any decision, against the whole thing or background that the caption "
    "is wrong about; changed pixels: against those that differ from the picture of the caption. "
    "True caption: the map of the true against the given caption, which no user has. Empty prompt: "
    "that of no text, and as a score what the caption's error has above no text's. CLIP of scenes: "
    "a small CLIP model trained on the same scenes. Word top-1: the most suspect word is the wrong "
    "one (of a relation: one of those between the things). Consistency, decisions and thresholds "
    "of val come from other scenes; the best threshold from the very pairs, which flatters. The "
    "score and the words by neutralising are those of step 1 in both forms of the method. "
    "Intervals: bootstrap over scenes. One model, one seed of the noise. Made-up scenes and a tiny "
    "model: nothing here speaks about photographs or large models. "
)


def main() -> None:
    """Do what is missing, then write the results."""
    options = parse()
    torch.set_num_threads(options.threads)
    prepare(options)
    tasks = [job for job in jobs(options.scenes, options.seed) if job.group in options.models]
    perform(options, tasks)
    kept = {job: read(options, job) for job in tasks}
    if SIMPLE in options.models:
        write_json(options.out, results(options, kept))
    if SEEN in options.models:
        found = json.loads(options.out.read_text("utf-8"))
        calibration = Calibration(**found["settings"]["calibration"])
        out = options.out.with_name(f"{options.out.stem}-crowded.json")
        write_json(out, crowded_results(options, kept, calibration))


def perform(options: argparse.Namespace, tasks: Sequence[Job]) -> None:
    """Answer what was not answered yet, in several processes."""
    missing = [job for job in tasks if not is_done(options, job)]
    if not missing:
        return
    started = time.monotonic()
    with ProcessPoolExecutor(options.processes, mp_context=get_context("spawn")) as pool:
        for number, future in enumerate([pool.submit(do, options, job) for job in missing], 1):
            future.result()
            if number % 50 == 0 or number == len(missing):
                minutes = (time.monotonic() - started) / 60
                print(f"{number} of {len(missing)} pairs, {minutes:.0f} min", flush=True)


def do(options: argparse.Namespace, job: Job) -> None:
    """Ask the methods about one pair."""
    torch.set_num_threads(options.threads)
    pipe, clip = opened(options.models[job.group]), None
    if job.group == SIMPLE:
        clip = opened_clip(options.clip)
    record = record_of(job, options.scenes, options.seed)
    started = time.process_time()
    said = answer(pipe, clip, record, full=job.full)
    of_pair = {**job._asdict(), "cpu": time.process_time() - started}
    write_json(file_of(options, job), of_pair | said)


@cache
def opened(folder: Path) -> DTIILPipeline:
    """Return the pipeline of a folder, opened once in a process."""
    pipe = DTIILPipeline.from_pretrained(folder)
    bar: Any = pipe
    bar.set_progress_bar_config(disable=True)
    return pipe


@cache
def opened_clip(folder: Path) -> Clip:
    """Return the CLIP model of a folder, opened once in a process."""
    return Clip(ClipModel.from_pretrained(folder), ClipPatches.from_pretrained(folder))


def file_of(options: argparse.Namespace, job: Job) -> Path:
    """Return where a pair's answers are kept: by what they were made with."""
    folder: Path = options.kept[job.group]
    return folder / f"{job.name}-{job.part}.json"


def is_done(options: argparse.Namespace, job: Job) -> bool:
    """Return whether a pair was asked about, as far as is wanted."""
    return file_of(options, job).is_file() and (not job.full or read(options, job)["full"])


def read(options: argparse.Namespace, job: Job) -> dict[str, Any]:
    """Return a pair's kept answers."""
    kept: dict[str, Any] = json.loads(file_of(options, job).read_text("utf-8"))
    return kept


def prepare(options: argparse.Namespace) -> None:
    """Train the models that are not given and not there; note where everything is."""
    options.models = {}
    if options.only in (None, "simple"):
        options.models[SIMPLE] = options.model or trained(options, "simple")
    if options.only in (None, "crowded"):
        options.models[SEEN] = options.crowded_model or trained(options, "crowded")
        options.models[HELD_OUT] = options.models[SEEN]
    if options.clip is None and SIMPLE in options.models:
        options.clip = options.runs / "clip"
        if not (options.clip / "preprocessor_config.json").is_file():
            train_clip(options.clip, steps=4 if options.quick else STEPS)
    options.kept = {}
    for group, model in options.models.items():
        parts = [part for part in sorted(model.rglob("*.safetensors")) if part.is_file()]
        with_clip = []
        if group == SIMPLE:
            with_clip = [hash_files([options.clip / "model.safetensors"])]
        settings = json.dumps(SETTINGS.to_dict(), sort_keys=True)
        made_with = hash_texts([hash_files(parts), *with_clip, settings, str(options.seed)])
        plain = "".join(c if c.isalnum() else "-" for c in group)
        options.kept[group] = options.runs / "answers" / f"{plain}-{made_with[:8]}"
        options.kept[group].mkdir(parents=True, exist_ok=True)


def trained(options: argparse.Namespace, scenes: Any) -> Path:
    """Return the folder of a model of these scenes, trained unless it is there."""
    folder: Path = options.runs / f"trained-{scenes}"
    if not (folder / "model" / "model_index.json").is_file():
        short = QUICK_MODEL if options.quick else {}
        made = SceneModelOptions(scenes=scenes, **short)
        train_model(str(folder), made, RunOptions(seed=0, accelerator="cpu", overwrite=True))
    return folder / "model"


def learnt(options: argparse.Namespace, group: str) -> dict[str, Any]:
    """Return how much of full captions a model draws; measured once."""
    file = options.kept[group] / "model.json"
    if not file.is_file():
        preset = find_preset("simple" if group == SIMPLE else "crowded")
        held_out = group == HELD_OUT
        count = QUICK_JUDGED if options.quick else JUDGED
        scenes = draw_scenes(preset, count, seed=TEST_SEED, held_out=held_out)
        stock = StableDiffusionPipeline.from_pretrained(options.models[group])
        pictures = draw_captions(stock, [scene.caption() for scene in scenes])
        write_json(file, {"captions": count, **measure_binding(pictures, scenes)})
    found: dict[str, Any] = json.loads(file.read_text("utf-8"))
    return {"model": group, **found}


def pairs(
    options: argparse.Namespace,
    kept: Mapping[Job, dict[str, Any]],
    group: str,
    split: str,
    *parts: str,
) -> list[Pair]:
    """Return the answered pairs of a set, a split and some parts."""
    return [
        Pair(record_of(job, options.scenes, options.seed), answers)
        for job, answers in kept.items()
        if (job.group, job.split) == (group, split) and job.part in parts
    ]


def results(options: argparse.Namespace, kept: Mapping[Job, dict[str, Any]]) -> dict[str, Any]:
    """Return what is written about simple scenes."""
    kept = {job: answers for job, answers in kept.items() if job.group == SIMPLE}
    fitted = fit_on(pairs(options, kept, SIMPLE, "val", "caption", "consistent"))
    halves = {
        half: pairs(options, kept, SIMPLE, "test", half, "consistent")
        for half in ("caption", "image", "control")
    }
    for half in ("image", "control"):  # there are none of the further kinds
        halves[half] = [pair for pair in halves[half] if pair.record.kind in KINDS]
    judged = {half: judge(own, fitted) for half, own in halves.items()}
    differences = {half: compared(judged[half]) for half in ("caption", "image")}
    return {
        **about(options, kept),
        "rows": summarize(halves["caption"], fitted, judged["caption"]),
        "aims": aims(judged["caption"], differences["caption"]),
        "compared": differences["caption"],
        "image": summarize(halves["image"], fitted, judged["image"]),
        "image_compared": differences["image"],
        "false_alarms": false_alarms(halves["control"], fitted, judged["control"]),
        "errors": errors([pair for own in halves.values() for pair in own]),
        "costs": costs(halves["caption"]),
        "models": [learnt(options, SIMPLE)],
        "settings": {
            "scenes of a kind": options.scenes,
            "shares of them": {
                name: {part: share._asdict() for part, share in shares.items()}
                for name, shares in SHARES.items()
            },
            "seed of the scenes": options.seed,
            "seed of the noise": SEED,
            "methods": list(METHODS),
            "method": SETTINGS.to_dict(),
            "threshold of maps": THRESHOLD,
            "aims": {"near": NEAR, "above": ABOVE, "right": RIGHT},
            "calibration": fitted.calibration.to_dict(),
            "decisions": fitted.decision,
            "thresholds of val": fitted.level,
            "CLIP of scenes, steps": STEPS,
        },
    }


def crowded_results(
    options: argparse.Namespace,
    kept: Mapping[Job, dict[str, Any]],
    calibration: Calibration,
) -> dict[str, Any]:
    """Return what is written about crowded scenes, on which nothing was fitted."""
    kept = {job: answers for job, answers in kept.items() if job.group != SIMPLE}
    plain = Fitted(calibration, {}, {})
    table = []
    for group in (SEEN, HELD_OUT):
        own = pairs(options, kept, group, "test", "caption", "consistent")
        table += [
            {"model": group} | {name: row[name] for name in row if name not in UNFITTED}
            for row in summarize(own, plain, judge(own, plain))
            if row["method"] != FOUR
        ]
    return {
        **about(options, kept),
        "rows": table,
        "models": [learnt(options, group) for group in (SEEN, HELD_OUT)],
    }


def about(options: argparse.Namespace, kept: Mapping[Job, dict[str, Any]]) -> dict[str, Any]:
    """Return what both files say of themselves."""
    minutes = sum(answers["cpu"] for answers in kept.values()) / 60
    return {
        "package": "d-tiil",
        "version": __version__,
        "command": "nox -s reproduce -- d-tiil",
        "hardware": f"{describe_device(torch.device('cpu'))}, {platform.system()}, one thread per "
        f"run, torch {torch.__version__}, Python {platform.python_version()}",
        "notes": ("QUICK: too few scenes to tell anything. " if options.quick else "")
        + NOTES
        + ("" if options.scenes == SCENES else f"Cut for time: {options.scenes} scenes of a kind. ")
        + f"{len(kept):,} pairs took {minutes:.0f} CPU minutes of one thread.",
    }


def parse() -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="JSON file of the results")
    parser.add_argument("--model", type=Path, help="model of simple scenes; trained if not given")
    parser.add_argument("--crowded-model", type=Path, help="model of crowded scenes; likewise")
    parser.add_argument("--clip", type=Path, help="CLIP model of simple scenes; likewise")
    parser.add_argument("--runs", type=Path, default=Path("runs/d-tiil-reproduce"))
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--only", choices=("simple", "crowded"), help="scenes; crowded needs the --out of simple"
    )
    parser.add_argument("--scenes", type=int, help=f"of each kind; {SCENES} if not given")
    parser.add_argument("--quick", action="store_true", help="few other scenes, short training")
    options = parser.parse_args()
    options.runs = options.runs / ("quick" if options.quick else "all")
    options.runs.mkdir(parents=True, exist_ok=True)
    options.seed = TRIAL if options.quick else EVALUATION
    options.scenes = options.scenes or (QUICK_SCENES if options.quick else SCENES)
    if options.scenes < 2 or options.processes < 1:
        parser.error("--scenes must be at least 2 and --processes at least 1")
    if options.only == "crowded" and not options.out.is_file():
        parser.error(f"{options.out} is not there; run --only simple first")
    return options


if __name__ == "__main__":
    main()
