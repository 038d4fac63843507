"""From a detector's scores to probabilities at even prior odds, and the point where fake begins.

Thresholds do not transfer from one set to another; a calibration is fitted on samples of the kind
that is to be judged, and on none that are judged.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from papercommons.errors import DataError
from papercommons.metrics.calibration import fit_calibration


class ScoreCalibration(NamedTuple):
    """An affine map from scores to log-likelihood ratios, fitted on held-out samples.

    Attributes:
        slope: >= 0.
        intercept: of the log-likelihood ratio.
        fake: number of fakes that it was fitted on.
        real: number of real samples.
    """

    slope: float
    intercept: float
    fake: int = 0
    real: int = 0

    def probability(self, scores: ArrayLike) -> np.ndarray:
        """Return p(fake) if as many samples are fake as real, float64; any shape."""
        llr = self.slope * np.asarray(scores, np.float64) + self.intercept
        return np.exp(-np.logaddexp(0, -llr))

    @property
    def threshold(self) -> float:
        """The score at which that is 1/2; 0 where the scores showed nothing."""
        return -self.intercept / self.slope if self.slope > 0 else 0.0


def calibrate_scores(scores: ArrayLike, fake: ArrayLike) -> ScoreCalibration | None:
    """Return the calibration, or None if the samples are all fake or all real.

    Args:
        scores: higher = more fake, finite, shape (N,).
        fake: 0 or False for real, shape (N,).

    Raises:
        ValueError: shapes do not match, or scores are not finite.
    """
    marked = np.asarray(fake).astype(bool)
    if marked.all() or not marked.any():
        return None
    found = fit_calibration(np.asarray(scores, np.float64), marked)
    return ScoreCalibration(found.slope, found.intercept, int(marked.sum()), int((~marked).sum()))


def remembered_calibration(
    config: Mapping[str, Any], package: str, *, source: str = "config.json"
) -> ScoreCalibration | None:
    """Return the calibration that a saved network remembers, if any.

    Args:
        config: of the saved network; its entry ``calibration`` holds the attributes by name.
        package: that wrote it.
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
        raise DataError(f"{source}: calibration is not as {package} writes it: {str(kept)[:80]}")
    return found
