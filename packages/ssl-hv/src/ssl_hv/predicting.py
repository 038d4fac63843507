"""`ssl-hv-predict`: one questioned word against known ones."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from papercommons.checkpoint import read_config
from papercommons.cli import ComputeOptions
from papercommons.data.word_layouts import WordFile, read_word
from papercommons.devices import compute_device
from papercommons.errors import DataError
from papercommons.files import atomic_path, find_saved, hash_files, prepare_out, write_csv
from papercommons.report import Result, Section, describe_device, write_report

from ssl_hv.embedding import embed
from ssl_hv.options import PACKAGE
from ssl_hv.pictures import LN_TEN, comparison_png
from ssl_hv.shapes import check_size
from ssl_hv.verifier import LIMITS, SiameseVerifier

SUPPORT = (
    (2, "no more support for one proposition than for the other"),
    (10, "weak support"),
    (100, "moderate support"),
    (1_000, "moderately strong support"),
    (10_000, "strong support"),
    (1_000_000, "very strong support"),
    (math.inf, "extremely strong support"),
)
"""Verbal equivalents of likelihood ratios: ENFSI guideline for evaluative reporting, 2015."""


def compare_words(
    questioned: str,
    known: Sequence[str],
    checkpoint: str,
    out: str | None,
    resize: int | None,
    run: ComputeOptions,
) -> Result:
    """Compare a questioned word with known ones and return the result.

    With several known words the mean of the log likelihood ratios counts: as their pairs are not
    independent, adding them up would overstate the evidence. No ratio is given that is larger than
    the number of held-out pairs behind the calibration: they cannot support it.

    Args:
        questioned: image file.
        known: image files.
        checkpoint: folder of a run, or of a saved verifier.
        out: folder for the report; None writes nothing.
        resize: fit images into squares of this side.
        run: where and how to compute.

    Raises:
        DataError: an image cannot be used, or the verifier is not calibrated.
    """
    verifier = SiameseVerifier.from_pretrained(checkpoint)
    if not verifier.is_calibrated:
        raise DataError(f"{checkpoint}: the verifier is not calibrated; ssl-hv-train does that")
    images = [
        read_word(WordFile(path, "", Path(path)), None, resize) for path in (questioned, *known)
    ]
    for path, image in zip((questioned, *known), images, strict=True):
        check_size(verifier.image_size, image.shape, path)
    device = compute_device(run)
    stack = torch.from_numpy(np.stack(images))[:, None].expand(-1, verifier.channels, -1, -1)
    embeddings = embed(verifier.encoder, stack, device=device, precision=run.precision)
    with torch.no_grad():
        scores = verifier.score(embeddings[:1].expand(len(known), -1), embeddings[1:])
        ratios = verifier.log_likelihood_ratio(scores) / LN_TEN
        between = known_spread(verifier, embeddings[1:])
    remembered = read_config(find_saved(checkpoint)).get("val_ln_lr", {})
    log10_lr, capped = cap(float(ratios.mean()), remembered.get("pairs"))
    score = float(scores.mean())
    same = score >= float(verifier.threshold)
    probability = 0.5 + 0.5 * math.tanh(log10_lr * LN_TEN / 2)
    rows = [
        {"known": path, "score": float(s), "log10 LR": float(r)}
        for path, s, r in zip(known, scores, ratios, strict=True)
    ]
    settings: dict[str, Any] = {"questioned": questioned, "known": list(known)}
    settings |= {"checkpoint": checkpoint, "out": out, "resize": resize, **run.settings()}
    result = Result(
        package=PACKAGE,
        command="ssl-hv-predict",
        title=f"{questioned}: {'same writer' if same else 'different writers'}, "
        f"{describe_ratio(log10_lr)}",
        rows=rows,
        metrics={
            "prediction": "same" if same else "different",
            "log10_lr": log10_lr,
            "likelihood_ratio": 10**log10_lr if abs(log10_lr) < 300 else None,
            "capped": bool(capped),
            "probability_at_even_odds": probability,
            "score": score,
            "threshold": float(verifier.threshold),
        },
        settings=settings,
        limits=LIMITS,
        data_hash=hash_files([questioned, *known]),
        device=describe_device(device),
        notes=[
            f"likelihood ratio {format_ratio(log10_lr)}; probability at even prior odds "
            f"{probability:.3f}",
            *capped,
            *between,
        ],
    )
    if out is None:
        return result
    folder = prepare_out(out, settings, overwrite=run.overwrite)
    judged = [
        {"questioned": questioned, "known": path}
        | {"score": f"{s:.6f}", "ln_lr": f"{r * LN_TEN:.4f}"}
        | {"prediction": int(s >= verifier.threshold)}
        for path, s, r in zip(known, scores.tolist(), ratios.tolist(), strict=True)
    ]
    write_csv(folder / "predictions.csv", judged)
    result.files["predictions"] = str(folder / "predictions.csv")
    captions = [f"questioned\n{Path(questioned).name}", *(f"known\n{Path(p).name}" for p in known)]
    picture = comparison_png(images[0], images[1:], captions, log10_lr, remembered)
    with atomic_path(folder / "comparison.png") as temporary:
        temporary.write_bytes(picture)
    result.files["picture"] = str(folder / "comparison.png")
    section = Section(
        "The comparison",
        "Above: the words as the verifier sees them. Below: where this likelihood ratio lies among "
        "pairs of held-out training writers whose origin is known.",
        figure=picture,
        caption="Questioned and known words, and the likelihood ratio",
    )
    write_report(folder / "report.html", result, [section])
    result.save(folder)
    return result


def cap(log10_lr: float, pairs: Mapping[str, int] | None) -> tuple[float, list[str]]:
    """Return the ratio, bounded by what its calibration can support, and a line if that bound it.

    Args:
        log10_lr: decimal logarithm of a likelihood ratio.
        pairs: held-out pairs behind the calibration, ``same`` and ``different``; None: not known.
    """
    if not pairs:
        return log10_lr, []
    against = "different" if log10_lr > 0 else "same"
    bound = math.log10(max(1, pairs[against]))
    if abs(log10_lr) <= bound:
        return log10_lr, []
    return math.copysign(bound, log10_lr), [
        f"the ratio is bounded: {pairs[against]:,} held-out pairs cannot support a larger one"
    ]


def known_spread(verifier: SiameseVerifier, embeddings: torch.Tensor) -> list[str]:
    """Return a line if known words look as if two writers wrote them.

    Args:
        verifier: calibrated.
        embeddings: of the known words, shape (K, dim).
    """
    count = len(embeddings)
    if count < 2:
        return []
    left, right = torch.triu_indices(count, count, 1)
    scores = verifier.score(embeddings[left], embeddings[right])
    unlike = int((scores < verifier.threshold).sum())
    return [
        f"{unlike} of {len(scores)} pairs of the known words look like different writers: check "
        "that one person wrote them all"
    ] * bool(unlike)


def format_ratio(log10_lr: float) -> str:
    """Return a likelihood ratio as people read it: 1 : 40 where it speaks for two writers."""
    size = 10 ** min(abs(log10_lr), 12.0)
    number = f"{size:,.0f}" if size >= 10 else f"{size:.1f}"
    return number if log10_lr >= 0 else f"1 : {number}"


def describe_ratio(log10_lr: float) -> str:
    """Return what a likelihood ratio means in words.

    Args:
        log10_lr: its decimal logarithm.
    """
    words = next(words for edge, words in SUPPORT if abs(log10_lr) < math.log10(edge))
    if words == SUPPORT[0][1]:
        return words
    return f"{words} for {'one writer' if log10_lr > 0 else 'two writers'}"
