"""The experiment behind docs/results/ssl-hv.json: does pre-training help, and does it beat HOG?

Every method pre-trains the same small network on the same unlabelled words for about as many
gradients; then 10 % of the writers' labels are used in the same way for all. Beside them stand
handcrafted features and the same network without pre-training. Test: the published pairs of unseen
writers. Thresholds and calibration come from held-out training writers only. Finished runs are kept
in --runs and not repeated.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
import torch
from papercommons.cli import RunOptions
from papercommons.data.words import open_words
from papercommons.files import atomic_path, write_json
from papercommons.metrics.verification import embedding_spread, pair_weights
from papercommons.report import describe_device
from papercommons.training import fit, seed_everything
from ssl_hv import __version__
from ssl_hv.data import WordData
from ssl_hv.embedding import embed
from ssl_hv.evaluation import calibrate, judge
from ssl_hv.lightning import PRETRAINING
from ssl_hv.options import PACKAGE
from ssl_hv.presets import METHODS, recipe_of
from ssl_hv.pretraining import TINY, choose_encoder
from ssl_hv.supervised import VerifierModule, WriterModule
from ssl_hv.training import HEAD_OF, WRITERS_DROPOUT, embed_words, fit_head
from ssl_hv.verifier import SiameseVerifier
from torch import Tensor

SEEDS = (0, 1, 2)
FEATURES = ("raw", "hog", "gsc", "gsc-bits")
SCRATCH = ("resnet-layout", "resnet18", "vit-tiny")
PAIR_EPOCHS, PAIR_BATCH, WIDTH = 4, 96, 16
WRITER_EPOCHS = {1.0: 20, 0.1: 60}
WRITER_WIDTH = 32
LONG = 8  # epochs of pre-training for the recipe with 10 % of the labels
TUNED = ("vicreg", "vae")  # also fine-tuned on pairs; the others are judged frozen
PAGES = f"vicreg x{LONG} of pages"
NOTES = (
    "Means over seeds ± standard deviation (writers held out, pairs, weights and order change with "
    "the seed). Threshold and calibration: a tenth of the labelled writers. intra, inter: mean "
    "cosines of centred embeddings of the test writers. Rows with “of pages” know which unlabelled "
    "words share a page: a weak label."
)
FIRST = (  # what stands in COMPARED, and what later runs begin from
    "scratch-resnet-layout",
    "pretrained-vicreg",
    "pretrained-vae",
    "long",
    "long-writers",
    "pages",
    "pages-writers",
)
COMPARED = (  # of (name, labels); frozen and pages were added when the others had been run
    (("vicreg, pairs", 0.1), ("resnet-layout, pairs", 0.1)),
    (("vae, pairs", 0.1), ("resnet-layout, pairs", 0.1)),
    (("vicreg, pairs", 0.1), ("hog, logistic", 0.1)),
    (("vicreg x8, writers", 0.1), ("writers", 0.1)),
    (("vicreg x8, writers", 0.1), ("hog, logistic", 0.1)),
    (("vicreg x8, writers", 0.1), ("gsc, logistic", 0.1)),
    (("vicreg x8, writers", 0.1), ("gsc, whitened", 0.1)),
    (("vicreg x8, logistic", 0.1), ("hog, logistic", 0.1)),
    (("vicreg x8, logistic", 0.1), ("gsc, whitened", 0.1)),
    ((f"{PAGES}, whitened", 0.1), ("vicreg x8, whitened", 0.1)),
    ((f"{PAGES}, writers", 0.1), ("writers", 0.1)),
    ((f"{PAGES}, writers", 0.1), ("gsc, whitened", 0.1)),
    (("writers", 1.0), ("hog, logistic", 1.0)),
    (("writers", 1.0), ("gsc, logistic", 1.0)),
    (("writers", 1.0), ("gsc, whitened", 1.0)),
)


class Study:
    """One process's share of the runs.

    Args:
        options: of the command line.
        seed: of the run.
    """

    def __init__(self, options: argparse.Namespace, seed: int) -> None:
        self.options, self.seed = options, seed
        self.words = open_words(options.data)
        self.run = RunOptions(seed=seed, accelerator=options.accelerator)
        self.device = torch.device("cuda" if options.accelerator == "gpu" else "cpu")
        self.short = options.quick

    def data(
        self, batches: Any, labels: float = 0.1, batch_size: int = 128, positives: Any = "word"
    ) -> WordData:
        """Return the words with a share of their labels."""
        return WordData(
            self.words,
            batches=batches,
            positives=positives,
            writer_fraction=labels,
            batch_size=batch_size,
            seed=self.seed,
        )

    def keep(
        self,
        name: str,
        labels: float,
        verifier: SiameseVerifier,
        data: WordData,
        objective: str,
        embeddings: Tensor | None = None,
    ) -> dict[str, Any]:
        """Fit what needs no gradient, calibrate, judge, keep the scores, return the row."""
        if embeddings is None:
            embeddings = embed_words(verifier, data, self.device)
        fit_head(verifier, embeddings, data, objective)
        calibrate(verifier, embeddings, data.pairs["val"])
        found = judge(verifier, embeddings, self.words, data.pairs["test"], draws=10)
        test = torch.as_tensor(data.splits["test"])
        centred = embeddings[test] - embeddings[torch.as_tensor(data.splits["unlabelled"])].mean(0)
        writers = [self.words.writers[place] for place in data.splits["test"]]
        spread = embedding_spread(centred.numpy(), writers)
        file = self.options.runs / f"{name}-{labels}-{self.seed}.npz".replace(", ", "+")
        with atomic_path(file) as temporary, temporary.open("wb") as target:
            np.savez_compressed(target, scores=found.scores, says=found.scores >= found.threshold)
        metrics = {key: found.metrics[key].value for key in ("accuracy", "auc", "eer", "cllr")}
        row = {"name": name, "labels": labels, "seed": self.seed, "scores": file.name}
        row |= metrics | {"intra": spread["intra_pairs"], "inter": spread["inter_pairs"]}
        print(name, labels, self.seed, {k: round(v, 4) for k, v in metrics.items()}, flush=True)
        return row

    def features(self, name: str) -> list[dict[str, Any]]:
        """Judge a handcrafted descriptor with 10 % and all labels, and without."""
        rows = []
        for labels in (0.0, 0.1, 1.0) if name != "raw" else (0.0,):
            data = self.data("pairs", labels or 0.1)
            for objective in ("cosine", "logistic", "whitened"):
                if (objective == "cosine") != (labels == 0 or name == "raw"):
                    continue
                options = {"whiten": True} if objective == "whitened" else {}
                verifier = SiameseVerifier(name, HEAD_OF[objective], head_options=options)
                rows.append(self.keep(f"{name}, {objective}", labels, verifier, data, objective))
        return rows

    def scratch(self, encoder: str) -> list[dict[str, Any]]:
        """Train a network on pairs without pre-training."""
        options = {} if encoder == "resnet18" else {"image_size": 64}
        options |= {"width": WIDTH} if encoder == "resnet-layout" else {}
        verifier = SiameseVerifier(encoder, "pair", encoder_options=options)
        return [self.train_pairs(f"{encoder}, pairs", verifier)]

    def train_pairs(self, name: str, verifier: SiameseVerifier) -> dict[str, Any]:
        """Train on pairs with 10 % of the labels."""
        data = self.data("pairs", 0.1, PAIR_BATCH)
        fit(VerifierModule(verifier), data, epochs=1 if self.short else PAIR_EPOCHS, run=self.run)
        return self.keep(name, 0.1, verifier, data, "pairs")

    def pretrained(
        self, method: str, epochs: int | None = None, positives: Any = "word"
    ) -> list[dict[str, Any]]:
        """Pre-train; judge without labels, frozen, and (of some) fine-tuned on pairs."""
        system = method if epochs is None else f"{method} x{epochs}"
        system = PAGES if positives == "page" else system
        started = time.perf_counter()
        name, options = choose_encoder(method, None, "quick"), {"image_size": 64}
        options |= {"width": WIDTH} if name == "resnet-layout" else {}
        module = PRETRAINING[method](
            name,
            encoder_options=options,
            objective_options=TINY.get(method),
            recipe=recipe_of(method, "quick"),
        )
        epochs = 1 if self.short else epochs or self.options.epochs
        fit(module, self.data("images", positives=positives), epochs=epochs, run=self.run)
        seconds = time.perf_counter() - started
        weights = {key: value.clone() for key, value in module.encoder.state_dict().items()}
        torch.save({"weights": weights}, self.options.runs / f"{system}-{self.seed}.pt")
        data = self.data("pairs", 0.1)
        embeddings = embed(module.encoder, data.images, device=self.device)
        rows = []
        for objective, labels in (("cosine", 0.0), ("whitened", 0.1), ("logistic", 0.1)):
            head = {"whiten": True} if objective == "whitened" else {}
            verifier = SiameseVerifier(module.encoder, HEAD_OF[objective], head_options=head)
            found = self.keep(
                f"{system}, {objective}", labels, verifier, data, objective, embeddings
            )
            rows.append(found)
        if method in TUNED:
            verifier = SiameseVerifier(name, "pair", encoder_options=options)
            verifier.encoder.load_state_dict(weights)
            rows.append(self.train_pairs(f"{system}, pairs", verifier))
        return [row | {"pretraining_seconds": seconds} for row in rows]

    def writers(self, labels: float, system: str | None = None) -> list[dict[str, Any]]:
        """Train our own baseline on writers; from a pre-trained encoder if one is named."""
        width = WIDTH if labels < 1 else WRITER_WIDTH
        options = {"image_size": 64, "width": width, "dropout": WRITERS_DROPOUT}
        verifier = SiameseVerifier(
            "resnet-layout", "cosine", encoder_options=options, head_options={"whiten": True}
        )
        if system is not None:
            saved = torch.load(self.options.runs / f"{system}-{self.seed}.pt", weights_only=True)
            verifier.encoder.load_state_dict(saved["weights"])
        data = self.data("writers", labels)
        module = WriterModule(verifier, len(data.writers))
        epochs = 1 if self.short else WRITER_EPOCHS[labels]
        fit(module, data, epochs=epochs, run=self.run)
        name = "writers" if system is None else f"{system}, writers"
        return [self.keep(name, labels, verifier, data, "writers")]


def jobs() -> Iterator[tuple[str, Callable[[Study], list[dict[str, Any]]]]]:
    """Give every run of one seed by name, in an order in which what is needed comes first."""
    for name in FEATURES:
        yield f"features-{name}", partial(Study.features, name=name)
    for encoder in SCRATCH:
        yield f"scratch-{encoder}", partial(Study.scratch, encoder=encoder)
    for method in ("vicreg", "vae", *(m for m in METHODS if m not in ("vicreg", "vae"))):
        yield f"pretrained-{method}", partial(Study.pretrained, method=method)
    yield "writers-0.1", partial(Study.writers, labels=0.1)
    yield "long", partial(Study.pretrained, method="vicreg", epochs=LONG)
    yield "long-writers", partial(Study.writers, labels=0.1, system=f"vicreg x{LONG}")
    yield "pages", partial(Study.pretrained, method="vicreg", epochs=LONG, positives="page")
    yield "pages-writers", partial(Study.writers, labels=0.1, system=PAGES)
    yield "writers-1.0", partial(Study.writers, labels=1.0)


def do(options: argparse.Namespace, seed: int, name: str) -> None:
    """Do the named run of one seed, if it is not done yet."""
    file = options.runs / f"{name}-{seed}.json"
    if file.is_file():
        return
    torch.set_num_threads(options.threads)
    study = Study(options, seed)
    seed_everything(seed)
    started = time.perf_counter()
    rows = dict(jobs())[name](study)
    write_json(file, {"rows": rows, "seconds": time.perf_counter() - started})


def summarize(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return one row per system and share of labels: means and deviations over seeds."""
    table = []
    for name, labels in dict.fromkeys((row["name"], row["labels"]) for row in rows):
        own = [row for row in rows if (row["name"], row["labels"]) == (name, labels)]
        line: dict[str, Any] = {"system": name, "labels": f"{labels:.0%}", "seeds": len(own)}
        for key in ("accuracy", "auc", "eer", "cllr"):
            values = [row[key] for row in own]
            line[key] = fmean(values)
            line[f"{key} std"] = stdev(values) if len(values) > 1 else None
        line["intra"], line["inter"] = (fmean(row[k] for row in own) for k in ("intra", "inter"))
        table.append(line)
    return sorted(table, key=lambda line: -line["auc"])


def compare(
    rows: list[dict[str, Any]], options: argparse.Namespace, draws: int = 2000
) -> list[dict[str, Any]]:
    """Return the differences of `COMPARED`, with 95 % intervals over test writers.

    The seeds of a system are averaged inside each resample, so the interval is of the writers.
    """
    words = open_words(options.data)
    pairs = WordData(words, writer_fraction=0.1).pairs["test"]
    writers = np.asarray(words.writers)
    weights = pair_weights(writers[pairs.left], writers[pairs.right], draws=draws, seed=0)
    same = pairs.same.astype(bool)
    table = []
    for first, second in COMPARED:
        found = []
        for name, labels in (first, second):
            own = [r for r in rows if (r["name"], r["labels"]) == (name, labels)]
            if not own:
                break
            right = [np.load(options.runs / r["scores"])["says"] == same for r in own]
            found.append(np.mean(right, axis=0))
        if len(found) < 2:
            continue
        gain = found[0] - found[1]
        drawn = weights @ gain / weights.sum(1)
        low, high = np.quantile(drawn, [0.025, 0.975])
        table.append(
            {
                "first": f"{first[0]} ({first[1]:.0%})",
                "second": f"{second[0]} ({second[1]:.0%})",
                "accuracy gained": float(gain.mean()),
                "95 % low": float(low),
                "95 % high": float(high),
            }
        )
    return table


def main() -> None:
    """Do what is missing, then write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="JSON file of the results")
    parser.add_argument("--data", type=Path, required=True, help="CEDAR AND, packed or original")
    parser.add_argument("--runs", type=Path, default=Path("runs/ssl-hv-reproduce"))
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--accelerator", default="cpu", choices=("cpu", "gpu"))
    parser.add_argument("--epochs", type=int, default=2, help="of pre-training")
    parser.add_argument("--only", help="names of runs that begin so, comma-separated")
    parser.add_argument("--quick", action="store_true", help="one epoch of everything, seed 0")
    options = parser.parse_args()
    options.runs.mkdir(parents=True, exist_ok=True)
    seeds = SEEDS[:1] if options.quick else SEEDS
    wanted = tuple(options.only.split(",")) if options.only else ("",)
    names = [name for name, _ in jobs() if name.startswith(wanted)]
    with ProcessPoolExecutor(options.processes, mp_context=get_context("spawn")) as pool:
        tasks = [(seed, name) for name in names if name in FIRST for seed in seeds]
        tasks += [(seed, name) for seed in seeds for name in names if name not in FIRST]
        for future in [pool.submit(do, options, *task) for task in tasks]:
            future.result()
    kept = [json.loads(file.read_text()) for file in sorted(options.runs.glob("*.json"))]
    rows = [row for entry in kept for row in entry["rows"]]
    device = torch.device("cuda" if options.accelerator == "gpu" else "cpu")
    write_json(
        options.out,
        {
            "package": PACKAGE,
            "version": __version__,
            "command": "nox -s reproduce -- ssl-hv --data CEDAR",
            "rows": summarize(rows),
            "compared": compare(rows, options),
            "settings": {
                "pretraining_epochs": options.epochs,
                "long_epochs": LONG,
                "pair_epochs": PAIR_EPOCHS,
                "pair_batch": PAIR_BATCH,
                "writer_epochs": {f"{labels:.0%}": n for labels, n in WRITER_EPOCHS.items()},
                "width": WIDTH,
                "writer_width": WRITER_WIDTH,
                "recipe": "AdamW, warm-up and cosine; the last step's network",
                "seeds": list(seeds),
            },
            "hardware": f"{describe_device(device)}, {platform.system()}, one thread per run, "
            f"torch {torch.__version__}, Python {platform.python_version()}",
            "notes": NOTES + f" All runs together: {sum(e['seconds'] for e in kept) / 60:.0f} "
            "minutes of one thread, beside other work.",
        },
    )


if __name__ == "__main__":
    main()
