"""`vlm-hv-baseline`: methods without a language model, on the very same pairs (section 3.3)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from papercommons.cli import ComputeOptions, RunOptions
from papercommons.data.pairs import Pairs, make_pairs
from papercommons.data.word_parts import resolve_split
from papercommons.data.words import Words, hold_out_writers, split_words
from papercommons.errors import DataError
from papercommons.files import prepare_out
from papercommons.metrics.calibration import fit_calibration
from papercommons.report import Result, describe_device
from papercommons.training import may_use_cuda, seed_everything

from vlm_hv.cases import Case, from_pairs
from vlm_hv.choosing import VAL_FRACTION, Part, draw_pairs
from vlm_hv.comparable import PREDS
from vlm_hv.modes import Opinion, decide
from vlm_hv.options import WordOptions
from vlm_hv.pairing import choose_cases
from vlm_hv.predicting import judge, run_notes, write_run
from vlm_hv.records import Record, make_record, write_records

log = logging.getLogger("papercommons")

Kind = Literal["hog", "gsc", "resnet18"]
LIMITS = (
    "A baseline on two images of one handwritten word each: only as good as measured on pairs like "
    "yours. It is no proof of authorship; a trained examiner decides."
)
LENGTH: dict[str, dict[str, Any]] = {
    "quick": {"epochs": 3, "hog": 20_000, "gsc": 20_000, "resnet18": 4_000},
    "paper": {"epochs": 10, "hog": 20_000, "gsc": 20_000, "resnet18": None},
}
MOST_DEV = 2000
PENALTY = 0.01  # inverse strength of the regression's L2 penalty
PREDS_DEV = "preds_dev.jsonl"


class Parts(NamedTuple):
    """Images, and pairs of places in them.

    Attributes:
        images: uint8, shape (N, H, W).
        train: pairs of training writers.
        dev: of writers held out of these.
        judged: the pairs in question.
        dev_cases: names and writers of the dev pairs.
        left_out: training writers that are not trained on as they are judged.
    """

    images: np.ndarray
    train: Pairs
    dev: Pairs
    judged: Pairs
    dev_cases: Sequence[Case]
    left_out: int


def run_baseline(
    data: str,
    kind: Kind,
    pairs: str | None,
    part: Part,
    limit: int | None,
    preset: Literal["auto", "quick", "paper"],
    epochs: int | None,
    max_pairs: int | None,
    out: str,
    words: WordOptions,
    run: ComputeOptions,
) -> Result:
    """Train a baseline on training writers, ask it about the pairs, and return the result.

    Writers of the judged pairs are never trained on; others held out of the training writers make
    its scores probabilities.

    Args:
        data: folder of words by writer.
        kind: of the baseline.
        pairs: list of pairs with labels; None takes those of `part`.
        part: of the split.
        limit: most pairs to judge.
        preset: length of the training.
        epochs: of resnet18, instead of the preset's.
        max_pairs: most training pairs, instead of the preset's.
        out: folder of the run.
        words: which images.
        run: where and how to compute.

    Raises:
        DataError: the words cannot be used, or too few writers are left to train on.
    """
    seed_everything(run.seed)
    if preset == "auto":
        preset = "paper" if may_use_cuda(RunOptions(**vars(run))) else "quick"
    length = LENGTH[preset]
    epochs = length["epochs"] if epochs is None else epochs
    most = length[kind] if max_pairs is None else max_pairs
    chosen = choose_cases(data, pairs, part, limit, run.seed, words)
    parts = gather(chosen.words, chosen.cases.cases, words.split, most, run.seed)
    if kind == "hog" and parts.images.shape[1:] != (64, 64):
        raise DataError(f"{data}: HOG is for words of 64 x 64 pixels; pass --resize 64")
    settings: dict[str, Any] = {"data": data, "kind": kind, "pairs": pairs, "part": part}
    settings |= {"limit": limit, "preset": preset, "epochs": epochs, "max_pairs": most, "out": out}
    settings |= {**asdict(words), **run.settings()}
    folder = prepare_out(out, settings, overwrite=run.overwrite)
    log.info("%s: %s training pairs", kind, f"{len(parts.train):,}")
    score, device = make_scorer(kind, parts, epochs, run)
    fitted = fit_calibration(score(parts.dev), parts.dev.same)
    noted: dict[str, Any] = {
        "backend": "baseline",
        "model": kind,
        "mode": "baseline",
        "ablation": "none",
    }
    noted |= {"preset": preset, "epochs": epochs, "max_pairs": most, "seed": run.seed}
    noted |= {"min_side": 0, "border": 0, "layout": "two"}
    dev = to_records(parts.dev_cases, fitted.llr(score(parts.dev)), noted)
    records = to_records(chosen.cases.cases, fitted.llr(score(parts.judged)), noted)
    write_records(folder / PREDS_DEV, dev)
    write_records(folder / PREDS, records)
    found = judge(records, seed=run.seed)
    notes = run_notes(records, found)
    if parts.left_out:
        notes.append(f"{parts.left_out:,} training writers are judged and were not trained on")
    result = Result(
        package="vlm-hv",
        command="vlm-hv-baseline",
        title=f"{kind}: {len(records):,} pairs, {chosen.source}",
        rows=found.rows() if found else (),
        metrics={
            **(found.numbers() if found else {"pairs": len(records)}),
            "training_pairs": len(parts.train),
            "dev_pairs": len(parts.dev),
        },
        settings=settings,
        limits=LIMITS,
        data_hash=chosen.cases.digest,
        device=describe_device(device),
        notes=notes,
        files={"dev_predictions": str(folder / PREDS_DEV)},
    )
    write_run(folder, result, records, chosen.images)
    return result


def gather(words: Words, cases: Sequence[Case], split: str, most: int | None, seed: int) -> Parts:
    """Return the images that are needed, and training, dev and judged pairs of them.

    Args:
        words: the set.
        cases: what is judged; their names are in `words`.
        split: gives the training writers; auto is the set's own.
        most: most training pairs; None is all.
        seed: of draws, pairs and who is held out.

    Raises:
        DataError: fewer than four training writers are left.
    """
    left = np.array([words.index(case.known) for case in cases], np.int64)
    right = np.array([words.index(case.questioned) for case in cases], np.int64)
    writers = words.writers
    judged = {writers[place] for place in (*left.tolist(), *right.tolist())}
    same = np.array([writers[a] == writers[b] for a, b in zip(left, right, strict=True)], np.int64)
    train = split_words(words, resolve_split(words, split), seed=seed)["train"]
    allowed = [place for place in train if writers[place] not in judged]
    left_out = len({writers[place] for place in train} & judged)
    train, held = hold_out_writers(words, allowed, share=VAL_FRACTION, seed=seed)
    made = [make_pairs(words, places, seed=seed) for places in (train, held)]
    made = [draw_pairs(made[0], most or len(made[0]), seed=seed), draw_pairs(made[1], MOST_DEV)]
    made.append(Pairs(left, right, same))
    needed = np.unique(np.concatenate([side for p in made for side in (p.left, p.right)]))
    placed = [
        Pairs(np.searchsorted(needed, p.left), np.searchsorted(needed, p.right), p.same)
        for p in made
    ]
    trained, held_out, questioned = placed
    cases_held = from_pairs(made[1], words).cases
    return Parts(words.load(needed), trained, held_out, questioned, cases_held, left_out)


def make_scorer(
    kind: Kind, parts: Parts, epochs: int, run: ComputeOptions
) -> tuple[Callable[[Pairs], np.ndarray], torch.device]:
    """Return a trained function from pairs to scores (higher = more alike), and where it runs."""
    if kind == "resnet18":
        from vlm_hv.siamese import score_pairs, train_resnet

        module = train_resnet(parts.images, parts.train, epochs=epochs, run=run)
        if may_use_cuda(RunOptions(**vars(run))):
            module.cuda()
        return lambda pairs: score_pairs(module, pairs), module.device
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    features = describe(kind, parts.images)

    def difference(pairs: Pairs) -> np.ndarray:
        found: np.ndarray = np.abs(features[pairs.left] - features[pairs.right])
        return found

    model = make_pipeline(StandardScaler(), LogisticRegression(C=PENALTY, max_iter=1000))
    model.fit(difference(parts.train), parts.train.same)

    def score(pairs: Pairs) -> np.ndarray:
        found: np.ndarray = model.decision_function(difference(pairs))
        return found.astype(np.float64)

    return score, torch.device("cpu")


def describe(kind: Kind, images: np.ndarray) -> np.ndarray:
    """Return handcrafted features of images, float32, shape (N, D).

    Args:
        kind: hog, or gsc: its 512 densities.
        images: uint8, shape (N, H, W).
    """
    if kind == "hog":
        from papercommons.handwriting.hog import hog_features

        return hog_features(images)
    from papercommons.handwriting.gsc import gsc_batch

    return gsc_batch(images)


def to_records(cases: Sequence[Case], llr: np.ndarray, settings: dict[str, Any]) -> list[Record]:
    """Return records of pairs from their log-likelihood ratios.

    Args:
        cases: the pairs.
        llr: natural logarithms, shape (P,); the score is the probability at even prior odds.
        settings: noted in every record.
    """
    records = []
    for number, (case, value) in enumerate(zip(cases, llr.tolist(), strict=True)):
        score = float(0.5 * (1 + np.tanh(value / 2)))
        said: Any = "same" if value > 0 else "different" if value < 0 else "unknown"
        records.append(make_record(number, case, decide([Opinion(said, score)]), (), settings))
    return records
