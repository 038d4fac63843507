"""Calibration on labelled pairs: from a measured quantity to a consistency and a decision."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from papercommons.errors import DataError, reason
from papercommons.files import write_json
from papercommons.metrics.calibration import fit_calibration
from papercommons.metrics.roc import binary_auc
from papercommons.metrics.verification import accuracy_threshold

SIGNS = {
    "gap": 1.0,
    "relative_gap": 1.0,
    "clip_region": -1.0,
    "clip_edit": -1.0,
    "clip_pair": -1.0,
}
"""Measured quantities; 1: high speaks for an inconsistency, -1: low does."""


@dataclass(frozen=True)
class Calibration:
    """How a pair's measured quantities become its consistency in [0, 100] and a decision.

    Attributes:
        feature: the quantity, of `SIGNS`.
        slope: of the log-odds of an inconsistency in the quantity times its sign, >= 0.
        intercept: of those log-odds.
        decision: a pair is inconsistent if its consistency is below this.
        map_threshold: of the final mask; None: as the settings say.
        pairs: labelled pairs that it was fitted to.
        auc: of the quantity on those.
        made_with: hash of the model and settings that the quantity depends on; empty: not known.
    """

    feature: str
    slope: float
    intercept: float
    decision: float
    map_threshold: float | None = None
    pairs: int = 0
    auc: float = float("nan")
    made_with: str = ""

    def __post_init__(self) -> None:
        if self.feature not in SIGNS:
            raise ValueError(f"feature must be one of {', '.join(SIGNS)}, got {self.feature!r}")
        if not all(np.isfinite([self.slope, self.intercept, self.decision])) or self.slope < 0:
            raise ValueError("slope, intercept and decision must be finite and slope >= 0")
        if self.map_threshold is not None and not 0 < self.map_threshold < 1:
            raise ValueError(f"map_threshold must be in (0, 1), got {self.map_threshold}")

    def consistency(self, features: Mapping[str, float]) -> float:
        """Return 100 times the probability that image and caption fit together.

        Args:
            features: measured quantities by name, see `SIGNS`.

        Raises:
            ValueError: the calibrated one is not among them.
        """
        if self.feature not in features:
            known = ", ".join(features)
            raise ValueError(
                f"the calibration is of {self.feature}, and only {known} was measured; give the "
                "model that it needs, or calibrate anew"
            )
        value = self.slope * SIGNS[self.feature] * features[self.feature] + self.intercept
        return float(100 / (1 + np.exp(np.clip(value, -700, 700))))

    def is_consistent(self, score: float) -> bool:
        """Return the decision for a consistency."""
        return score >= self.decision

    def save(self, path: str | Path) -> None:
        """Write it as JSON, whole or not at all."""
        write_json(path, self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """Return plain values; an unknown AUC is None."""
        return asdict(self) | {"auc": self.auc if np.isfinite(self.auc) else None}

    @classmethod
    def load(cls, path: str | Path) -> Calibration:
        """Return a saved one.

        Raises:
            DataError: the file is not there, or is no calibration.
        """
        try:
            values = json.loads(Path(path).read_text(encoding="utf-8"))
            if values.get("auc") is None:
                values["auc"] = float("nan")
            return cls(**values)
        except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
            raise DataError(f"{path}: not a readable calibration ({reason(error)})") from None


def fit(
    features: Mapping[str, ArrayLike],
    inconsistent: ArrayLike,
    *,
    feature: str | None = None,
    map_threshold: float | None = None,
) -> Calibration:
    """Return the calibration of labelled pairs.

    Logistic regression in which both kinds of pairs weigh the same; the decision is the threshold
    of greatest accuracy.

    Args:
        features: measured quantities by name, float, (P,) each.
        inconsistent: 1 or 0, (P,).
        feature: the one to take; that of highest AUC, the first of equals, if not given.
        map_threshold: see `Calibration`.

    Raises:
        ValueError: an unknown or missing feature, values that are not finite, or one kind only.
    """
    labels = np.asarray(inconsistent)
    signed = {
        name: SIGNS[name] * np.asarray(values, np.float64)
        for name, values in features.items()
        if name in SIGNS and feature in (None, name)
    }
    if not signed:
        raise ValueError(f"features must hold {feature or 'one of ' + ', '.join(SIGNS)}")
    aucs = {name: binary_auc(values, labels) for name, values in signed.items()}
    best = max(aucs, key=lambda name: aucs[name])
    fitted = fit_calibration(signed[best], labels)
    made = Calibration(best, fitted.slope, fitted.intercept, 50.0)
    scores = [made.consistency({best: value}) for value in np.asarray(features[best], np.float64)]
    cut = accuracy_threshold(scores, 1 - labels.astype(int)) if fitted.slope > 0 else 50.0
    return Calibration(
        best,
        fitted.slope,
        fitted.intercept,
        float(np.clip(cut, 0, 100)),
        map_threshold,
        len(labels),
        float(aucs[best]),
    )


def features_of(values: Mapping[str, Any]) -> dict[str, float]:
    """Return the measured quantities that can be calibrated, of a saved result's scores."""
    return {name: float(values[name]) for name in SIGNS if values.get(name) is not None}
