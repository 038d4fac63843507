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
from papercommons.data.word_options import WordOptions
from papercommons.data.word_parts import resolve_split
from papercommons.data.words import Words, hold_out_writers, split_words
from papercommons.errors import DataError, counted
from papercommons.files import prepare_out
from papercommons.metrics.calibration import fit_calibration
from papercommons.presets import resolve_preset
from papercommons.report import Result, describe_device
from papercommons.training import may_use_cuda, seed_everything

from vlm_hv.cases import Case, from_pairs
from vlm_hv.modes import Opinion, decide
from vlm_hv.options import PACKAGE
from vlm_hv.pairing import choose_cases
from vlm_hv.pairs import VAL_FRACTION, Split, draw_pairs
from vlm_hv.predicting import judge, run_notes, write_run
from vlm_hv.presets import BASELINE
from vlm_hv.records import Record, make_record, write_records
from vlm_hv.runs import PREDICTIONS, PREDICTIONS_VAL

log = logging.getLogger("papercommons")

Kind = Literal["hog", "gsc", "resnet18"]
LIMITS = (
    "A baseline on two images of one handwritten word each: only as good as measured on pairs like "
    "yours. It is no proof of authorship; a trained examiner decides."
)
MOST_VAL = 2000
PENALTY = 0.01  # inverse strength of the regression's L2 penalty


class Parts(NamedTuple):
    """Images, and pairs of places in them.

    Attributes:
        images: uint8, shape (N, H, W).
        train: pairs of training writers.
        val: of writers held out of these.
        judged: the pairs in question.
        val_cases: names and writers of the val pairs.
        left_out: training writers that are not trained on as they are judged.
    """

    images: np.ndarray
    train: Pairs
    val: Pairs
    judged: Pairs
    val_cases: Sequence[Case]
    left_out: int


def run_baseline(
    data: str,
    kind: Kind,
    pairs: str | None,
    split: Split,
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
        pairs: list of pairs with labels; None takes those of `split`.
        split: train, val, test or all.
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
    given = {"epochs": epochs, "max_pairs": max_pairs}
    values = resolve_preset(
        BASELINE[kind], preset, given, cuda=may_use_cuda(RunOptions(**vars(run)))
    )
    most = values["max_pairs"]
    chosen = choose_cases(data, pairs, split, limit, run.seed, words)
    parts = gather(chosen.words, chosen.cases.cases, words.split_by, most, run.seed)
    if kind == "hog" and parts.images.shape[1:] != (64, 64):
        raise DataError(f"{data}: HOG is for words of 64 x 64 pixels; pass --resize 64")
    settings: dict[str, Any] = {"data": data, "kind": kind, "pairs": pairs, "split": split}
    settings |= {"limit": limit, **values, "out": out}
    settings |= {**asdict(words), **run.settings()}
    folder = prepare_out(out, settings, overwrite=run.overwrite)
    log.info("%s: %s training pairs", kind, f"{len(parts.train):,}")
    score, device = make_scorer(kind, parts, values.get("epochs", 0), run)
    fitted = fit_calibration(score(parts.val), parts.val.same)
    noted: dict[str, Any] = {
        "backend": "baseline",
        "model": kind,
        "mode": "baseline",
        "ablation": "none",
    }
    noted |= {**values, "seed": run.seed}
    noted |= {"min_side": 0, "border": 0, "layout": "two"}
    val = to_records(parts.val_cases, fitted.llr(score(parts.val)), noted)
    records = to_records(chosen.cases.cases, fitted.llr(score(parts.judged)), noted)
    write_records(folder / PREDICTIONS_VAL, val)
    write_records(folder / PREDICTIONS, records)
    found = judge(records, seed=run.seed)
    notes = run_notes(records, found)
    if parts.left_out:
        notes.append(f"{parts.left_out:,} training writers are judged and were not trained on")
    result = Result(
        package=PACKAGE,
        command="vlm-hv-baseline",
        title=f"{kind}: {counted(len(records), 'pair')}, {chosen.source}",
        rows=found.rows() if found else (),
        metrics={
            **(found.numbers() if found else {"pairs": len(records)}),
            "training_pairs": len(parts.train),
            "val_pairs": len(parts.val),
        },
        settings=settings,
        limits=LIMITS,
        data_hash=chosen.cases.digest,
        device=describe_device(device),
        notes=notes,
        files={"val_predictions": str(folder / PREDICTIONS_VAL)},
    )
    write_run(folder, result, records, chosen.images)
    return result


def gather(
    words: Words, cases: Sequence[Case], split_by: str, most: int | None, seed: int
) -> Parts:
    """Return the images that are needed, and training, val and judged pairs of them.

    Args:
        words: the set.
        cases: what is judged; their names are in `words`.
        split_by: gives the training writers; auto is the set's own.
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
    train = split_words(words, resolve_split(words, split_by), seed=seed)["train"]
    allowed = [place for place in train if writers[place] not in judged]
    left_out = len({writers[place] for place in train} & judged)
    train, held = hold_out_writers(words, allowed, share=VAL_FRACTION, seed=seed)
    made = [make_pairs(words, places, seed=seed) for places in (train, held)]
    made = [draw_pairs(made[0], most or len(made[0]), seed=seed), draw_pairs(made[1], MOST_VAL)]
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
    """Return a trained function from pairs to scores (higher = more alike), and where it runs.

    Args:
        kind: of the baseline.
        parts: images and pairs.
        epochs: of resnet18.
        run: where and how to compute.
    """
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
