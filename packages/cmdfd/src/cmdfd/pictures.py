"""The pictures of the reports: a clip over time, ROC curves, scores, calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from papercommons.metrics.roc import score_levels, unchecked_auc
from papercommons.report import PALETTE, figure_png

from cmdfd.features import FPS
from cmdfd.windows import FrameScores, per_second

REAL_COLOUR, FAKE_COLOUR, TRUE_COLOUR = PALETTE[0], PALETTE[3], PALETTE[1]
THUMBNAILS = 12
WIDTH = 9.0  # inches


def clip_png(
    found: FrameScores,
    frames: np.ndarray | None,
    parts: np.ndarray,
    *,
    threshold: float,
    true_parts: Sequence[tuple[float, float]] = (),
    begin: float = 0.0,
) -> bytes:
    """Return a PNG of a clip over time: its frames, score and correlation, and forged parts.

    Args:
        found: curves of the clip.
        frames: grey face crops, uint8, shape (T, S, S); None leaves them out.
        parts: found, begin, end and score, shape (K, 3), in seconds from the first frame.
        threshold: above it is fake.
        true_parts: begin and end in seconds, where they are known.
        begin: seconds of the file where the first frame is.
    """
    count = len(found.margin)
    end = begin + count / FPS
    times = begin + (np.arange(count) + 0.5) / FPS
    edges = np.append(np.arange(begin, end, 1.0)[: len(per_second(found.margin))], end)

    def draw(figure: Any) -> None:
        heights = [1.15, 2.2, 1.3] if frames is not None else [2.2, 1.3]
        panels = figure.subplots(len(heights), 1, height_ratios=heights, sharex=True)
        if frames is not None:
            panels[0].imshow(
                film_strip(frames),
                cmap="gray",
                vmin=0,
                vmax=255,
                extent=(begin, end, 0, 1),
                aspect="auto",
            )
            panels[0].set_yticks([])
            panels[0].grid(visible=False)
            panels[0].spines[:].set_visible(False)
        score, together = panels[-2:]
        for axes, values, colour in (
            (score, found.margin, FAKE_COLOUR),
            (together, found.correlation, REAL_COLOUR),
        ):
            axes.plot(times, values, color=colour, linewidth=1, alpha=0.45)
            axes.stairs(per_second(values), edges, baseline=None, color=colour, linewidth=2)
        for row, label in zip(parts, ["found", *[None] * len(parts)], strict=False):
            score.axvspan(
                begin + row[0], begin + row[1], color=FAKE_COLOUR, alpha=0.14, lw=0, label=label
            )
        for (start, stop), label in zip(
            true_parts, ["forged in truth", *[None] * len(true_parts)], strict=False
        ):
            score.plot(
                [start, stop],
                [0.02, 0.02],
                transform=score.get_xaxis_transform(),
                color=TRUE_COLOUR,
                linewidth=5,
                solid_capstyle="butt",
                label=label,
            )
        score.axhline(threshold, color="0.35", linestyle="--", linewidth=1, label="threshold")
        low = min(float(found.margin.min()), threshold)
        high = max(float(found.margin.max()), threshold)
        room = 0.12 * max(high - low, 0.1)
        score.set(ylabel="score (up: fake)", ylim=(low - room, high + room), xlim=(begin, end))
        score.legend(loc="upper left", ncols=3, fontsize=8, bbox_to_anchor=(0, 1.22))
        together.set(ylabel="correlation", ylim=(-0.03, 1.03), xlabel="seconds")

    return figure_png(draw, width=WIDTH, height=4.6 if frames is not None else 3.5)


def film_strip(frames: np.ndarray, count: int = THUMBNAILS) -> np.ndarray:
    """Return frames side by side, each from the middle of its share of the clip.

    Args:
        frames: uint8, shape (T, S, S).
        count: of the strip; fewer for clips with fewer frames.

    Returns:
        uint8, shape (S, n S).
    """
    count = min(count, len(frames))
    places = ((np.arange(count) + 0.5) * len(frames) / count).astype(int)
    return np.hstack(list(frames[places]))


def roc_png(curves: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> bytes:
    """Return a PNG with the ROC curve of each list or method.

    Args:
        curves: name -> scores and fake, shape (N,) each, both classes.
    """

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        for name, (scores, fake) in curves.items():
            label = f"{name}: AUC {unchecked_auc(scores, fake):.3f}"
            axes.plot(*roc_points(scores, fake), label=label)
        axes.plot([0, 1], [0, 1], color="0.7", linewidth=1)
        axes.set(xlabel="real clips called fake", ylabel="fakes called fake", aspect="equal")
        axes.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), fontsize=9)

    return figure_png(draw, width=7.4, height=3.9)


def roc_points(scores: np.ndarray, fake: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the corners of the ROC curve: shares of real and of fake clips above each score.

    Args:
        scores: higher = more fake, shape (N,).
        fake: bool, shape (N,), both values.
    """
    _, positive, negative = score_levels(scores, fake)
    shares = [np.append(0, n[::-1].cumsum()) / n.sum() for n in (negative, positive)]
    return shares[0], shares[1]


def scores_png(scores: Mapping[str, np.ndarray], thresholds: Mapping[str, float]) -> bytes:
    """Return a PNG with the scores of real clips and of each method's fakes, one dot a clip.

    Args:
        scores: ``real`` or a method -> scores, shape (N,).
        thresholds: words -> score, drawn as lines.
    """
    chance = np.random.default_rng(0)

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        for place, (name, values) in enumerate(scores.items()):
            colour = REAL_COLOUR if name == "real" else FAKE_COLOUR
            spread = place + chance.uniform(-0.22, 0.22, len(values))
            axes.plot(values, spread, ".", color=colour, alpha=0.5, markersize=5)
            middle = [float(np.median(values))] * 2
            axes.plot(middle, [place - 0.35, place + 0.35], color=colour, linewidth=2)
        for (words, value), style in zip(thresholds.items(), ("--", ":"), strict=False):
            axes.axvline(value, color="0.35", linestyle=style, linewidth=1.2, label=words)
        axes.set_yticks(range(len(scores)), [f"{n} ({len(v)})" for n, v in scores.items()])
        axes.set(xlabel="score (right: fake); the stroke is the median")
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), fontsize=9)

    return figure_png(draw, width=7.4, height=1.3 + 0.42 * max(2, len(scores)))


def reliability_png(curves: Mapping[str, tuple[np.ndarray, np.ndarray]], bins: int = 10) -> bytes:
    """Return a PNG: how many clips are fake among those with about the same probability.

    Args:
        curves: name -> p(fake) and fake, shape (N,) each.
        bins: of equal width.
    """
    shown = list(curves.items())[:4]

    def draw(figure: Any) -> None:
        for axes, (name, (p, fake)) in zip(
            figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True
        ):
            place = np.minimum((p * bins).astype(int), bins - 1)
            count = np.bincount(place, minlength=bins)
            some = count > 0
            means = np.bincount(place, p, bins)[some] / count[some]
            shares = np.bincount(place, fake, bins)[some] / count[some]
            axes.plot([0, 1], [0, 1], color="0.7", linewidth=1)
            axes.scatter(means, shares, s=20 + 300 * count[some] / len(p))
            axes.set(title=name, xlabel="p(fake), calibrated", ylabel="share of fakes")
            axes.set(xlim=(-0.05, 1.05), ylim=(-0.05, 1.05))

    return figure_png(draw, width=3.4 * max(2, len(shown)), height=3.4)


def bars_png(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> bytes:
    """Return a PNG: the AUC of the network beside those of the baselines, row by row.

    Args:
        rows: with ``fakes``, and an AUC, or None, by each name.
        names: columns, first the network's.
    """

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        step = 0.8 / len(names)
        for number, name in enumerate(names):
            values = [row.get(name) for row in rows]
            known = [k for k, v in enumerate(values) if v is not None and v == v]
            places = [k - 0.4 + step * (number + 0.5) for k in known]
            widths = [float(values[k] or 0) - 0.5 for k in known]
            axes.barh(places, widths, step * 0.9, left=0.5, label=name, color=PALETTE[number])
        axes.axvline(0.5, color="0.4", linewidth=1)
        axes.set_yticks(range(len(rows)), [str(row["fakes"]) for row in rows])
        axes.set(xlabel="ROC AUC; 0.5 tells nothing", xlim=(0, 1))
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), fontsize=9)

    height = 1.1 + 0.16 * (len(names) + 1) * max(2, len(rows))
    return figure_png(draw, width=7.4, height=height)
