"""The experiment behind docs/results/cmdfd.json: what does correlation distillation add?

All students of a seed have the same start, the same clips in the same order, and the same steps;
they train on one kind of forgery and are tested on six (`corpora`). Teachers learn from real clips
of other people (`pair`), and no student has one when it is tested. A seed changes the people, the
clips, the teachers and the start. Sizes and steps were chosen with the plain student and the
teachers on another seed, 100; COMPARED in `tables` and all settings were there before any run.
Finished runs are kept in --runs and not repeated.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cached_property
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pair
import torch
from cmdfd import __version__
from cmdfd.audit import audit_entries
from cmdfd.baselines import divergence_scores, scores_of, sync_scores
from cmdfd.corpus import Recipe
from cmdfd.corpus_files import write_corpus
from cmdfd.data import AVBatch, AVData
from cmdfd.headers import with_headers
from cmdfd.layouts import open_clips
from cmdfd.lightning import CMDFDModule
from cmdfd.model import CMDFDNet
from cmdfd.one_stream import OneStreamNet, Stream
from cmdfd.small_teacher import SmallTeacher
from corpora import REAL, SEEN, UNSEEN, Counts, Part, make_parts, moved
from papercommons.cli import RunOptions
from papercommons.files import write_json
from papercommons.metrics.roc import unchecked_auc
from papercommons.report import describe_device
from papercommons.training import fit, seed_everything
from tables import JEFFREYS, JS, PLAIN, Run, compared, curves, summarize, teachers
from torch import Tensor

STUDENTS: dict[str, dict[str, Any]] = {  # of `CMDFDModule`, with a teacher
    JEFFREYS: {"target": "jeffreys"},
    JS: {"target": "js"},
    "+ JS, L_dist alone": {"target": "js", "w_con": 0.0},
    "+ JS, L_con alone": {"target": "js", "w_dist": 0.0},
    "+ JS, real clips": {"target": "js", "distill": "real"},
}
ONE_STREAM: dict[str, Stream] = {"visual only": "visual", "audio only": "audio"}
ALONE: dict[str, Callable[[Part, SmallTeacher], Tensor]] = {  # the teachers, without a student
    "teachers, mean JS": lambda part, t: divergence_scores(part.clips, t, target="js"),
    "teachers, mean Jeffreys": lambda part, t: divergence_scores(part.clips, t, target="jeffreys"),
    "teachers, sync offset": lambda part, t: sync_scores(part.clips, t),
}
ARMS = (PLAIN, *STUDENTS, *ALONE, *ONE_STREAM)
SEEDS = 6
SIZES: dict[str, Any] = {
    "dim": 32,
    "visual_width": 8,
    "audio_layers": (1, 1, 1, 1),
    "tcn_layers": 2,
    "heads": 4,
}
EPOCHS, TEACHER_EPOCHS, LR, FRAMES_PER_BATCH = 8, 16, 1e-3, 800
COUNTS, QUICK = Counts(), Counts(train=16, teach=8, real=8, fake=2)
MOST = 9  # frames by which the sound of real clips is moved
LAGS = (-9, -6, -3, -1, 0, 1, 3, 6, 9)
FILES = 240  # clips that are written and read again for the metadata
NOTES = (
    "AUC of the fakes of a kind against real clips (a quarter with 1 or 2 frames of natural lag) "
    "of unseen people; mean over seeds ± standard deviation. Students train on real clips and "
    "lipsync alone; unseen, mean: of the five other kinds. Compared: paired by seed; interval and "
    "p (t) of Student's t, p (signs) of the exact test that flips signs, no correction for the "
    "number of rows. Teachers see few clips for a short time, which is all that makes them "
    "weak; the voice's stops early. Of a sync offset the score is minus its confidence. Metadata: "
    "of the corpus as mp4 files. "
)


class OneSeed:
    """The clips and teachers of one seed, made when they are needed.

    Args:
        seed: of all.
        quick: few clips and steps.
    """

    def __init__(self, seed: int, *, quick: bool) -> None:
        self.seed, self.quick = seed, quick

    @cached_property
    def parts(self) -> dict[str, Part]:
        """The parts, see `corpora.make_parts`."""
        return make_parts(self.seed, QUICK if self.quick else COUNTS)

    @cached_property
    def teacher(self) -> SmallTeacher:
        """The teachers, trained."""
        epochs = 1 if self.quick else TEACHER_EPOCHS
        return pair.train_teacher(self.parts["teach"], epochs=epochs, seed=self.seed)

    def train(self, arm: str) -> tuple[CMDFDModule, list[float]]:
        """Return a student after the last step, and the loss of each epoch."""
        teacher = self.teacher if arm in STUDENTS else None
        seed_everything(self.seed)
        net = OneStreamNet(ONE_STREAM[arm], **SIZES) if arm in ONE_STREAM else CMDFDNet(**SIZES)
        module = CMDFDModule(net, teacher, lr=LR, **STUDENTS.get(arm, {}))
        data = AVData(self.parts["train"].clips, frames_per_batch=FRAMES_PER_BATCH, seed=self.seed)
        run = RunOptions(seed=self.seed, accelerator="cpu")
        _, history = fit(module, data, epochs=1 if self.quick else EPOCHS, run=run)
        return module.eval(), [row["train/loss"] for row in history.rows]


def aucs(scores: Tensor, kinds: Sequence[str]) -> dict[str, float]:
    """Return kind of fake -> AUC against all real clips.

    Args:
        scores: higher = more fake, shape (N,).
        kinds: of the clips.
    """
    values, names = scores.double().numpy(), np.array(kinds)
    found = {}
    for kind in (SEEN, *UNSEEN):
        taken = (names == kind) | (names == REAL)
        found[kind] = float(unchecked_auc(values[taken], names[taken] == kind))
    return found


def judged(module: CMDFDModule, part: Part) -> dict[str, Any]:
    """Return what a run says of its network: AUC and, with both streams, what correlation says.

    Args:
        module: trained, in evaluation mode.
        part: the test.
    """

    def both(batch: AVBatch) -> Tensor:
        said = module.predict_step(batch, 0)
        return torch.stack([said.scores, said.correlation.mean(1)], dim=1)

    score, together = scores_of(part.clips, both).unbind(1)
    found: dict[str, Any] = {"auc": aucs(score, part.kinds)}
    if isinstance(module.net, OneStreamNet):
        return found
    found["by correlation"] = aucs(-together, part.kinds)
    found["sync"] = aucs(sync_scores(part.clips, module.net), part.kinds)
    found["moved"] = {
        str(lag): float(scores_of(moved(part, lag, MOST), both)[:, 1].mean()) for lag in LAGS
    }
    return found


def do(options: argparse.Namespace, seed: int) -> None:
    """Train and judge all that is missing of one seed."""
    torch.set_num_threads(options.threads)
    made = OneSeed(seed, quick=options.quick)
    for arm in options.arms:
        if not run_file(options.runs, arm, seed).is_file():
            do_arm(options, made, arm)


def do_arm(options: argparse.Namespace, made: OneSeed, arm: str) -> None:
    """Train and judge one arm; the first of a seed pays for the clips, or for the teachers."""
    started = time.process_time()
    test = made.parts["test"]
    teacher = made.teacher if arm in (*STUDENTS, *ALONE) else None
    about: Run = {"seed": made.seed, "arm": arm}
    if teacher is not None and arm in ALONE:
        about["auc"] = aucs(ALONE[arm](test, teacher), test.kinds)
        heard, seen = pair.accuracies(teacher, test)
        about["understood"] = {"voice": heard, "mouth": seen}
    else:
        module, about["losses"] = made.train(arm)
        about["parameters"] = sum(p.numel() for p in module.net.parameters())
        about |= judged(module, test)
    about["seconds"] = time.process_time() - started
    write_json(run_file(options.runs, arm, made.seed), about)
    found = ", ".join(f"{kind} {value:.3f}" for kind, value in about["auc"].items())
    print(f"seed {made.seed}, {arm}: {found}; {about['seconds']:.0f} s", flush=True)


def run_file(runs: Path, arm: str, seed: int) -> Path:
    """Return where a run is kept."""
    plain = "".join(c if c.isalnum() else "-" for c in arm)
    return runs / f"{plain}-seed{seed}.json"


def metadata(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return what the lengths of the corpus give away once it is written as mp4 files."""
    file = options.runs / "metadata.json"
    if not file.is_file():
        recipe = Recipe(
            count=60 if options.quick else FILES, people=60, seconds=(1.6, 2.0), size=64
        )
        write_corpus(options.runs / "files", recipe, overwrite=True)
        entries, _ = with_headers(open_clips([options.runs / "files" / "list.csv"]))
        audit = audit_entries(entries)
        write_json(file, [each._asdict() for each in audit.separations])
    found: list[dict[str, Any]] = json.loads(file.read_text("utf-8"))
    names = {"method": "fakes of", "fakes": "fakes", "reals": "real", "auc": "AUC of the offset"}
    return [
        {name: row[key] for key, name in names.items()}
        | {"95 % low": row["low"], "95 % high": row["high"], "equal offsets": row["ties"]}
        for row in found
    ]


def main() -> None:
    """Do what is missing, then write the results."""
    options = parse()
    seeds = range(options.seeds)
    with ProcessPoolExecutor(options.processes, mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(do, options, seed) for seed in seeds]
        for future in futures:
            future.result()
    leak = metadata(options)
    files = [run_file(options.runs, arm, seed) for arm in ARMS for seed in range(SEEDS)]
    kept: list[Run] = [json.loads(file.read_text("utf-8")) for file in files if file.is_file()]
    write_json(options.out, results(options, kept, leak))


def parse() -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="JSON file of the results")
    parser.add_argument("--runs", type=Path, default=Path("runs/cmdfd-reproduce"))
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", help="names of arms, semicolon-separated")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="the first ones of 0 to 5")
    parser.add_argument("--quick", action="store_true", help="few clips and steps, seed 0")
    options = parser.parse_args()
    options.seeds = 1 if options.quick else options.seeds
    if not 1 <= options.seeds <= SEEDS:
        parser.error(f"--seeds must be in [1, {SEEDS}], got {options.seeds}")
    options.arms = options.only.split(";") if options.only else ARMS
    for name in options.arms:
        if name not in ARMS:
            parser.error(f"--only: no {name!r}; there are {'; '.join(ARMS)}")
    options.runs = options.runs / ("quick" if options.quick else "all")
    options.runs.mkdir(parents=True, exist_ok=True)
    return options


def results(
    options: argparse.Namespace, kept: Sequence[Run], leak: list[dict[str, Any]]
) -> dict[str, Any]:
    """Return what is written."""
    counts = QUICK if options.quick else COUNTS
    minutes = sum(run["seconds"] for run in kept) / 60
    return {
        "package": "cmdfd",
        "version": __version__,
        "command": "nox -s reproduce -- cmdfd",
        "rows": summarize(kept),
        "compared": compared(kept),
        "correlation": summarize(kept, "by correlation"),
        "sync": summarize(kept, "sync"),
        "moved": curves(kept),
        "teachers": teachers(kept),
        "metadata": leak,
        "settings": {
            "seeds": sorted({run["seed"] for run in kept}),
            "clips": vars(counts),
            "clip": "40 to 50 frames, mouths of 32 x 32 pixels in grey",
            "network": SIZES,
            "parameters": max((run.get("parameters", 0) for run in kept), default=0),
            "recipe": f"Adam, {LR:g} times 0.95 per epoch, {EPOCHS} epochs, {FRAMES_PER_BATCH} "
            "frames per batch, augmented; all weights 1",
            "teachers": f"{pair.DIM} dimensions, width {pair.WIDTH}, Adam, one cycle up to "
            f"{pair.LR:g} and down, {TEACHER_EPOCHS} epochs, the voice {pair.VOICE:.1%} of them, "
            "augmented",
            "students": STUDENTS,
        },
        "hardware": f"{describe_device(torch.device('cpu'))}, {platform.system()}, one thread per "
        f"run, torch {torch.__version__}, Python {platform.python_version()}",
        "notes": ("QUICK: too few clips and steps to learn from. " if options.quick else "")
        + f"{NOTES}{len(kept)} runs took {minutes:.0f} CPU minutes of one thread.",
    }


if __name__ == "__main__":
    main()
