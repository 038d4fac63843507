"""What a report says of one pair."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from papercommons.pictures import heat, outline, overlay, strip
from papercommons.report import Section, curves_png
from PIL import Image

from d_tiil.calibration import Calibration
from d_tiil.pictures import marked, word_bars
from d_tiil.result import DTIILResult
from d_tiil.saved import map_levels

LIMITS = (
    "The result says what the model holds to be unlike the caption, which may be the image, the "
    "caption, or what the model does not know: it is a lead for people, no proof. A map is scaled "
    "to its own range, so that it shows some region for a consistent pair too; only a calibration "
    "on labelled pairs of the same kind makes scores comparable. Words can only be named if they "
    "are in the caption. The edited image is made up."
)
_MEANINGS = {
    "gap": "denoising gap: error of the caption less that of the aligned embedding",
    "relative_gap": "the gap as a share of the caption's error",
    "clip_pair": "CLIP cosine of image and caption",
    "clip_region": "CLIP cosine of the region and the caption",
    "clip_edit": "CLIP cosine of image and edited image",
}


def word_rows(done: DTIILResult) -> list[dict[str, Any]]:
    """Return a table of the scored words, highest first."""
    ranked = sorted(done.candidates, key=lambda word: -word.score)
    return [
        {
            "word": word.text,
            "characters": f"{word.start}-{word.end}",
            "score": word.score,
            "inconsistent": word in done.words,
        }
        for word in ranked
    ]


def verdict(done: DTIILResult, calibration: Calibration | None) -> str:
    """Return the decision in a few words.

    Args:
        done: what was found.
        calibration: that it was judged with, or None.
    """
    if calibration is None:
        return f"consistency {done.score:.1f} of 100, not calibrated: no decision"
    said = "consistent" if done.consistent else "inconsistent"
    return f"{said}: consistency {done.score:.1f}, decided at {calibration.decision:.1f}"


def score_rows(done: DTIILResult) -> list[dict[str, Any]]:
    """Return a table of what was measured."""
    rows = [{"measured": _MEANINGS[name], "value": done.scores[name]} for name in done.scores]
    return [*rows, {"measured": "standard error of the denoising gap", "value": done.gap.error}]


def pair_sections(image: Image.Image, done: DTIILResult) -> list[Section]:
    """Return the parts of a report on one pair.

    Args:
        image: RGB.
        done: what was found.
    """
    sections = []
    if done.final is not None:
        sections += [_answer(image, done), *_words(done)]
    sections.append(Section("Score", rows=score_rows(done)))
    if done.final is not None:
        sections.append(_maps(image, done))
    return [*sections, _alignment(done)]


def _answer(image: Image.Image, done: DTIILResult) -> Section:
    pictures = {"image": image}
    if done.mask.any():
        pictures["what contradicts the caption"] = overlay(image, done.mask)
    if done.edited is not None and done.first is not None and done.first.mask.any():
        pictures["edited towards the caption"] = done.edited
    text = f"Caption: {marked(done.caption, done.words)}"
    figure = strip(list(pictures.values()), list(pictures), columns=3)
    return Section("The pair", text=text, figure=figure, caption=" | ".join(pictures))


def _words(done: DTIILResult) -> list[Section]:
    if not done.candidates:
        return []
    caption = "In red the named word." if done.words else ""
    return [Section("Words", figure=word_bars(done.candidates, done.words), caption=caption)]


def _maps(image: Image.Image, done: DTIILResult) -> Section:
    blur = done.settings.maps.blur
    pictures: dict[str, Image.Image] = {}
    if done.first is not None and done.first is not done.final:
        threshold = f"edited (above {done.settings.edit.threshold:.2f})"
        pictures["image against caption"] = heat(image, map_levels(done.first, blur))
        pictures[threshold] = outline(image, done.first.mask)
    assert done.final is not None
    pictures["final map"] = heat(image, map_levels(done.final, blur))
    pictures["largest region"] = outline(image, done.region)
    return Section(
        "Maps",
        text="Where the network's noise differs between two embeddings, each map scaled to its "
        "own range.",
        figure=strip(list(pictures.values()), list(pictures)),
        caption="Red: high; yellow: the region.",
    )


def _alignment(done: DTIILResult) -> Section:
    panels = {"alignment to the image": _curve(done.aligned.checks, done.aligned.losses)}
    if done.denoised is not None:
        panels["text denoising"] = _curve(done.denoised.checks, done.denoised.losses)
    panels = {title: curve for title, curve in panels.items() if curve}
    rows = [{"step": name, "seconds": value} for name, value in done.seconds.items()]
    if not panels:
        return Section("Time", rows=rows)
    of_checks = bool(done.aligned.checks)
    return Section(
        "Alignment and time",
        figure=curves_png(
            {title: {"error": curve} for title, curve in panels.items()},
            xlabel="check" if of_checks else "step",
        ),
        caption="Denoising error on fixed pairs of timestep and noise, at each check."
        if of_checks
        else "Denoising error of each step.",
        rows=rows,
    )


def _curve(checks: Sequence[float], losses: Any) -> list[float]:
    return list(checks) if checks else [float(loss) for loss in np.asarray(losses)]
