"""Pictures: maps on photographs, panels, means by method, curves over distortions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from papercommons.metrics.localization import dilate
from papercommons.metrics.tables import Difference, Summary
from papercommons.report import figure_png

from defi_net.evaluation import AS_IT_IS, Point

HEAT = (255, 40, 0)
TRUTH = (0, 230, 255)
EDGE = (255, 220, 0)
LONGEST = 1024  # pixels of a picture's side in a report
DPI = 120  # of its figures

NAMES = {
    "f1": "F1",
    "f1_macro": "F1, mean of both kinds of pixel",
    "f1_best": "F1, best threshold",
    "f1_fixed": "F1, threshold 0.5",
    "iou": "IoU",
    "auc": "AUC of pixels",
    "image_auc": "AUC of photographs",
    "boundary_f1": "F1 along the edge",
    "precision": "precision",
    "recall": "recall",
    "accuracy": "accuracy",
    "false_positive_rate": "FPR on authentic",
}
STRENGTHS = {
    "jpeg": "JPEG quality",
    "webp": "WebP quality",
    "blur": "blur, sigma in pixels",
    "noise": "noise, sigma in grey levels",
    "resize": "resizing, factor",
}


def metric_name(column: str) -> str:
    """Return a measure in words.

    Args:
        column: of `defi_net.evaluation.judge`.

    Example:
        >>> metric_name("imdl_f1")
        'F1 (imdl)'
    """
    if column in NAMES:
        return NAMES[column]
    protocol, _, name = column.partition("_")
    return f"{NAMES.get(name, name)} ({protocol})"


def overlay(
    photo: np.ndarray,
    probability: np.ndarray,
    *,
    mask: np.ndarray | None = None,
    edge: np.ndarray | None = None,
    strength: float = 0.65,
) -> np.ndarray:
    """Return a photograph with the map over it in red, and outlines.

    Args:
        photo: uint8, shape (H, W, 3).
        probability: float in [0, 1], shape (H, W).
        mask: where it is forged; its outline is cyan. None draws none.
        edge: probability of an edge, shape (H, W); above 0.5 it is yellow. None draws none.
        strength: share of red at probability 1, in [0, 1].

    Returns:
        uint8, shape (H, W, 3).

    Raises:
        ValueError: shapes do not match.
    """
    for other in (probability, mask, edge):
        if other is not None and other.shape != photo.shape[:2]:
            raise ValueError(f"photo is {photo.shape}, a map of it {other.shape}")
    found, heat = np.empty_like(photo), np.array(HEAT, np.float32)
    for top in range(0, len(photo), 256):  # large photographs would take 40 bytes a pixel
        rows = slice(top, top + 256)
        share = strength * np.asarray(probability[rows], np.float32)[..., None]
        found[rows] = np.rint(photo[rows] * (1 - share) + heat * share)
    if edge is not None:
        found[edge > 0.5] = EDGE
    if mask is not None:
        found[outline(mask)] = TRUTH
    return found


def outline(mask: np.ndarray) -> np.ndarray:
    """Return the pixels around a region, some thousandths of the picture wide: bool, (H, W).

    Args:
        mask: bool, shape (H, W).
    """
    mask = mask.astype(bool)
    return dilate(mask, max(1, round(max(mask.shape) / 400))) & ~mask


def shrink(picture: np.ndarray, longest: int = LONGEST) -> np.ndarray:
    """Return a picture or map no longer than `longest`; smaller ones as they are.

    Args:
        picture: uint8 (H, W, 3), bool (H, W), or float in [0, 1], (H, W).
        longest: pixels of the longer side.
    """
    height, width = picture.shape[:2]
    factor = longest / max(height, width)
    if factor >= 1:
        return picture
    from PIL import Image

    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    if picture.dtype == bool:
        return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.NEAREST))
    image = Image.fromarray(picture if picture.dtype == np.uint8 else picture.astype(np.float32))
    return np.asarray(image.resize(size, Image.Resampling.BOX))


def panels_png(
    photo: np.ndarray,
    probability: np.ndarray,
    *,
    mask: np.ndarray | None = None,
    edge: np.ndarray | None = None,
    says: str = "",
) -> bytes:
    """Return a PNG: the photograph, the truth, the map, the edges, and all of it in one.

    Args:
        photo: uint8, shape (H, W, 3).
        probability: float in [0, 1], shape (H, W).
        mask: where it is forged, bool; None where it is not known.
        edge: probability of an edge, float, shape (H, W); None leaves it out.
        says: words under the last picture.
    """
    small = shrink(photo)
    maps = [None if m is None else shrink(m) for m in (probability, mask, edge)]
    heat, truth, edges = maps
    assert heat is not None
    shown: dict[str, np.ndarray] = {"photograph": small}
    if truth is not None:
        shown["truth"] = truth
    shown["probability"] = heat
    if edges is not None:
        shown["edge"] = edges
    last = "probability and truth" if truth is not None else "probability on the photograph"
    shown[f"{last}\n{says}" if says else last] = overlay(small, heat, mask=truth)
    columns = 2 if len(shown) == 4 else min(3, len(shown))
    return grid_png(list(shown.values()), list(shown), columns=columns, width=3.0)


def strip(photo: np.ndarray, probability: np.ndarray, edge: np.ndarray) -> np.ndarray:
    """Return the photograph, the map, the edges and the map on the photograph, side by side.

    Args:
        photo: uint8, shape (H, W, 3).
        probability: float in [0, 1], shape (H, W).
        edge: likewise.

    Returns:
        uint8, no picture longer than 480 pixels, 8 white pixels between them.
    """
    small, heat, rim = (shrink(picture, 480) for picture in (photo, probability, edge))
    grey = [np.repeat(np.rint(255 * m).astype(np.uint8)[..., None], 3, 2) for m in (heat, rim)]
    white = np.full((len(small), 8, 3), 255, np.uint8)
    parts = [small, *grey, overlay(small, heat)]
    return np.concatenate([x for part in parts for x in (part, white)][:-1], axis=1)


def grid_png(
    pictures: Sequence[np.ndarray],
    captions: Sequence[str],
    *,
    columns: int = 4,
    width: float = 2.4,
) -> bytes:
    """Return a PNG of pictures in rows, each with a caption.

    Args:
        pictures: uint8 (H, W, 3), or maps, bool or float in [0, 1], (H, W); at least one.
        captions: one each.
        columns: pictures in a row.
        width: of a column, inches.

    Raises:
        ValueError: no pictures, or not as many captions.
    """
    if not pictures or len(pictures) != len(captions):
        raise ValueError(
            f"pictures must have one caption each, got {len(pictures)}, {len(captions)}"
        )
    columns = min(columns, len(pictures))
    rows = -(-len(pictures) // columns)
    small = [shrink(picture, round(2 * DPI * width)) for picture in pictures]
    tall = max(picture.shape[0] / picture.shape[1] for picture in small)
    lines = 1 + max(caption.count("\n") for caption in captions)

    def draw(figure: Any) -> None:
        places = list(figure.subplots(rows, columns, squeeze=False).flat)
        for place in places:
            place.axis("off")
        for place, picture, caption in zip(places, small, captions, strict=False):
            place.imshow(picture, cmap="gray", vmin=0, vmax=1)
            place.set_title(caption, fontsize=9, loc="center")

    height = width * min(tall, 2.0) + 0.1 + 0.2 * lines
    return figure_png(draw, width=columns * width, height=rows * height)


def means_png(summaries: Sequence[Summary], metrics: Sequence[str]) -> bytes:
    """Return a PNG of the means of each group with their intervals, one panel per measure.

    Args:
        summaries: of `defi_net.evaluation.means`.
        metrics: what to show, in this order; at least one has a mean.

    Raises:
        ValueError: no group has any of the measures.
    """
    chosen = {
        name: [s for s in summaries if s.metric == name and not math.isnan(s.value)]
        for name in metrics
    }
    chosen = {name: found for name, found in chosen.items() if found}
    if not chosen:
        raise ValueError(f"nothing to draw: no mean of {', '.join(metrics)}")
    groups = list(dict.fromkeys(s.group for found in chosen.values() for s in found))

    def draw(figure: Any) -> None:
        panels = figure.subplots(1, len(chosen), sharey=True, squeeze=False)[0]
        for axes, (name, found) in zip(panels, chosen.items(), strict=True):
            places = [groups.index(s.group) for s in found]
            values = [s.value for s in found]
            ends = [[s.value - s.low for s in found], [s.high - s.value for s in found]]
            axes.errorbar(
                values, places, xerr=np.maximum(ends, 0), fmt="o", capsize=3, clip_on=False
            )
            axes.set(title=metric_name(name), xlim=_limits(name, found))
            axes.set_ylim(len(groups) - 0.5, -0.5)
        panels[0].set_yticks(range(len(groups)), groups)

    return figure_png(draw, width=max(6.0, 3.0 * len(chosen)), height=1.2 + 0.35 * len(groups))


def _limits(metric: str, found: Sequence[Summary]) -> tuple[float, float | None]:
    if not metric.endswith("false_positive_rate"):
        return (0, 1.02)
    most = max(s.value if math.isnan(s.high) else s.high for s in found)
    return (0, max(0.02, 1.1 * most))


def differences_png(found: Sequence[Difference], metrics: Sequence[str]) -> bytes:
    """Return a PNG of the differences of each group with their intervals, one panel per measure.

    Args:
        found: of `papercommons.metrics.tables.compare`.
        metrics: what to show, in this order; at least one is there.

    Raises:
        ValueError: none is there.
    """
    chosen = {name: [d for d in found if d.metric == name and d.images] for name in metrics}
    chosen = {name: members for name, members in chosen.items() if members}
    if not chosen:
        raise ValueError(f"nothing to draw: no difference of {', '.join(metrics)}")
    groups = list(dict.fromkeys(d.group for members in chosen.values() for d in members))

    def draw(figure: Any) -> None:
        panels = figure.subplots(1, len(chosen), sharey=True, squeeze=False)[0]
        for axes, (name, members) in zip(panels, chosen.items(), strict=True):
            places = [groups.index(d.group) for d in members]
            values = [d.value for d in members]
            ends = [[d.value - d.low for d in members], [d.high - d.value for d in members]]
            axes.errorbar(values, places, xerr=np.maximum(ends, 0), fmt="o", capsize=3)
            axes.axvline(0, color="0.4", linewidth=1)
            axes.set(title=metric_name(name))
            axes.set_ylim(len(groups) - 0.5, -0.5)
        panels[0].set_yticks(range(len(groups)), groups)

    return figure_png(draw, width=max(6.0, 3.0 * len(chosen)), height=1.2 + 0.35 * len(groups))


def robustness_png(found: Mapping[str, Sequence[Point]], metric: str) -> bytes:
    """Return a PNG with one panel per kind of distortion; a line is the photograph as it is.

    Args:
        found: of `defi_net.evaluation.curves`, with a distortion.
        metric: what they are of.

    Raises:
        ValueError: there is no distortion.
    """
    kinds = [kind for kind in found if kind != AS_IT_IS]
    if not kinds:
        raise ValueError("no distortion to draw; judge with some")
    clean = found.get(AS_IT_IS)

    def draw(figure: Any) -> None:
        panels = figure.subplots(1, len(kinds), sharey=True, squeeze=False)[0]
        for axes, kind in zip(panels, kinds, strict=True):
            points = found[kind]
            strengths = [point.strength for point in points]
            axes.plot(strengths, [p.value for p in points], marker="o", markersize=3)
            lows, highs = [p.low for p in points], [p.high for p in points]
            axes.fill_between(strengths, lows, highs, alpha=0.2, linewidth=0)
            if clean:
                axes.axhline(clean[0].value, color="0.4", linewidth=1, linestyle="--")
            axes.set(xlabel=STRENGTHS.get(kind, kind))
            if kind in ("jpeg", "webp"):
                axes.invert_xaxis()  # to the right it gets worse
        panels[0].set_ylabel(metric_name(metric))
        panels[0].set_ylim(0, 1.02)

    return figure_png(draw, width=max(5.0, 2.6 * len(kinds)), height=3.0)


def scores_png(scores: Sequence[float], forged: Sequence[int], threshold: float) -> bytes:
    """Return a PNG with the scores of forged and of authentic photographs.

    Args:
        scores: of photographs, in [0, 1].
        forged: 1 or 0, of each.
        threshold: above it a photograph is called forged.
    """
    values, kinds = np.asarray(scores, float), np.asarray(forged).astype(bool)

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        bins = np.linspace(0, 1, 41).tolist()
        for chosen, name in ((~kinds, "authentic"), (kinds, "forged")):
            axes.hist(values[chosen], bins, alpha=0.6, label=f"{name} ({int(chosen.sum()):,})")
        axes.axvline(threshold, color="k", linewidth=1, label=f"threshold {threshold:.3g}")
        axes.set(xlabel="score of the photograph", ylabel="photographs", xlim=(0, 1))
        axes.legend()

    return figure_png(draw, width=6, height=3)
