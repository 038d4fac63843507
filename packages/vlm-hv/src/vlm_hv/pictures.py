"""The pictures of the reports: a pair with its findings, scores, ROC curves, Tippett plots."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from papercommons.metrics.calibration import tippett
from papercommons.report import PALETTE, figure_png

from vlm_hv.findings import Box, Finding
from vlm_hv.images import PictureOptions, concat, fit

if TYPE_CHECKING:
    from PIL.Image import Image

LEAST_SIDE = 320  # of a sample in a report, in pixels
GAP = 24  # between two samples
MARGIN = 12  # around a sample
LN_TEN = math.log(10)


def pair_png(
    known: Image,
    questioned: Image,
    options: PictureOptions,
    findings: Sequence[Finding] = (),
) -> bytes:
    """Return a PNG of both samples as they are sent, with the numbered boxes of the findings.

    Args:
        known: as it is read.
        questioned: likewise.
        options: sizes and layout of what is sent: boxes are fractions of that.
        findings: numbered from 1; those without boxes are not drawn.
    """
    from PIL import Image as Images
    from PIL import ImageOps

    samples = [fit(image, options) for image in (known, questioned)]
    if options.layout == "concat":
        samples = [concat(*samples)]
    samples = [_enlarged(sample.convert("RGB")) for sample in samples]
    boxes = [
        [(number, finding.known_box), (number, finding.questioned_box)]
        for number, finding in enumerate(findings, 1)
    ]
    for side, sample in enumerate(samples):
        for pair in boxes:
            for number, box in pair if len(samples) == 1 else pair[side : side + 1]:
                if box is not None:
                    _draw_box(sample, number, box)
    samples = [ImageOps.expand(sample, MARGIN, "white") for sample in samples]
    height = max(sample.height for sample in samples)
    width = sum(sample.width for sample in samples) + GAP * (len(samples) - 1)
    canvas, left = Images.new("RGB", (width, height), (203, 213, 225)), 0
    for sample in samples:
        canvas.paste(sample, (left, (height - sample.height) // 2))
        left += sample.width + GAP
    file = io.BytesIO()
    canvas.save(file, "PNG")
    return file.getvalue()


def _enlarged(image: Image) -> Image:
    from PIL import Image as Images

    factor = math.ceil(LEAST_SIDE / max(image.size))
    if factor <= 1:
        return image
    size = (image.width * factor, image.height * factor)
    return image.resize(size, Images.Resampling.NEAREST)


def _draw_box(image: Image, number: int, box: Box) -> None:
    """Draw a box with its number, in place."""
    from PIL import ImageDraw, ImageFont

    colour = PALETTE[(number - 1) % len(PALETTE)]
    sides = (image.width - 1, image.height - 1) * 2
    left, top, right, bottom = (round(share * side) for share, side in zip(box, sides, strict=True))
    pen = ImageDraw.Draw(image)
    pen.rectangle((left, top, max(left, right), max(top, bottom)), outline=colour, width=3)
    font, text = ImageFont.load_default(20), str(number)
    size = pen.textbbox((0, 0), text, font=font)
    wide, high = size[2] + 8, size[3] + 6
    x, y = min(left, image.width - round(wide)), max(0, top - round(high))
    pen.rectangle((x, y, x + wide, y + high), fill=colour)
    pen.text((x + 4, y + 1), text, fill="white", font=font)


def scores_png(scores: np.ndarray, same: np.ndarray) -> bytes:
    """Return a PNG with the histograms of the scores of both kinds of pair.

    Args:
        scores: in [0, 1], shape (P,).
        same: 1 or 0, shape (P,).
    """

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        bins = np.linspace(0, 1, 31).tolist()
        for kind, name in ((0, "two writers"), (1, "one writer")):
            axes.hist(scores[same == kind], bins, alpha=0.6, label=name)
        axes.axvline(0.5, color="k", linewidth=1)
        axes.set(xlabel="score for one writer", ylabel="pairs", xlim=(0, 1))
        axes.legend()

    return figure_png(draw, width=6)


def roc_png(systems: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> bytes:
    """Return a PNG with one ROC curve per system.

    Args:
        systems: name -> scores and labels, each of shape (P,), both kinds there.
    """

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        for name, (scores, same) in systems.items():
            axes.plot(*_roc(scores, same), label=name)
        axes.plot([0, 1], [0, 1], color="0.7", linewidth=1)
        axes.set(xlabel="false match rate", ylabel="true match rate")
        axes.legend(fontsize=8, loc="lower right")

    return figure_png(draw, width=6, height=4.5)


def _roc(scores: np.ndarray, same: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return false and true match rate at every threshold, from (0, 0) to (1, 1)."""
    levels, level = np.unique(-scores, return_inverse=True)
    rates = []
    for kind in (0, 1):
        counts = np.bincount(level, same == kind, minlength=len(levels)).cumsum()
        rates.append(np.concatenate([[0.0], counts / counts[-1]]))
    return rates[0], rates[1]


def tippett_png(systems: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> bytes:
    """Return a PNG with the Tippett plots of calibrated systems, one panel each.

    Args:
        systems: name -> natural-log likelihood ratios and labels, each of shape (P,).
    """

    def draw(figure: Any) -> None:
        places = figure.subplots(1, len(systems), squeeze=False, sharey=True)[0]
        for axes, (name, (llr, same)) in zip(places, systems.items(), strict=True):
            curves = tippett(llr, same)
            for shares, label in ((curves.same, "one writer"), (curves.different, "two writers")):
                axes.plot(curves.llr / LN_TEN, shares, label=label)
            axes.axvline(0, color="0.7", linewidth=1)
            axes.set(xlabel="log10 likelihood ratio", ylim=(0, 1), title=name)
        places[0].set(ylabel="share of pairs above")
        places[0].legend(fontsize=8)

    return figure_png(draw, width=max(6, 4.2 * len(systems)))
