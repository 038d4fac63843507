"""Forged parts of clips: found in a curve of scores, and judged by overlap with the true ones.

AP and AR are those of LAV-DF and AV-Deepfake1M: a part counts as found where the intersection over
union (IoU) with a proposal exceeds a threshold. Where their code leaves cases open, or drops
something, this holds:

- equal scores count together, so that the order of clips does not matter;
- a clip without proposals has its parts missed (one version of the published code leaves such a
  clip out);
- the precision up to the first proposal counts (the published code leaves that out, which lowers
  AP by at most one part in all);
- without any true part AP and AR are NaN, without proposals 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cmdfd.features import FPS

AP_OVERLAPS = (0.5, 0.75, 0.95)
AR_OVERLAPS = tuple(round(0.5 + 0.05 * k, 2) for k in range(10))
AR_COUNTS = (5, 10, 20, 50)


def smoothed(curve: Any, width: int) -> np.ndarray:
    """Return the running mean of a curve; at its ends over the values that are there.

    Args:
        curve: finite, shape (T,).
        width: values, odd, >= 1; 1 changes nothing.

    Returns:
        float64, shape (T,).

    Raises:
        ValueError: width is even or below 1, or the curve is not (T,).
    """
    values = np.asarray(curve, np.float64)
    if width < 1 or width % 2 == 0 or values.ndim != 1:
        raise ValueError(
            f"width must be odd and >= 1, the curve (T,); got {width} and {values.shape}"
        )
    if width == 1 or not len(values):
        return values
    sums = np.append(0, values.cumsum())
    place = np.arange(len(values))
    begin = (place - width // 2).clip(min=0)
    end = (place + width // 2 + 1).clip(max=len(values))
    return (sums[end] - sums[begin]) / (end - begin)


def find_segments(
    curve: Any,
    *,
    threshold: float = 0.0,
    smooth: int = 5,
    least: int = 5,
    gap: int = 3,
    fps: float = FPS,
) -> np.ndarray:
    """Return the parts of a clip whose smoothed score is above a threshold.

    Args:
        curve: score of each frame, higher = more fake, finite, shape (T,).
        threshold: a part lies above it.
        smooth: frames of the running mean, odd; 1 is none.
        least: frames of the shortest part, >= 1.
        gap: parts that so many frames or fewer part are one, >= 0.
        fps: frames per second.

    Returns:
        float64, shape (K, 3): begin and end in seconds, in order, and the mean smoothed score.

    Raises:
        ValueError: a number out of range.
    """
    if least < 1 or gap < 0 or fps <= 0:
        raise ValueError(f"need least >= 1, gap >= 0, fps > 0, got {least}, {gap}, {fps}")
    values = smoothed(curve, smooth)
    steps = np.diff(np.concatenate([[0], values > threshold, [0]]).astype(np.int8))
    begins, ends = np.flatnonzero(steps == 1), np.flatnonzero(steps == -1)
    if len(begins) > 1:
        apart = begins[1:] - ends[:-1] > gap
        begins, ends = begins[np.append(True, apart)], ends[np.append(apart, True)]
    long = ends - begins >= least
    begins, ends = begins[long], ends[long]
    sums = np.append(0, values.cumsum())
    means = (sums[ends] - sums[begins]) / np.maximum(1, ends - begins)
    return np.stack([begins / fps, ends / fps, means], axis=1)


def overlaps(proposals: Any, parts: Any) -> np.ndarray:
    """Return the intersection over union of spans of time.

    Args:
        proposals: begin and end, begin < end, shape (..., P, 2).
        parts: likewise, shape (..., L, 2).

    Returns:
        float64 in [0, 1], shape (..., P, L).
    """
    p = np.asarray(proposals, np.float64)[..., :, None, :]
    q = np.asarray(parts, np.float64)[..., None, :, :]
    shared = np.minimum(p[..., 1], q[..., 1]) - np.maximum(p[..., 0], q[..., 0])
    around = np.maximum(p[..., 1], q[..., 1]) - np.minimum(p[..., 0], q[..., 0])
    return np.where(around > 0, shared.clip(min=0) / np.where(around > 0, around, 1), 0)


def localisation_measures(
    proposals: Sequence[Any],
    parts: Sequence[Any],
    *,
    ap_overlaps: Sequence[float] = AP_OVERLAPS,
    ar_counts: Sequence[int] = AR_COUNTS,
) -> dict[str, float]:
    """Return AP at each overlap and AR at each number of proposals.

    AP@x is the area under the curve of interpolated precision over recall of all clips together:
    in a clip each true part takes its highest-scored proposal that no part before has taken, with
    IoU > x. AR@n is the share of true parts that one of the n highest-scored proposals of their
    clip overlaps with IoU > x, its mean over x = 0.5, 0.55, ..., 0.95.

    Args:
        proposals: of each clip, begin, end and score, shape (K, 3); K may be 0.
        parts: true ones of each clip, begin and end, shape (L, 2); genuine clips have none.
        ap_overlaps: in [0, 1).
        ar_counts: >= 1.

    Returns:
        ``ap@0.5, ..., ar@5, ...`` in [0, 1]; NaN without any true part.

    Raises:
        ValueError: not as many, shapes are not as described, a span is empty, or a number out of
            range.
    """
    if len(proposals) != len(parts) or min(ar_counts, default=1) < 1:
        raise ValueError(
            f"need proposals and parts of each clip and counts >= 1, got {len(proposals)}, "
            f"{len(parts)}, {list(ar_counts)}"
        )
    found = [_spans(rows, 3, "proposals") for rows in proposals]
    found = [rows[np.argsort(-rows[:, 2], kind="stable")] for rows in found]
    true = [_spans(rows, 2, "parts") for rows in parts]
    total = sum(map(len, true))
    names = [f"ap@{x:g}" for x in ap_overlaps] + [f"ar@{n}" for n in ar_counts]
    if not total:
        return dict.fromkeys(names, float("nan"))
    padded, there = _padded(found, 3)
    labels, known = _padded(true, 2)
    if not padded.shape[1]:
        return dict.fromkeys(names, 0.0)
    inside = there[:, :, None] & known[:, None, :]
    iou = np.where(inside, overlaps(padded[..., :2], labels), -1.0)
    scores = padded[..., 2][there]
    values = [average_precision(_taken(iou > x)[there], scores, total) for x in ap_overlaps]
    best = np.maximum.accumulate(iou, axis=1)
    for count in ar_counts:
        top = best[:, min(count, best.shape[1]) - 1]
        values.append(float(np.mean([(top > x).sum() / total for x in AR_OVERLAPS])))
    return dict(zip(names, values, strict=True))


def _taken(possible: np.ndarray) -> np.ndarray:
    """Return which proposals a true part takes, bool (C, P, L) -> (C, P), P >= 1."""
    taken = np.zeros(possible.shape[:2], bool)
    clips = np.arange(len(possible))
    for part in range(possible.shape[2]):
        free = possible[:, :, part] & ~taken
        first = free.argmax(1)
        taken[clips, first] |= free[clips, first]
    return taken


def average_precision(hit: np.ndarray, scores: np.ndarray, total: int) -> float:
    """Return the area under interpolated precision over recall.

    Args:
        hit: whether a proposal is taken by a true part, bool, shape (N,), N >= 1.
        scores: of the proposals, shape (N,).
        total: number of true parts, >= 1.
    """
    order = np.argsort(-scores, kind="stable")
    hits, ranked = hit[order].cumsum(), scores[order]
    ends = np.flatnonzero(np.append(ranked[1:] < ranked[:-1], True))
    precision = hits[ends] / (ends + 1)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    return float((np.diff(hits[ends], prepend=0) * best).sum() / total)


def _padded(rows: Sequence[np.ndarray], width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return arrays of shapes (K, W) as one, (C, largest K, W), and which rows are theirs."""
    counts = np.array([len(values) for values in rows])
    there = np.arange(counts.max()) < counts[:, None]
    padded = np.zeros((*there.shape, width))
    padded[there] = np.concatenate(rows)
    return padded, there


def _spans(rows: Any, width: int, name: str) -> np.ndarray:
    values = np.asarray(rows, np.float64)
    values = values.reshape(-1, width) if not values.size else values
    if values.ndim != 2 or values.shape[1] != width or not np.isfinite(values).all():
        raise ValueError(f"{name} of a clip must be finite, (K, {width}), got {values.shape}")
    if (values[:, 1] <= values[:, 0]).any():
        raise ValueError(f"{name} must end after they begin")
    return values
