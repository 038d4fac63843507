"""A method judged on a data set: one row per photograph and distortion, means, curves.

A row has ``name, method, source, forged`` (1 or 0), ``kind, strength`` of the distortion (none and
nothing for the photograph as it is), ``area`` (share of the pixels that are forged), ``score`` of
the whole photograph, and its measures: ``auc``, ``boundary_f1``, and those of each protocol with
its name before theirs, as ``imdl_f1``. Measures of forged pixels are there for forged photographs,
false-positive rates for authentic ones.
"""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from papercommons.cli import track
from papercommons.data.distortions import Distortion, distort
from papercommons.errors import DataError, reason
from papercommons.metrics.bootstrap import Estimate
from papercommons.metrics.detection import Score, image_metrics, image_score
from papercommons.metrics.localization import PROTOCOLS, Protocol, boundary_f1, pixel_metrics
from papercommons.metrics.tables import Summary, summarize

from defi_net.layouts import Sample
from defi_net.reading import read_sample

Row = dict[str, Any]
Predict = Callable[[np.ndarray], np.ndarray]
"""From a photograph, uint8 (H, W, 3), to the probability of "inpainted", (H, W)."""

ABOUT = ("name", "method", "source", "label", "kind", "strength", "area", "score")
AS_IT_IS = "none"  # the kind of no distortion
_TEXT = ("name", "method", "source", "kind")
_MOST_BYTES = 1 << 30


def judge(
    predict: Predict,
    samples: Sequence[Sample],
    *,
    protocols: Sequence[Protocol] = PROTOCOLS,
    distortions: Sequence[Distortion] = (),
    threshold: float = 0.5,
    score: Score = "max",
    seed: int = 0,
    read: Callable[[Sample], tuple[np.ndarray, np.ndarray]] = read_sample,
    label: str = "judging",
) -> list[Row]:
    """Return one row per photograph and distortion (see the module).

    Args:
        predict: what is judged; a map of another size than its mask is resized to it, bilinear.
        samples: photographs with masks.
        protocols: by which to judge.
        distortions: each photograph is judged as it is, and after each of these.
        threshold: on the probability, in (0, 1).
        score: how a photograph's score comes from its map.
        seed: of the distortions' noise.
        read: from a sample to the photograph and its mask, bool (H, W).
        label: words beside the progress bar.

    Raises:
        DataError: a file of a sample is not as it must be.
        ValueError: no samples, unknown protocol, or a threshold out of range.
    """
    if not samples:
        raise ValueError("no samples to judge")
    rows = []
    for sample in track(samples, label):
        photo, mask = read(sample)
        name = sample.name or sample.image.name
        for distortion in (None, *distortions):
            seen = photo if distortion is None else distort(photo, distortion, name=name, seed=seed)
            probability = to_size(predict(seen), mask.shape)
            row: Row = {
                "name": name,
                "method": sample.method,
                "source": sample.source,
                "label": int(mask.any()),
                "kind": AS_IT_IS if distortion is None else distortion.kind,
                "strength": None if distortion is None else distortion.strength,
                "area": float(mask.mean()),
                "score": image_score(probability, score),
            }
            rows.append(row | measures(probability, mask, protocols, threshold=threshold))
    return rows


def measures(
    probability: np.ndarray,
    mask: np.ndarray,
    protocols: Sequence[Protocol] = PROTOCOLS,
    *,
    threshold: float = 0.5,
) -> dict[str, float]:
    """Return the measures of one map by several protocols.

    Args:
        probability: float in [0, 1], or uint8, read as 255ths, shape (H, W).
        mask: True where forged, shape (H, W).
        protocols: by which to judge.
        threshold: on the probability, in (0, 1).

    Raises:
        ValueError: see `papercommons.metrics.localization.pixel_metrics`.
    """
    found: dict[str, float] = {}
    for protocol in protocols:
        values = pixel_metrics(probability, mask, protocol=protocol, threshold=threshold)
        for name, value in values.items():
            found["auc" if name == "auc" else f"{protocol}_{name}"] = value
    if mask.any():
        found["boundary_f1"] = boundary_f1(probability, mask, threshold=threshold)
    return found


def to_size(probability: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return a map resized, bilinear; as it is if it has that size.

    Args:
        probability: float in [0, 1], shape (h, w).
        shape: H and W.
    """
    if probability.shape == tuple(shape):
        return probability
    import torch
    from torch.nn import functional as F

    values = torch.from_numpy(np.ascontiguousarray(probability, dtype=np.float32))[None, None]
    wide = F.interpolate(values, tuple(shape), mode="bilinear", align_corners=False)
    resized: np.ndarray = wide[0, 0].clamp(0, 1).numpy()
    return resized


def metric_columns(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the names of the measures in rows, in their order."""
    return [name for name in dict.fromkeys(n for row in rows for n in row) if name not in ABOUT]


def undistorted(rows: Sequence[Row]) -> list[Row]:
    """Return the rows of photographs as they are."""
    return [row for row in rows if row["kind"] == AS_IT_IS]


def means(
    rows: Sequence[Row], *, by: str | None = "method", draws: int = 1000, seed: int = 0
) -> list[Summary]:
    """Return the mean of each measure over photographs as they are, with 95 % intervals.

    Args:
        rows: of `judge`.
        by: column that groups, or None.
        draws: resamples of sources for the intervals.
        seed: of the resampling.

    Raises:
        ValueError: see `papercommons.metrics.tables.summarize`.
    """
    clean = undistorted(rows)
    return summarize(clean, metric_columns(clean), by=by, draws=draws, seed=seed)


def detection(
    rows: Sequence[Row], *, threshold: float = 0.5, draws: int = 1000, seed: int = 0
) -> dict[str, Estimate]:
    """Return how well the scores tell forged photographs from authentic ones, as they are.

    Args:
        rows: of `judge`.
        threshold: a photograph is called forged above it.
        draws: resamples of sources for the intervals.
        seed: of the resampling.
    """
    return _detection(undistorted(rows), draws, seed, threshold)


def _detection(
    rows: Sequence[Row], draws: int, seed: int, threshold: float = 0.5
) -> dict[str, Estimate]:
    return image_metrics(
        [row["score"] for row in rows],
        [row["label"] for row in rows],
        threshold=threshold,
        sources=[row["source"] or (place,) for place, row in enumerate(rows)],
        draws=draws,
        seed=seed,
    )


class Point(NamedTuple):
    """A mean at one strength of a distortion.

    Attributes:
        strength: see `papercommons.data.distortions.Distortion`.
        value: the mean; NaN where it is not defined.
        low: end of its 95 % interval.
        high: the other end.
    """

    strength: float
    value: float
    low: float
    high: float


def curves(
    rows: Sequence[Row], metric: str, *, draws: int = 1000, seed: int = 0
) -> dict[str, list[Point]]:
    """Return how a measure depends on each kind of distortion, by rising strength.

    Args:
        rows: of `judge`, with distortions.
        metric: a measure, or ``image_auc``, the AUC of the scores.
        draws: resamples of sources for the intervals.
        seed: of the resampling.

    Returns:
        points by kind, in the rows' order; ``none`` has one, of strength NaN.

    Raises:
        ValueError: no row has the measure.
    """
    kinds: dict[str, dict[float, list[Row]]] = {}
    for row in rows:
        strength = math.nan if row["strength"] is None else row["strength"]
        kinds.setdefault(row["kind"], {}).setdefault(strength, []).append(row)
    return {
        kind: [
            Point(strength, *_mean(members, metric, draws, seed))
            for strength, members in sorted(groups.items())
        ]
        for kind, groups in kinds.items()
    }


def _mean(rows: Sequence[Row], metric: str, draws: int, seed: int) -> tuple[float, float, float]:
    if metric == "image_auc":
        return _detection(rows, draws, seed)["auc"]
    found = summarize(rows, [metric], draws=draws, seed=seed)
    if not found:
        raise ValueError(f"no row has {metric}; there are {', '.join(metric_columns(rows))}")
    return found[0].value, found[0].low, found[0].high


def read_rows(path: str | Path) -> list[Row]:
    """Return the rows of a table that was written with `papercommons.files.write_csv`.

    Args:
        path: CSV file with the columns of `judge`; an empty cell means "does not apply", nan means
            "not defined".

    Raises:
        DataError: no such file, larger than 1 GiB, no rows, a column missing, a name twice, or a
            cell that is no number.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file; expected a table of results (items.csv)")
    if path.stat().st_size > _MOST_BYTES:
        raise DataError(f"{path}: above 1 GiB; a table of results is smaller")
    try:
        with path.open(encoding="utf-8", newline="") as file:
            table = csv.DictReader(file)
            names = table.fieldnames or []
            if missing := [name for name in ABOUT if name not in names]:
                raise DataError(f"{path}: no column {', '.join(missing)}; has {', '.join(names)}")
            rows = [_cells(path, table.line_num, row) for row in table]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a CSV table in UTF-8 ({reason(error)})") from None
    if not rows:
        raise DataError(f"{path}: a table without rows")
    counts = Counter((row["name"], row["kind"], row["strength"]) for row in rows)
    (name, *_), most = counts.most_common(1)[0]
    if most > 1:
        raise DataError(f"{path}: {name} is there {most} times; each photograph must have one row")
    return rows


def _cells(path: Path, line: int, row: Mapping[str | None, Any]) -> Row:
    cells: Row = {}
    for name, text in row.items():
        if name is None or text is None:
            raise DataError(f"{path}: line {line}: not as many cells as there are columns")
        if name in _TEXT:
            cells[name] = text
            continue
        try:
            cells[name] = float(text) if text else None
        except ValueError:
            raise DataError(f"{path}: line {line}: {name} is {text!r}, not a number") from None
    if cells["label"] not in (0, 1):
        raise DataError(f"{path}: line {line}: label must be 0 or 1, got {cells['label']}")
    cells["label"] = int(cells["label"])
    return cells
