"""The experiment behind docs/results/cmdfd-real.json: is a real face's sound its own?

A folder of real clips, one person each (GRID's six), is written again with every clip's sound under
every clip's picture, all through one encoder and of one length: a picture, and a sound, is in real
and swapped clips alike, so that neither tells anything by itself. Two people are left out in turn.
What is compared: a network that was trained on made clips alone, and the same network trained on
with made clips and the real and swapped ones of the other people. Seeds pair people anew, until
everybody has met everybody. All settings were there before any score was looked at. Finished
seeds are kept in --runs and not repeated.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from cmdfd import __version__
from cmdfd.audit import audit_entries
from cmdfd.baselines import divergence_scores, scores_of, sync_scores
from cmdfd.corpus import Recipe
from cmdfd.corpus_files import write_corpus
from cmdfd.data import ArrayClips, AVClips, AVData
from cmdfd.headers import with_headers
from cmdfd.lightning import CMDFDModule
from cmdfd.lists import read_list
from cmdfd.model import CMDFDNet
from cmdfd.prepared import PreparedClips
from cmdfd.preparing_files import Preparation
from cmdfd.preparing_lists import open_or_prepare
from cmdfd.presets import NETWORKS, PRESETS
from corpora import Part
from pair import train_teacher
from papercommons.cli import RunOptions
from papercommons.files import write_json
from papercommons.metrics.roc import unchecked_auc
from papercommons.metrics.verification import pair_weights
from papercommons.report import describe_device
from papercommons.training import fit, seed_everything
from real_sets import cut, joined, loaded, rounds, training_clips, with_people, write_swapped
from torch import Tensor

Row = dict[str, Any]
MADE, BOTH, TEACHERS = "made clips", "made and real clips", "teachers, made clips"
PRESET = PRESETS["quick"]
SIZE = PRESET["size"]
TRAIN_PIECE, DRAWS = 40, 10_000  # frames; resamples
SEEDS, EPOCHS, MORE_EPOCHS, TEACHER_EPOCHS = 3, 20, 8, 16
TURNS = 4  # how often an epoch has each real clip's picture with its own sound, and with others'
RECIPE: Row = {
    "count": 400,
    "kinds": ("real", "lag", "swap", "rhythm", "shift"),
    "unseen": (),
    "seconds": (1.6, 2.0),
    "size": SIZE,
    "val_fraction": 0.35,  # of the teachers
    "test_fraction": 0.15,
}
QUICK = {"count": 40, "people": 12}
NOTES = (
    "Swapped against original clips of two people whom no training had; the mean over all such "
    "pairs of people. AUC: of 2 originals and 2 swapped clips. Pieces: of the same clips, cut into "
    "parts of 0.96 s; interval over people who are drawn with replacement, a pair weighs the "
    "product of its two. Higher: share of the pairs in which the swapped clips have the higher "
    "mean. Who looks at one stream alone gets 0.5 by construction. AUC, made clips: of people of "
    "the corpus who are in no training. Scores: the network's; minus its mean c_t; minus the "
    "confidence of the best offset of its embeddings; the mean Jensen-Shannon divergence of "
    "recognisers of what made clips say. The network is the plain classifier: there was no "
    "recogniser of real lips. Seeds share the corpus. "
)


def main() -> None:
    """Do what is missing, then write the results."""
    options = parse()
    torch.set_num_threads(options.threads)
    real, leak = real_clips(options)
    made = made_clips(options)
    pairs = list(rounds(sorted({entry.face for entry in real.entries})))
    for seed in range(options.seeds):
        if not run_file(options, seed).is_file():
            started = time.process_time()
            rows = [*of_seed(options, real, made, pairs[seed % len(pairs)], seed)]
            seconds = time.process_time() - started
            write_json(run_file(options, seed), {"rows": rows, "seconds": seconds})
    files = [run_file(options, seed) for seed in range(options.seeds)]
    write_json(
        options.out, results(options, [json.loads(f.read_text("utf-8")) for f in files], leak)
    )


def parse() -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of clips, a person each")
    parser.add_argument("--out", type=Path, required=True, help="JSON file of the results")
    parser.add_argument("--runs", type=Path, default=Path("runs/cmdfd-real"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=SEEDS, help="0 and so on")
    parser.add_argument("--quick", action="store_true", help="few clips and steps, seed 0")
    options = parser.parse_args()
    options.seeds = 1 if options.quick else options.seeds
    if options.seeds < 1:
        parser.error(f"--seeds must be >= 1, got {options.seeds}")
    options.runs = options.runs / ("quick" if options.quick else "all")
    options.runs.mkdir(parents=True, exist_ok=True)
    return options


def run_file(options: argparse.Namespace, seed: int) -> Path:
    """Return where the scores of a seed are kept."""
    return Path(options.runs / f"seed{seed}.json")


def real_clips(options: argparse.Namespace) -> tuple[PreparedClips, Row]:
    """Return every picture with every sound, cut to the face, and what the lengths give away."""
    folder = options.runs / "real"
    if not (folder / "list.csv").is_file():
        write_swapped(options.data, folder)
    clips = open_or_prepare([folder / "list.csv"], options.runs, how=Preparation("lbp", SIZE))
    found = audit_entries(with_headers(read_list(folder / "list.csv"))[0]).overall
    leak = {"real": found.reals, "swapped": found.fakes, "AUC of the offset": found.auc}
    return clips, leak | {"equal offsets": found.ties, "verdict": found.verdict}


def made_clips(options: argparse.Namespace) -> tuple[Part, ArrayClips, ArrayClips]:
    """Return the corpus, made where it is not there: for teachers, to train on, and to test."""
    folder = options.runs / "made"
    if not (folder / "facts.json").is_file():
        recipe = Recipe(**RECIPE | (QUICK if options.quick else {}))
        write_corpus(folder, recipe, overwrite=True)
    clips = open_or_prepare([folder], options.runs, how=Preparation("none", SIZE))
    parts = [
        part for name in ("val", "train", "test") if (part := clips.of_split(name)) is not None
    ]
    teach, train, test = parts
    real = [k for k, label in enumerate(teach.labels) if not label]
    classes = [found for k in real if (found := teach.classes(k)) is not None]
    return Part(loaded(teach, real), ["real"] * len(real), classes), loaded(train), loaded(test)


def of_seed(
    options: argparse.Namespace,
    real: PreparedClips,
    made: tuple[Part, ArrayClips, ArrayClips],
    pairs: Sequence[tuple[str, str]],
    seed: int,
) -> Iterator[Row]:
    """Give what is said of each pair of people by each network and score, and by the teachers."""
    epochs, more, taught = (1, 1, 1) if options.quick else (EPOCHS, MORE_EPOCHS, TEACHER_EPOCHS)
    teach, corpus, test = made
    teacher = train_teacher(teach, epochs=taught, seed=seed)
    before = train(corpus, seed, epochs)
    for pair in pairs:
        judged = loaded(real, with_people(real, set(pair)))
        clips = joined(corpus, training_clips(real, set(pair), TURNS))
        after = train(clips, seed, more, begin=before.net)
        judges = {(MADE, name): judge for name, judge in scores(before).items()}
        judges |= {(BOTH, name): judge for name, judge in scores(after).items()}
        judges[TEACHERS, "divergence"] = lambda clips: divergence_scores(clips, teacher)
        for (trained, score), judge in judges.items():
            row = {"trained on": trained, "score": score, "pair": pair}
            yield row | told(judge, judged, test)


def train(clips: AVClips, seed: int, epochs: int, *, begin: CMDFDNet | None = None) -> CMDFDModule:
    """Return a network after the last step, trained from the start or on."""
    seed_everything(seed)
    net = CMDFDNet(**NETWORKS["quick"])
    if begin is not None:
        net.load_state_dict(begin.state_dict())
    module = CMDFDModule(net, lr=PRESET["lr"], lr_decay=PRESET["lr_decay"])
    data = AVData(
        clips, frames_per_batch=PRESET["frames_per_batch"], max_frames=TRAIN_PIECE, seed=seed
    )
    fit(module, data, epochs=epochs, run=RunOptions(seed=seed, accelerator="cpu"))
    return module.eval()


Judge = Callable[[AVClips], Tensor]


def scores(module: CMDFDModule) -> dict[str, Judge]:
    """Return what a network may say of clips, all higher for fakes."""
    return {
        "network": lambda clips: scores_of(clips, lambda b: module.predict_step(b, 0).scores),
        "correlation": lambda clips: scores_of(
            clips, lambda b: -module.predict_step(b, 0).correlation.mean(1)
        ),
        "sync offset": lambda clips: sync_scores(clips, module.net),
    }


def told(judge: Judge, real: ArrayClips, made: ArrayClips) -> Row:
    """Return how well a score tells swapped from real clips, and made fakes from made real ones."""
    pieces, said = cut(real), judge(real).numpy()
    fake = np.array(real.labels) == 1
    return {
        "auc": unchecked_auc(said, fake),
        "pieces": unchecked_auc(judge(pieces).numpy(), np.array(pieces.labels) == 1),
        "higher": float(said[fake].mean() > said[~fake].mean()),
        "made": unchecked_auc(judge(made).numpy(), np.array(made.labels) == 1),
        "said": said.tolist(),
    }


def interval(values: Sequence[float], pairs: Sequence[tuple[str, str]]) -> tuple[float, float]:
    """Return the 95 % interval of a mean over pairs, over people who are drawn with replacement."""
    one, other = zip(*pairs, strict=True)
    weights = pair_weights(one, other, draws=DRAWS).astype(np.float64)
    weights = weights[weights.sum(1) > 0]  # no pair is left where its people were not drawn both
    low, high = np.quantile(weights @ np.array(values) / weights.sum(1), [0.025, 0.975])
    return float(low), float(high)


def summarize(rows: Sequence[Row]) -> list[Row]:
    """Return a line for each network and score."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["trained on"], row["score"]), []).append(row)
    table = []
    for (trained, score), own in groups.items():
        low, high = interval([row["pieces"] for row in own], [tuple(row["pair"]) for row in own])
        line: Row = {"trained on": trained, "score": score, "pairs": len(own)}
        line |= {"AUC": fmean(row["auc"] for row in own)}
        line |= {"AUC, pieces": fmean(row["pieces"] for row in own)}
        line |= {"95 % low": low, "95 % high": high, "higher": fmean(row["higher"] for row in own)}
        table.append(line | {"AUC, made clips": fmean(row["made"] for row in own)})
    return table


def results(options: argparse.Namespace, kept: Sequence[Row], leak: Row) -> Row:
    """Return what is written."""
    rows = [row for seed in kept for row in seed["rows"]]
    minutes = sum(seed["seconds"] for seed in kept) / 60
    return {
        "package": "cmdfd",
        "version": __version__,
        "command": "python packages/cmdfd/reproduce/real_clips.py --data CLIPS --out FILE.json",
        "rows": summarize(rows),
        "metadata": [leak],
        "pairs": [{k: v for k, v in row.items() if k != "said"} for row in rows],
        "settings": {
            "seeds": options.seeds,
            "corpus": RECIPE | (QUICK if options.quick else {}),
            "preset": f"quick, pieces of {TRAIN_PIECE} frames",
            "epochs": {MADE: EPOCHS, f"then {BOTH}": MORE_EPOCHS, TEACHERS: TEACHER_EPOCHS},
            "turns of each picture and sound in an epoch": TURNS,
        },
        "hardware": f"{describe_device(torch.device('cpu'))}, {platform.system()}, "
        f"{options.threads} thread, torch {torch.__version__}, Python {platform.python_version()}",
        "notes": ("QUICK: too few clips and steps to learn from. " if options.quick else "")
        + f"{NOTES}{len(kept)} seeds took {minutes:.0f} CPU minutes.",
    }


if __name__ == "__main__":
    main()
