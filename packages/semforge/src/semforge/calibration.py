"""The root's scores calibrated on known faces, and the point from which a face is called fake."""

from __future__ import annotations

import torch
from papercommons.metrics.score_calibration import ScoreCalibration, calibrate_scores
from torch import Tensor

from semforge.inference import UNKNOWN


def calibrate(log_odds: Tensor, labels: Tensor) -> ScoreCalibration | None:
    """Return the calibration, or None if the known faces are all fake or all real.

    Args:
        log_odds: of the root, float, finite, shape (N,).
        labels: of the root, 0, 1 or 2 = unknown, shape (N,).
    """
    known = labels != UNKNOWN
    return calibrate_scores(log_odds[known].double().numpy(), (labels[known] == 1).numpy())


def threshold_of(calibration: ScoreCalibration | None, probability: float | None) -> float:
    """Return from which log odds of the root on a face is called fake.

    Args:
        calibration: of the network; without one it is p = 1/2.
        probability: a threshold on p(fake), in (0, 1), that the user gave.
    """
    if probability is not None:
        return float(torch.logit(torch.tensor(probability, dtype=torch.double)))
    return 0.0 if calibration is None else calibration.threshold
