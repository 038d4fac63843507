"""From which score on a whole photograph is called forged: false alarms on authentic ones."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, get_args

import numpy as np
from papercommons.cli import track
from papercommons.data.distortions import Distortion, distort
from papercommons.errors import DataError, counted
from papercommons.metrics.detection import Score, false_alarm_threshold, image_score

from defi_net.evaluation import Predict
from defi_net.layouts import Sample

log = logging.getLogger("papercommons")

RECOMPRESSIONS = (Distortion("jpeg", 90), Distortion("jpeg", 75))
"""What authentic photographs are judged after, beside as they are: sites compress anew."""


class ImageThreshold(NamedTuple):
    """Above which score a photograph is called forged.

    Attributes:
        score: how the score comes from the map, see `papercommons.metrics.detection.image_score`.
        value: the threshold.
        rate: share of authentic photographs above it where it was chosen; None: it was not chosen.
        photographs: authentic ones that it was chosen on.
        sources: of these, different ones.
    """

    score: Score
    value: float
    rate: float | None = None
    photographs: int = 0
    sources: int = 0

    def __str__(self) -> str:
        if self.rate is None:
            return f"{self.value:g} on the {self.score} score, fixed"
        return (
            f"{self.value:.4g} on the {self.score} score: at most {self.rate:.0%} false alarms on "
            f"{self.photographs} authentic val photographs of {counted(self.sources, 'source')}, "
            "each as it is and recompressed"
        )


FIXED = ImageThreshold("max", 0.5)


def choose_threshold(
    predict: Predict,
    samples: Sequence[Sample],
    *,
    read: Callable[[Sample], tuple[np.ndarray, np.ndarray]],
    score: Score = "max",
    rate: float = 0.05,
) -> ImageThreshold | None:
    """Return the threshold for whole photographs, or None if no sample is authentic.

    Args:
        predict: see `defi_net.evaluation.judge`.
        samples: of the val split; forged ones are left aside.
        read: from a sample to the photograph and its mask.
        score: how a photograph's score comes from its map.
        rate: share of false alarms that is allowed, in [0, 1).

    Raises:
        DataError: a photograph cannot be read.
        ValueError: rate out of range.
    """
    scores: list[float] = []
    used: list[str] = []
    for sample in track(samples, "authentic photographs"):
        photo, mask = read(sample)
        if mask.any():
            continue
        used.append(sample.source)
        seen = [photo, *(distort(photo, each, name=sample.name) for each in RECOMPRESSIONS)]
        scores += [image_score(predict(one), score) for one in seen]
    if not scores:
        return None
    if len(used) * rate < 1:
        log.info(
            "%d authentic val photographs are few for a false-alarm rate of %g", len(used), rate
        )
    threshold = false_alarm_threshold(scores, rate)
    return ImageThreshold(score, threshold, rate, len(used), len(set(used)))


def remembered(config: Mapping[str, Any]) -> ImageThreshold:
    """Return the threshold that a saved network remembers, else the fixed one.

    Args:
        config: of the saved network.

    Raises:
        DataError: what it remembers is no threshold.
    """
    kept = config.get("image_threshold")
    if kept is None:
        return FIXED
    try:
        found = ImageThreshold(**kept)
        valid = found.score in get_args(Score) and 0 <= float(found.value) <= 1
    except (TypeError, ValueError):
        valid = False
    if not valid:
        raise DataError(f"config.json: image_threshold is not as defi-net writes it: {kept!r}")
    return found
