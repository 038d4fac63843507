"""The honest small experiments: do refined logits help where the teacher is wrong?

CE, KD, DKD and RLD with their default weights, on scikit-learn's digits and, where the file is
given or lies beside the checkout, on Omniglot; with a well-trained teacher, one stopped early, and
one trained on labels of which 40 % are random; five seeds of the student each. Finished runs are
kept in --runs and not repeated.
"""

from __future__ import annotations

import argparse
import json
import logging
import platform
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
import torch
from papercommons.cli import RunOptions
from papercommons.files import write_json
from papercommons.report import describe_device
from rld_distill import __version__
from rld_distill.data import Batch, DistillData
from rld_distill.distill import distill
from rld_distill.methods import complete_options
from rld_distill.plans import Plan
from scipy.stats import ttest_rel
from torch import nn

SEEDS = (0, 1, 2, 3, 4)
METHODS = ("ce", "kd", "dkd", "rld")
IMAGE_SIZE = 16
NOISE = 0.4
TEACHERS = {  # name: (share of the epochs, share of random labels)
    "well trained": (1.0, 0.0),
    "stopped early": (0.125, 0.0),
    "40 % random labels": (1.0, NOISE),
}


def plan(network: str, method: str, epochs: int) -> Plan:
    """Return the quick recipe, with the paper's proportions."""
    return Plan(
        student=network,
        method=method,
        loss_options=complete_options(method, {}),
        ce_weight=None,
        epochs=epochs,
        warmup_epochs=round(epochs / 12),
        lr=0.05,
        momentum=0.9,
        weight_decay=5e-4,
        milestones=tuple(round(share * epochs) for share in (0.625, 0.75, 0.875)),
    )


def train_teacher(data: DistillData, epochs: int, noise: float) -> nn.Module:
    """Return a resnet20 trained on labels of which a share is random."""
    labels = data.splits.train.labels
    generator = torch.Generator().manual_seed(7)
    random = torch.randint(len(data.classes), labels.shape, generator=generator)
    replaced = torch.rand(labels.shape, generator=generator) < noise
    data.splits.train.labels = torch.where(replaced, random, labels)
    outcome = distill(plan("resnet20", "ce", epochs), data, None, run=RunOptions(accelerator="cpu"))
    data.splits.train.labels = labels
    return outcome.module.student


def accuracy(network: nn.Module, batches: Iterable[Batch]) -> float:
    """Return the share of images that `network` names rightly."""
    network.eval()
    with torch.inference_mode():
        right = [network(batch.images).argmax(1) == batch.target for batch in batches]
    return torch.cat(right).double().mean().item()


def compare(name: str, data: DistillData, epochs: int, runs: Path) -> list[dict[str, Any]]:
    """Return one row per teacher and method."""
    rows = []
    plain: list[float] | None = None
    for teacher_name, (share, noise) in TEACHERS.items():
        file = runs / f"{name}-{teacher_name.replace(' ', '-').replace('%', 'percent')}.json"
        found = json.loads(file.read_text()) if file.is_file() else {}
        if len(found.get("rld", [])) < len(SEEDS):
            teacher = train_teacher(data, max(1, round(share * epochs)), noise)
            seen = data.loader(data.splits.train)  # true labels, not augmented
            found["teacher"] = [accuracy(teacher, seen), accuracy(teacher, data.test_dataloader())]
            for method in METHODS:
                if method == "ce" and plain is not None:
                    found["ce"] = plain
                    continue
                for seed in SEEDS[len(found.setdefault(method, [])) :]:
                    outcome = distill(
                        plan("resnet8", method, epochs),
                        data,
                        None if method == "ce" else teacher,
                        run=RunOptions(seed=seed, accelerator="cpu"),
                    )
                    found[method].append(outcome.test["accuracy"])
                    print(
                        f"{name}, {teacher_name}, {method}, seed {seed}: {found[method][-1]:.4f}",
                        flush=True,
                    )
                    write_json(file, found)
            write_json(file, found)
        plain = found["ce"]
        for method in METHODS:
            values, rld = found[method], found["rld"]
            same = max(abs(a - b) for a, b in zip(values, rld, strict=True)) < 1e-12
            rows.append(
                {
                    "data": name,
                    "teacher": teacher_name,
                    "teacher train": found["teacher"][0],
                    "teacher test": found["teacher"][1],
                    "method": method,
                    "accuracy": fmean(values),
                    "std": stdev(values),
                    "minus rld": None if method == "rld" else fmean(values) - fmean(rld),
                    "p": None if method == "rld" or same else float(ttest_rel(values, rld).pvalue),
                    "per seed": values,
                }
            )
    return rows


def omniglot(file: Path, runs: Path) -> str:
    """Return an .npz with the recommended split: drawers 1-15 train, 16-20 test."""
    arrays = np.load(file, allow_pickle=False)
    split = np.where(arrays["drawer"] <= 15, "train", "test")
    path = runs / "omniglot.npz"
    np.savez(
        path,
        images=arrays["images"],
        labels=arrays["labels"],
        class_names=arrays["class_names"],
        split=split,
    )
    return str(path)


def main() -> None:
    """Run what is not finished and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("rld-distill.json"))
    parser.add_argument("--runs", type=Path, default=Path("runs/rld-distill-reproduce"))
    name = "shared/data/omniglot-small/omniglot_small_32.npz"
    places = [up / name for up in Path(__file__).resolve().parents]
    beside = next((place for place in places if place.is_file()), Path(name))
    parser.add_argument("--omniglot", type=Path, default=beside)
    parser.add_argument("--epochs", type=int, default=24)
    options = parser.parse_args()
    logging.getLogger("papercommons").setLevel(logging.WARNING)
    options.runs.mkdir(parents=True, exist_ok=True)
    sets = {"digits": "digits"}
    if options.omniglot.is_file():
        sets["omniglot"] = omniglot(options.omniglot, options.runs)
    else:
        print(f"{options.omniglot} is absent: digits only")
    rows = []
    sizes = {}
    for name, source in sets.items():
        data = DistillData(source, size=IMAGE_SIZE, val_fraction=0.0, augment="crop")
        sizes[name] = [len(data.splits.train), len(data.splits.test), len(data.classes)]
        rows += compare(name, data, options.epochs, options.runs)
    result = {
        "package": "rld-distill",
        "version": __version__,
        "command": "nox -s reproduce -- rld-distill",
        "rows": rows,
        "settings": {
            "seeds": list(SEEDS),
            "epochs": options.epochs,
            "image size": IMAGE_SIZE,
            "teacher": "resnet20",
            "student": "resnet8",
            "train, test, classes": sizes,
            "weights": {m: complete_options(m, {}) for m in METHODS},
            "recipe": str(replace(plan("resnet8", "rld", options.epochs), loss_options={})),
        },
        "hardware": f"{describe_device(torch.device('cpu'))}, torch {torch.__version__}, "
        f"Python {platform.python_version()}",
        "notes": "Accuracy on the test split after the last epoch, mean and standard deviation "
        "over the students' seeds; all students of a block share one teacher. Weights are the "
        "defaults, untuned. p: paired two-sided t-test against rld over seeds, not corrected for "
        "the number of comparisons. A dash in p: the runs are equal to the last digit.",
    }
    write_json(options.out, result)
    for row in rows:
        name = f"{row['data']:9} {row['teacher']:20} {row['method']:4}"
        print(f"{name} {row['accuracy']:.4f} ± {row['std']:.4f}")


if __name__ == "__main__":
    main()
