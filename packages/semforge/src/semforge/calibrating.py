"""From scores to probabilities at even prior odds, and the point where fake begins: from val."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from papercommons.errors import DataError
from papercommons.metrics.calibration import fit_calibration
from torch import Tensor

from semforge.inference import UNKNOWN


class RootCalibration(NamedTuple):
    """An affine map from the root's log odds to log-likelihood ratios, fitted on held-out faces.

    Attributes:
        slope: >= 0.
        intercept: of the log-likelihood ratio.
        fake: number of fake faces that it was fitted on.
        real: number of real ones.
    """

    slope: float
    intercept: float
    fake: int = 0
    real: int = 0

    def probability(self, log_odds: Tensor) -> Tensor:
        """Return p(fake) if as many faces are fake as real; any shape."""
        return (self.slope * log_odds.double() + self.intercept).sigmoid()

    @property
    def threshold(self) -> float:
        """The log odds at which that is 1/2; 0 where the scores showed nothing."""
        return -self.intercept / self.slope if self.slope > 0 else 0.0


def calibrate(log_odds: Tensor, labels: Tensor) -> RootCalibration | None:
    """Return the calibration, or None if the known faces are all fake or all real.

    Args:
        log_odds: of the root, float, finite, shape (N,).
        labels: of the root, 0, 1 or 2 = unknown, shape (N,).
    """
    known = labels != UNKNOWN
    fake = (labels[known] == 1).numpy()
    if fake.all() or not fake.any():
        return None
    found = fit_calibration(log_odds[known].double().numpy(), fake)
    return RootCalibration(found.slope, found.intercept, int(fake.sum()), int((~fake).sum()))


def remembered(config: Mapping[str, Any]) -> RootCalibration | None:
    """Return the calibration that a saved network remembers, if any.

    Args:
        config: of the saved network.

    Raises:
        DataError: what it remembers is no calibration.
    """
    kept = config.get("calibration")
    if kept is None:
        return None
    try:
        found = RootCalibration(**kept)
        numbers = (float(found.slope), float(found.intercept))
        valid = all(map(math.isfinite, numbers)) and found.slope >= 0
    except (TypeError, ValueError):
        valid = False
    if not valid:
        raise DataError(f"config.json: calibration is not as semforge writes it: {str(kept)[:80]}")
    return found


def threshold_of(calibration: RootCalibration | None, probability: float | None) -> float:
    """Return from which log odds of the root on a face is called fake.

    Args:
        calibration: of the network; without one it is p = 1/2.
        probability: a threshold on p(fake), in (0, 1), that the user gave.
    """
    if probability is not None:
        return float(torch.logit(torch.tensor(probability, dtype=torch.double)))
    return 0.0 if calibration is None else calibration.threshold
