"""From scores to probabilities at even prior odds, and the point where fake begins: from val.

Thresholds do not transfer from one set of clips to another; a calibration is fitted on clips of
the kind that is to be judged, and on none that are judged.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from papercommons.errors import DataError, reason
from papercommons.files import write_json
from papercommons.metrics.calibration import fit_calibration

_LARGEST = 1 << 20  # bytes of a calibration file


class ScoreCalibration(NamedTuple):
    """An affine map from scores of clips to log-likelihood ratios, fitted on held-out clips.

    Attributes:
        slope: >= 0.
        intercept: of the log-likelihood ratio.
        fake: number of fake clips that it was fitted on.
        real: number of real ones.
    """

    slope: float
    intercept: float
    fake: int = 0
    real: int = 0

    def probability(self, scores: Any) -> np.ndarray:
        """Return p(fake) if as many clips are fake as real, float64; any shape."""
        llr = self.slope * np.asarray(scores, np.float64) + self.intercept
        return np.exp(-np.logaddexp(0, -llr))

    @property
    def threshold(self) -> float:
        """The score at which that is 1/2; 0 where the scores showed nothing."""
        return -self.intercept / self.slope if self.slope > 0 else 0.0


def calibrate(scores: Any, labels: Any) -> ScoreCalibration | None:
    """Return the calibration, or None if the clips are all fake or all real.

    Args:
        scores: higher = more fake, finite, shape (N,).
        labels: 0 real, 1 fake, shape (N,).

    Raises:
        ValueError: shapes do not match, or scores are not finite.
    """
    fake = np.asarray(labels).astype(bool)
    if fake.all() or not fake.any():
        return None
    found = fit_calibration(np.asarray(scores, np.float64), fake)
    return ScoreCalibration(found.slope, found.intercept, int(fake.sum()), int((~fake).sum()))


def remembered(config: Mapping[str, Any], source: str = "config.json") -> ScoreCalibration | None:
    """Return the calibration that a saved network remembers, if any.

    Args:
        config: of the saved network; its entry ``calibration`` holds the attributes by name.
        source: for the message.

    Raises:
        DataError: what it remembers is no calibration.
    """
    kept = config.get("calibration")
    if kept is None:
        return None
    try:
        found = ScoreCalibration(**kept)
        numbers = (float(found.slope), float(found.intercept))
        valid = all(map(math.isfinite, numbers)) and found.slope >= 0
    except (TypeError, ValueError):
        valid = False
    if not valid:
        raise DataError(f"{source}: calibration is not as cmdfd writes it: {str(kept)[:80]}")
    return found


def save_calibration(path: Path, found: ScoreCalibration, *, weights: str, clips: str) -> None:
    """Write a calibration as JSON.

    Args:
        path: the file.
        found: the calibration.
        weights: hash of the network whose scores it is about.
        clips: what it was fitted on, in words.
    """
    about = {"package": "cmdfd", "weights": weights, "clips": clips}
    write_json(path, {**about, "calibration": found._asdict()})


def read_calibration(path: str | Path, *, weights: str) -> ScoreCalibration:
    """Return the calibration that `save_calibration` wrote.

    Args:
        path: the file, or the folder of cmdfd-eval that holds it.
        weights: hash of the network that is used now.

    Raises:
        DataError: missing, not readable, or of another network.
    """
    file = Path(path) / "calibration.json" if Path(path).is_dir() else Path(path)
    if not file.is_file():
        raise DataError(f"{file}: no such file; cmdfd-eval --calibrate-on LIST --out writes one")
    try:
        if file.stat().st_size > _LARGEST:
            raise ValueError("too large")
        kept = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file}: not readable as a calibration ({reason(error)})") from None
    found = remembered(kept, str(file)) if isinstance(kept, dict) else None
    if found is None:
        raise DataError(f"{file}: holds no calibration; cmdfd-eval --calibrate-on writes one")
    if kept.get("weights") != weights:
        raise DataError(
            f"{file}: was fitted to another network (hash {kept.get('weights')}, not {weights}); "
            "run cmdfd-eval --calibrate-on with this one"
        )
    return found
