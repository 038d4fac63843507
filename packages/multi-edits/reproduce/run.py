"""The experiment behind docs/results/multi-edits.json: does one branch for each group of edits pay?

A tiny model of crowded scenes is trained; 50 tuning scenes choose one of eight settings for each
editor, and the frozen editors are compared on 200 other scenes with 1, 2, 4 and 6 edits at once.
Arms (but for the last), settings, scenes, bounds and measures were settled before any editor ran.
Finished runs are kept in --runs and not repeated.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from arms import ARMS, GRID, LEDITS_GRID, STEPS, Edited, edit, grid_of
from cases import COUNTS, EVALUATION, STRATA, TRIAL, TUNING, Case, draw_cases
from judging import BOUND, judge
from multi_edits import MultiEditsPipeline, __version__
from multi_edits.model import EditingModel
from multi_edits.training import train_model
from papercommons.cli import RunOptions
from papercommons.files import write_json
from papercommons.report import describe_device
from papercommons.text_to_image.options import SceneModelOptions
from PIL import Image
from tables import (
    by_cases,
    by_kind,
    choose,
    compared,
    differences,
    summarize,
    tuning_points,
)

SCENES, TUNED_ON, SEEDS = 200, 50, (0, 1, 2)
QUICK_MODEL: dict[str, Any] = {
    "count": 64,
    "epochs": 1,
    "autoencoder_epochs": 1,
    "text_epochs": 1,
    "sketch_epochs": 1,
    "judged": 2,
}
QUICK = {"scenes": 4, "tuned_on": 2, "grid": 2}
UNEDITED, EXACT = "source, unedited", "exact target"  # both through the autoencoder
NOTES = (
    "Joint: all edits right, no other fact changed, and at least "
    f"{BOUND:g} dB where nothing should change, against the source as the autoencoder gives it. "
    "leaks: share of the facts to be kept that changed. target: PSNR to the exact edited picture. "
    "Each arm's setting is the one of eight with most edits right among those that keep "
    f"{BOUND:g} dB in the mean over the tuning scenes. Intervals: bootstrap over scenes, seeds "
    "averaged. Rows: images given to the network, the grouping pass (20) included; seconds: CPU. "
    "Sequential arms pass 8-bit pictures on. branches: those that the grouping plans; single arms "
    "put them into one. “parallel, types known” gets its groups from the scene; it was added after "
    "all others had been run, to see what the branches do where the grouping is right. A tiny "
    "model of made-up scenes: nothing here speaks about photographs or large models. "
)


class Job(NamedTuple):
    """One run.

    Attributes:
        arm: of `ARMS`, or `UNEDITED` or `EXACT`.
        seed: of the noise.
        number: of the setting in the arm's grid; None evaluates the frozen one.
    """

    arm: str
    seed: int
    number: int | None = None

    def file(self, runs: Path) -> Path:
        """Return where the run is kept."""
        plain = "".join(c if c.isalnum() else "-" for c in self.arm)
        part = "evaluation" if self.number is None else f"tuning{self.number}"
        return runs / f"{part}-{plain}-seed{self.seed}.json"


@cache
def open_model(folder: Path) -> Any:
    """Return the pipeline, opened once in a process."""
    pipe: Any = MultiEditsPipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def do(options: argparse.Namespace, job: Job, setting: dict[str, Any]) -> None:
    """Edit and judge all cases of one run, if that is not done yet."""
    file = job.file(options.runs)
    if file.is_file():
        return
    torch.set_num_threads(options.threads)
    pipe, started = open_model(options.model), time.process_time()
    rows = []
    for case in cases_of(options, tuning=job.number is not None):
        through = reconstructed(pipe, case.scene.render())
        done = edited(pipe, job, setting, case)
        rows.append(
            {
                "scene": case.number,
                "stratum": case.stratum,
                "k": len(case.facts),
                "kinds": done.kinds,
                "network rows": done.rows,
                "seconds": done.seconds,
                **judge(done.picture, case, through),
            }
        )
    seconds = time.process_time() - started
    write_json(file, job._asdict() | {"setting": setting, "seconds": seconds, "rows": rows})
    right = np.mean([row["joint"] for row in rows])
    print(f"{file.stem}: joint {right:.3f} of {len(rows)}; {seconds:.0f} s", flush=True)


def edited(pipe: Any, job: Job, setting: dict[str, Any], case: Case) -> Edited:
    """Return what a run makes of a case."""
    if job.arm in (UNEDITED, EXACT):
        scene = case.scene if job.arm == UNEDITED else case.after
        return Edited(reconstructed(pipe, scene.render()), 0, 0.0)
    return edit(pipe, job.arm, setting, case, job.seed)


def reconstructed(pipe: Any, picture: np.ndarray) -> np.ndarray:
    """Return a picture through the autoencoder."""
    model = EditingModel(pipe)
    return np.asarray(model.decode(model.encode(Image.fromarray(picture)))[0])


def cases_of(options: argparse.Namespace, *, tuning: bool) -> list[Case]:
    """Return the cases of tuning, one per scene, or of the evaluation, all of each scene."""
    if tuning:
        return draw_cases(options.tuned_on, TUNING, every=False)
    return draw_cases(options.scenes, TRIAL if options.quick else EVALUATION, every=True)


def main() -> None:
    """Do what is missing, then write the results."""
    options = parse()
    prepare_model(options)
    torch.set_num_threads(options.threads)
    grids = {arm: grid_of(arm)[: options.grid] for arm in options.wanted}
    tuning = [
        (Job(arm, 0, number), setting)
        for arm, grid in grids.items()
        for number, setting in enumerate(grid)
    ]
    perform(options, tuning)
    tuned = read(options, [job for job, _ in tuning])
    frozen = choose(tuned)
    evaluation: list[tuple[Job, dict[str, Any]]] = [(Job(arm, 0), {}) for arm in (UNEDITED, EXACT)]
    evaluation += [
        (Job(arm, seed), frozen[arm]["setting"])
        for seed in SEEDS[: options.seeds]
        for arm in options.wanted
    ]
    perform(options, evaluation)
    kept = read(options, [job for job, _ in evaluation])
    write_json(options.out, results(options, tuned, frozen, kept))


def perform(options: argparse.Namespace, tasks: Sequence[tuple[Job, dict[str, Any]]]) -> None:
    """Do what is missing of some runs, in several processes."""
    missing = [task for task in tasks if not task[0].file(options.runs).is_file()]
    if not missing:
        return
    with ProcessPoolExecutor(options.processes, mp_context=get_context("spawn")) as pool:
        for future in [pool.submit(do, options, *task) for task in missing]:
            future.result()


def read(options: argparse.Namespace, jobs: Sequence[Job]) -> list[dict[str, Any]]:
    """Return the runs that are kept."""
    files = [job.file(options.runs) for job in jobs]
    return [json.loads(file.read_text("utf-8")) for file in files if file.is_file()]


def prepare_model(options: argparse.Namespace) -> None:
    """Train the model, if it is not given and not there."""
    if options.model is None:
        folder = options.runs / "model"
        options.model = folder / "model"
        if not (options.model / "model_index.json").is_file():
            made = SceneModelOptions(scenes="crowded", **(QUICK_MODEL if options.quick else {}))
            run = RunOptions(seed=0, accelerator="cpu", overwrite=True)
            train_model(str(folder), made, run)


def parse() -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="JSON file of the results")
    parser.add_argument("--model", type=Path, help="a trained model's folder; trained if not given")
    parser.add_argument("--runs", type=Path, default=Path("runs/multi-edits-reproduce"))
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", help="names of arms, semicolon-separated")
    parser.add_argument("--seeds", type=int, default=1, help="the first ones of 0, 1, 2")
    parser.add_argument("--scenes", type=int, default=SCENES, help="of the evaluation")
    parser.add_argument("--quick", action="store_true", help="few scenes and settings, seed 0")
    options = parser.parse_args()
    options.runs = options.runs / ("quick" if options.quick else "all")
    options.runs.mkdir(parents=True, exist_ok=True)
    options.tuned_on, options.grid = TUNED_ON, len(GRID)
    if options.quick:
        options.seeds = 1
        for name, value in QUICK.items():
            setattr(options, name, value)
    if not 1 <= options.seeds <= len(SEEDS):
        parser.error(f"--seeds must be in [1, {len(SEEDS)}], got {options.seeds}")
    options.wanted = options.only.split(";") if options.only else list(ARMS)
    for name in options.wanted:
        if name not in ARMS:
            parser.error(f"--only: no {name!r}; there are {'; '.join(ARMS)}")
    return options


def results(
    options: argparse.Namespace,
    tuned: Sequence[dict[str, Any]],
    frozen: dict[str, dict[str, Any]],
    kept: Sequence[dict[str, Any]],
) -> dict[str, Any]:
    """Return what is written."""
    minutes = sum(run["seconds"] for run in (*tuned, *kept)) / 60
    parts, pairs = summarize(kept), compared(kept)
    return {
        "package": "multi-edits",
        "version": __version__,
        "command": "nox -s reproduce -- multi-edits",
        "rows": [
            {name: value for name, value in row.items() if name not in ("cases", "scenes")}
            for row in parts
            if row["cases"] == "all"
        ],
        "joint": by_cases(parts),
        "differences": differences(pairs),
        "parts": parts,
        "compared": pairs,
        "kinds": by_kind(kept),
        "frozen": list(frozen.values()),
        "tuning": tuning_points(tuned),
        "settings": {
            "seeds": list(SEEDS[: options.seeds]),
            "scenes": options.scenes,
            "tuning scenes": options.tuned_on,
            "edits at once": list(COUNTS),
            "strata": list(STRATA),
            "steps": STEPS,
            "bound outside, dB": BOUND,
            "grid": list(GRID),
            "grid of LEDITS++": list(LEDITS_GRID),
        },
        "hardware": f"{describe_device(torch.device('cpu'))}, {platform.system()}, one thread per "
        f"run, torch {torch.__version__}, Python {platform.python_version()}",
        "notes": ("QUICK: too few scenes and settings to tell anything. " if options.quick else "")
        + f"{NOTES}{cut(options)}{len(tuned) + len(kept)} runs took {minutes:.0f} CPU minutes of "
        "one thread.",
    }


def cut(options: argparse.Namespace) -> str:
    """Return what of the design was left out."""
    left = []
    if options.seeds < len(SEEDS):
        left.append(f"{options.seeds} of {len(SEEDS)} seeds of the noise")
    if options.scenes < SCENES:
        left.append(f"{options.scenes} of {SCENES} scenes")
    if options.wanted != list(ARMS):
        left.append(f"the arms {', '.join(options.wanted)}")
    return f"Cut for time: only {'; '.join(left)}. " if left else ""


if __name__ == "__main__":
    main()
