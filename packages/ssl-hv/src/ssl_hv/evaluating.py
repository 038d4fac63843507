"""`ssl-hv-eval`: a saved verifier is judged on pairs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from papercommons.cli import ComputeOptions
from papercommons.data.pairs import Pairs, make_pairs, read_pairs
from papercommons.data.word_options import WordOptions, name_split
from papercommons.data.word_parts import pairs_to_judge, resolve_split
from papercommons.data.words import Words, open_words, split_words
from papercommons.devices import compute_device
from papercommons.errors import DataError
from papercommons.files import prepare_out, write_csv
from papercommons.metrics.verification import equal_error_rate
from papercommons.report import Result, Section, describe_device, write_report
from torch import Tensor

from ssl_hv.data import load_images
from ssl_hv.embedding import embed
from ssl_hv.evaluation import Judgement, judge, notes_of, score_pairs
from ssl_hv.options import PACKAGE
from ssl_hv.pictures import report_sections
from ssl_hv.shapes import check_size
from ssl_hv.verifier import LIMITS, SiameseVerifier

FLATTERS = "THE THRESHOLD WAS CHOSEN ON THE TEST PAIRS (--threshold eer): accuracy flatters."


def evaluate_verifier(
    data: str,
    checkpoint: str,
    pairs: str | None,
    split: str,
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
        pairs: file of pairs; else those of `split`.
        split: train, test or all.
        threshold: val, eer or a number.
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
    words = open_words(data, **options.opening())
    images = load_images(words, verifier.channels)
    check_size(verifier.image_size, images.shape[2:], data)
    chosen, source = choose_pairs(words, pairs, split, options, run.seed)
    settings: dict[str, Any] = {"data": data, "checkpoint": checkpoint, "pairs": pairs}
    settings |= {"split": split, "threshold": threshold, "bootstrap": bootstrap, "out": out}
    settings |= {**vars(options), **run.settings()}
    folder = None if out is None else prepare_out(out, settings, overwrite=run.overwrite)
    device = compute_device(run)
    embeddings = embed(verifier.encoder, images, device=device, precision=run.precision)
    fixed = None if threshold in ("val", "eer") else float(threshold)
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
        metrics=found.numbers() | {"left_out": len(words.bad)},
        settings=settings,
        limits=LIMITS,
        data_hash=words.digest,
        device=describe_device(device),
        notes=[
            *([FLATTERS] if threshold == "eer" else []),
            *(["THESE WRITERS WERE TRAINED ON: the numbers flatter."] * (split != "test")),
            *notes_of(found, words),
        ],
    )
    if folder is not None:
        write_judgement(folder, result, found, words, images, embeddings, [])
    return result


def choose_pairs(
    words: Words, pairs: str | None, split: str, options: WordOptions, seed: int
) -> tuple[Pairs, str]:
    """Return the pairs to judge, and what they are in words.

    Args:
        words: the images.
        pairs: file of pairs, or None.
        split: train, test or all.
        options: how the words are divided.
        seed: of the division and of made pairs.
    """
    if pairs is not None:
        return read_pairs(pairs, words), pairs
    split_by = resolve_split(words, options.split_by)
    source = name_split(split, split_by)
    if split == "all":
        return make_pairs(words, range(len(words)), seed=seed), source
    places = split_words(words, split_by, seed=seed)[split]
    if split == "train":
        return make_pairs(words, places, seed=seed), source
    return pairs_to_judge(words, split_by, places, seed=seed), source


def write_judgement(
    folder: Path,
    result: Result,
    found: Judgement,
    words: Words,
    images: Tensor,
    embeddings: Tensor,
    sections: Sequence[Section],
) -> None:
    """Write items.csv, report.html and result.json.

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
        | {
            "score": f"{score:.6f}",
            "ln_lr": f"{llr:.4f}",
            "prediction": int(score >= found.threshold),
        }
        for left, right, same, score, llr in zip(
            found.pairs.left,
            found.pairs.right,
            found.pairs.same,
            found.scores,
            found.llr,
            strict=True,
        )
    ]
    write_csv(folder / "items.csv", rows)
    result.files["items"] = str(folder / "items.csv")
    pictures = report_sections(found, words, images, embeddings)
    write_report(folder / "report.html", result, [*sections, *pictures])
    result.save(folder)
