"""What a verifier says about pairs, and `ssl-hv-eval`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from papercommons.cli import ComputeOptions
from papercommons.data.pairs import Pairs, make_pairs, read_pairs
from papercommons.data.word_parts import pairs_to_judge, resolve_split
from papercommons.data.words import Words, open_words, split_words
from papercommons.errors import DataError
from papercommons.files import prepare_out, write_csv
from papercommons.metrics.verification import (
    Metric,
    accuracy_threshold,
    equal_error_rate,
    fit_calibration,
    verification_metrics,
)
from papercommons.report import Result, Section, describe_device, write_report
from torch import Tensor

from ssl_hv.data import load_images
from ssl_hv.embedding import compute_device, embed
from ssl_hv.options import WordOptions
from ssl_hv.pictures import report_sections
from ssl_hv.shapes import check_size
from ssl_hv.verifier import LIMITS, SiameseVerifier

PACKAGE = "ssl-hv"
FLATTERS = "THE THRESHOLD WAS CHOSEN ON THE TEST PAIRS (--threshold eer): accuracy flatters."
LABELS = {
    "accuracy": "accuracy",
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
    "auc": "ROC AUC",
    "eer": "equal error rate",
    "false_match_rate": "false match rate",
    "false_non_match_rate": "false non-match rate",
    "cllr": "Cllr",
    "min_cllr": "Cllr, least by calibration",
    "brier": "Brier score",
    "ece": "calibration error",
}


@dataclass
class Judgement:
    """What a verifier says about pairs.

    Attributes:
        pairs: places of the images.
        scores: float64, shape (P,).
        llr: natural-log likelihood ratios, float64, shape (P,).
        threshold: on the scores.
        metrics: name -> value with interval.
    """

    pairs: Pairs
    scores: np.ndarray
    llr: np.ndarray
    threshold: float
    metrics: dict[str, Metric]

    def rows(self) -> list[dict[str, Any]]:
        """Return the result table, one row per metric."""
        return [
            {
                "metric": words,
                "value": self.metrics[name].value,
                "95 % low": self.metrics[name].low,
                "95 % high": self.metrics[name].high,
            }
            for name, words in LABELS.items()
        ]

    def numbers(self) -> dict[str, Any]:
        """Return every number by name, with intervals."""
        plain: dict[str, Any] = {name: metric.value for name, metric in self.metrics.items()}
        bounds = {name: [m.low, m.high] for name, m in self.metrics.items()}
        same = int(self.pairs.same.sum())
        return {
            **plain,
            "intervals": bounds,
            "threshold": self.threshold,
            "pairs": len(self.pairs),
            "same_writer_pairs": same,
        }


@torch.no_grad()
def score_pairs(verifier: SiameseVerifier, embeddings: Tensor, pairs: Pairs) -> np.ndarray:
    """Return the scores of pairs, float64, shape (P,).

    Args:
        verifier: its head scores.
        embeddings: of all images, float32 on the CPU, shape (N, dim).
        pairs: places in `embeddings`.
    """
    verifier.head.cpu().eval()
    parts = [
        verifier.score(embeddings[left], embeddings[right])
        for left, right in zip(
            torch.as_tensor(pairs.left).split(8192),
            torch.as_tensor(pairs.right).split(8192),
            strict=True,
        )
    ]
    found: np.ndarray = torch.cat(parts).double().numpy()
    return found


def calibrate(verifier: SiameseVerifier, embeddings: Tensor, pairs: Pairs) -> dict[str, Any]:
    """Set calibration and threshold from pairs of held-out training writers.

    Args:
        verifier: gets both.
        embeddings: see `score_pairs`.
        pairs: of writers that were not trained on, with both kinds.

    Returns:
        What a saved verifier remembers of them: 101 quantiles of the ln LR of either kind, and the
        numbers of pairs.
    """
    scores = score_pairs(verifier, embeddings, pairs)
    calibration = fit_calibration(scores, pairs.same)
    verifier.slope.fill_(calibration.slope)
    verifier.intercept.fill_(calibration.intercept)
    verifier.threshold.fill_(accuracy_threshold(scores, pairs.same))
    llr, steps = calibration.llr(scores), np.linspace(0, 1, 101)
    kinds = {"same": llr[pairs.same == 1], "different": llr[pairs.same == 0]}
    quantiles = {
        kind: [float(f"{v:.6g}") for v in np.quantile(values, steps)]
        for kind, values in kinds.items()
    }
    return {**quantiles, "pairs": {kind: len(values) for kind, values in kinds.items()}}


def judge(
    verifier: SiameseVerifier,
    embeddings: Tensor,
    words: Words,
    pairs: Pairs,
    *,
    threshold: float | None = None,
    draws: int = 1000,
    seed: int = 0,
) -> Judgement:
    """Return what a verifier says about pairs.

    Args:
        verifier: calibrated.
        embeddings: see `score_pairs`.
        words: gives the writers, whom the intervals resample.
        pairs: what is judged.
        threshold: on the scores; the verifier's own if not given.
        draws: resamples of writers.
        seed: of the resampling.
    """
    scores = score_pairs(verifier, embeddings, pairs)
    llr = verifier.log_likelihood_ratio(torch.from_numpy(scores)).numpy()
    threshold = float(verifier.threshold) if threshold is None else threshold
    writers = np.asarray(words.writers)
    metrics = verification_metrics(
        scores,
        llr,
        pairs.same,
        writers[pairs.left],
        writers[pairs.right],
        threshold=threshold,
        draws=draws,
        seed=seed,
    )
    return Judgement(pairs, scores, llr, threshold, metrics)


def evaluate_verifier(
    data: str,
    checkpoint: str,
    pairs: str | None,
    part: str,
    threshold: str,
    bootstrap: int,
    out: str | None,
    options: WordOptions,
    run: ComputeOptions,
) -> Result:
    """Judge a saved verifier on pairs and return the result.

    Args:
        data: folder of words.
        checkpoint: folder of a run, or of a saved verifier.
        pairs: file of pairs; else those of `part`.
        part: test, train or all.
        threshold: dev, eer or a number.
        bootstrap: resamples of writers.
        out: folder for the report; None writes nothing.
        options: which images.
        run: where and how to compute.

    Raises:
        DataError: the images do not fit the verifier, or it is not calibrated.
    """
    verifier = SiameseVerifier.from_pretrained(checkpoint)
    if not verifier.is_calibrated:
        raise DataError(f"{checkpoint}: the verifier is not calibrated; ssl-hv-train does that")
    words = open_words(
        data,
        variant=options.variant,
        verify=options.verify,
        skip_bad=options.skip_bad,
        resize=options.resize,
    )
    images = load_images(words, verifier.channels)
    check_size(verifier.image_size, images.shape[2:], data)
    chosen, source = choose_pairs(words, pairs, part, options, run.seed)
    settings: dict[str, Any] = {"data": data, "checkpoint": checkpoint, "pairs": pairs}
    settings |= {"part": part, "threshold": threshold, "bootstrap": bootstrap, "out": out}
    settings |= {**vars(options), **run.settings()}
    folder = None if out is None else prepare_out(out, settings, overwrite=run.overwrite)
    device = compute_device(run)
    embeddings = embed(verifier.encoder, images, device=device, precision=run.precision)
    fixed = None if threshold in ("dev", "eer") else float(threshold)
    if threshold == "eer":
        if len(set(chosen.same.tolist())) < 2:
            raise DataError(f"{source}: --threshold eer needs pairs of one writer and of two")
        fixed = equal_error_rate(score_pairs(verifier, embeddings, chosen), chosen.same)[1]
    found = judge(
        verifier, embeddings, words, chosen, threshold=fixed, draws=bootstrap, seed=run.seed
    )
    result = Result(
        package=PACKAGE,
        command="ssl-hv-eval",
        title=f"{checkpoint}: {len(chosen):,} pairs, {source}",
        rows=found.rows(),
        metrics=found.numbers(),
        settings=settings,
        limits=LIMITS,
        data_hash=words.digest,
        device=describe_device(device),
        notes=[
            *([FLATTERS] if threshold == "eer" else []),
            *(["THESE WRITERS WERE TRAINED ON: the numbers flatter."] * (part != "test")),
            *judgement_notes(found, words),
        ],
    )
    if folder is not None:
        write_judgement(folder, result, found, words, images, embeddings, [])
    return result


def choose_pairs(
    words: Words, pairs: str | None, part: str, options: WordOptions, seed: int
) -> tuple[Pairs, str]:
    """Return the pairs to judge, and what they are in words.

    Args:
        words: the images.
        pairs: file of pairs, or None.
        part: test, train or all.
        options: give the split.
        seed: of the split and of made pairs.
    """
    if pairs is not None:
        return read_pairs(pairs, words), pairs
    if part == "all":
        return make_pairs(words, range(len(words)), seed=seed), "all writers"
    split = resolve_split(words, options.split)
    places = split_words(words, split, seed=seed)[part]
    source = f"{part} part of split {split}"
    if part == "train":
        return make_pairs(words, places, seed=seed), source
    return pairs_to_judge(words, split, places, seed=seed), source


def judgement_notes(found: Judgement, words: Words) -> list[str]:
    """Return what is odd about the pairs, a line each."""
    same = int(found.pairs.same.sum())
    notes = [f"{same:,} of {len(found.pairs):,} pairs are of one writer"]
    if same in (0, len(found.pairs)):
        notes.append("ONLY ONE KIND OF PAIR: AUC, error rates and Cllr are not defined (–)")
    notes += [f"left out: {name}" for name in words.bad]
    return notes


def write_judgement(
    folder: Path,
    result: Result,
    found: Judgement,
    words: Words,
    images: Tensor,
    embeddings: Tensor,
    sections: Sequence[Section],
) -> None:
    """Write scores.csv, report.html and result.json.

    Args:
        folder: of the run.
        result: gets the files' names.
        found: what the verifier says.
        words: their names.
        images: uint8, shape (N, C, H, W).
        embeddings: of all images, for the pictures.
        sections: of the report, before those of the judgement.
    """
    names = words.names
    rows = [
        {"sample1": names[left], "sample2": names[right], "label": int(same)}
        | {"score": f"{score:.6f}", "ln_lr": f"{llr:.4f}", "says": int(score >= found.threshold)}
        for left, right, same, score, llr in zip(
            found.pairs.left,
            found.pairs.right,
            found.pairs.same,
            found.scores,
            found.llr,
            strict=True,
        )
    ]
    write_csv(folder / "scores.csv", rows)
    result.files["scores"] = str(folder / "scores.csv")
    pictures = report_sections(found, words, images, embeddings)
    write_report(folder / "report.html", result, [*sections, *pictures])
    result.save(folder)
