"""How well one pair is located: region and words. Measures of whole sets: `d_tiil.set_measures`.

A row has ``name, kind, edited, split, source, inconsistent`` (1, 0 or nothing) and ``score``; then
of an inconsistent pair, where the truth is known:

``iou``: of the mask, against the true one; ``iou_best``: at the threshold on the map that is best
    for the mean over the set, which flatters; ``pixel_ap, pixel_auc``: of the map.
``iou_changed, iou_changed_best``: likewise, against the pixels that differ from the picture of the
    caption, where they are not all of the region that it is wrong about.
``word_top1``: 1 where the most suspect word or phrase shares a letter with a true one.

Of a consistent pair: ``false_alarm_area``, the share of its pixels in the mask. Of one whose image
was edited to the same content (a control) instead: ``control_area``, likewise, and ``trace_iou,
trace_auc``: mask and map against the edited pixels. A method that sees meaning has 0.5 for the
last, one that sees traces of editing more.

Of all: ``word_tp, word_fp, word_fn``: numbers of tokens, for the precision and recall over a set.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from papercommons.cli import track
from papercommons.metrics.roc import score_levels, unchecked_auc

from d_tiil.findings import Finding, as_bytes, to_size
from d_tiil.records import Record
from d_tiil.word_spans import caption_tokens, marked, overlap

Row = dict[str, Any]
MEANS = (
    "iou",
    "iou_best",
    "iou_changed",
    "iou_changed_best",
    "pixel_ap",
    "pixel_auc",
    "false_alarm_area",
    "control_area",
    "trace_iou",
    "trace_auc",
    "word_top1",
)
TOKENS = ("word_tp", "word_fp", "word_fn")


@dataclass(frozen=True, eq=False)
class Measured:
    """One pair, measured.

    Attributes:
        row: see the module; without the measures at the best threshold.
        curves: iou and iou_changed of the map above 0, 1, ... 254, float64, (255,), where known.
    """

    row: Row
    curves: Mapping[str, np.ndarray]


def judge_all(
    find: Callable[[Record], Finding],
    records: Sequence[Record],
    *,
    threshold: float = 0.3,
    label: str = "judging",
) -> list[Measured]:
    """Return the measures of a method on each pair.

    Args:
        find: the method.
        records: what it is asked about.
        threshold: see `measure_pair`.
        label: words beside the progress bar.

    Raises:
        DataError: an image or a mask cannot be read.
    """
    return [
        measure_pair(record, find(record), record.open_image().size[::-1], threshold=threshold)
        for record in track(records, label)
    ]


def measure_pair(
    record: Record, finding: Finding, size: tuple[int, int], *, threshold: float = 0.3
) -> Measured:
    """Return the measures of one pair.

    Args:
        record: what is true.
        finding: what a method says.
        size: H, W of the image.
        threshold: on the map, in (0, 1), where the finding has no mask.

    Raises:
        DataError: the true mask cannot be read.
        ValueError: the map is out of range.
    """
    if not 0 < threshold < 1:
        raise ValueError(f"threshold must be in (0, 1), got {threshold}")
    row: Row = {
        name: getattr(record, name) for name in ("name", "kind", "edited", "split", "source")
    }
    row["inconsistent"] = None if record.inconsistent is None else int(record.inconsistent)
    row["score"] = None if finding.score is None else float(finding.score)
    values = None if finding.map is None else to_size(as_bytes(finding.map), size)
    if finding.mask is not None:
        mask: np.ndarray | None = to_size(np.asarray(finding.mask, bool), size)
    else:
        mask = None if values is None else values > 255 * threshold
    changed = None if record.changed is None else record.changed.read(size)
    curves: dict[str, np.ndarray] = {}
    if record.inconsistent:
        truths = {"iou": record.true_mask(size), "iou_changed": changed}
        for name, truth in truths.items():
            if truth is not None and mask is not None:
                row[name] = iou(mask, truth)
            if truth is not None and values is not None:
                curves[name] = iou_curve(values, truth)
        if truths["iou"] is not None and values is not None:
            row |= _pixels(values, truths["iou"])
    elif record.inconsistent is not None:
        row |= _alarms(record, mask, values, changed)
    row |= _words(record, finding)
    return Measured(row, curves)


def iou(mask: np.ndarray, truth: np.ndarray) -> float:
    """Return intersection over union of two masks; 0 where both are empty.

    Args:
        mask: bool, (H, W).
        truth: likewise.
    """
    return int((mask & truth).sum()) / max(1, int((mask | truth).sum()))


def iou_curve(values: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return the IoU of a map above each of 0, 1, ... 254, float64, (255,).

    Args:
        values: uint8, (H, W).
        truth: bool, (H, W).
    """
    inside = np.bincount(values[truth], minlength=256)
    outside = np.bincount(values[~truth], minlength=256)
    hits, alarms = (part.sum() - part.cumsum()[:-1] for part in (inside, outside))
    curve: np.ndarray = hits / np.maximum(inside.sum() + alarms, 1)
    return curve


def _pixels(values: np.ndarray, truth: np.ndarray) -> Row:
    _, inside, outside = score_levels(values, truth)
    return {
        "pixel_ap": float(precision_area(inside, outside)),
        "pixel_auc": unchecked_auc(values, truth),
    }


def precision_area(positive: np.ndarray, negative: np.ndarray) -> np.ndarray:
    """Return the average precision: precision times gain in recall, from the highest score down.

    Args:
        positive: weight of the positives at each level of the score, ascending, (..., L).
        negative: of the negatives.

    Returns:
        float64, (...); NaN where positives weigh nothing.
    """
    gain = np.asarray(positive, np.float64)[..., ::-1]
    hits = gain.cumsum(-1)
    called = hits + np.asarray(negative, np.float64)[..., ::-1].cumsum(-1)
    precision = hits / np.where(called > 0, called, 1)
    total = hits[..., -1]
    area: np.ndarray = (precision * gain).sum(-1) / np.where(total > 0, total, np.nan)
    return area


def _alarms(
    record: Record,
    mask: np.ndarray | None,
    values: np.ndarray | None,
    changed: np.ndarray | None,
) -> Row:
    control = is_control(record)
    row: Row = {}
    if mask is not None:
        row["control_area" if control else "false_alarm_area"] = float(mask.mean())
    if control and changed is not None:
        row |= {} if mask is None else {"trace_iou": iou(mask, changed)}
        row |= {} if values is None else {"trace_auc": unchecked_auc(values, changed)}
    return row


def is_control(record: Record | Mapping[str, Any]) -> bool:
    """Return whether a pair, or its row, is consistent though its image was edited."""
    if isinstance(record, Record):
        return record.label == "consistent" and record.edited in ("image", "both")
    return record["inconsistent"] == 0 and record["edited"] in ("image", "both")


def _words(record: Record, finding: Finding) -> Row:
    row: Row = {}
    truth = record.true_words()
    if truth is None:
        return row
    if record.inconsistent and truth and (finding.top is not None or finding.words is not None):
        top = finding.top
        row["word_top1"] = float(top is not None and any(overlap(top, word) for word in truth))
    if finding.words is not None:
        tokens = caption_tokens(record.caption)
        said, wanted = (np.array(marked(tokens, spans)) for spans in (finding.words, truth))
        counts = (said & wanted, said & ~wanted, ~said & wanted)
        row |= {name: int(part.sum()) for name, part in zip(TOKENS, counts, strict=True)}
    return row
