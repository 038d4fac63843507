"""What scores of a list of known truth amount to: measures, per method and beside the baselines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from papercommons.metrics.bootstrap import Estimate
from papercommons.metrics.calibration import cllr, ece
from papercommons.metrics.roc import unchecked_auc
from papercommons.metrics.score_calibration import ScoreCalibration

from cmdfd.audit import Audit, Separation, audit_entries
from cmdfd.entries import ClipEntry
from cmdfd.evaluating_lists import ScoredList
from cmdfd.scoring_measures import measures_with_intervals
from cmdfd.scoring_options import Resample, WindowOptions
from cmdfd.segments import localisation_measures

Row = dict[str, Any]
Measures = dict[str, Estimate]
ALL = "all"
FEW = 20  # independent sources below which an interval is not to be trusted
WORDS = {
    "auc": "ROC AUC",
    "ap": "average precision",
    "eer": "equal error rate",
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "hter": "half total error rate",
    "f1": "F1 of fakes",
    "real_recall": "real clips called real",
    "fake_recall": "fakes called fake",
}


@dataclass
class Judgement:
    """A scored list and what follows from it.

    Attributes:
        scored: the list.
        threshold: that was chosen; clips above it are called fake.
        measures: method (``all`` first) -> measures at that threshold.
        at_zero: likewise of all fakes, at threshold 0.
        audit: what the lengths of sound and picture alone tell; None where they are not known.
        localisation: AP and AR of forged parts; empty where no part is known.
        calibration: errors of the probabilities; empty without a calibration.
        sources: how many different ones intervals draw.
        found: forged parts of each clip, see `cmdfd.segments.find_segments`.
    """

    scored: ScoredList
    threshold: float
    measures: dict[str, Measures]
    at_zero: Measures
    audit: Audit | None
    localisation: dict[str, float]
    calibration: dict[str, float]
    sources: int
    found: list[np.ndarray]

    @classmethod
    def of(
        cls,
        scored: ScoredList,
        originals: Sequence[ClipEntry] | None,
        *,
        threshold: float,
        calibration: ScoreCalibration | None,
        windows: WindowOptions,
        resample: Resample,
        draws: int,
        seed: int,
    ) -> Judgement:
        """Return the judgement of a scored list.

        Args:
            scored: the list.
            originals: its clips with the lengths of their files.
            threshold: that was chosen.
            calibration: of the scores.
            windows: how forged parts are found.
            resample: what intervals draw.
            draws: resamples.
            seed: of the resampling.
        """
        scores, fake, sources = scored.scores, scored.fake, scored.sources(resample)

        def measured(which: np.ndarray, at: float) -> Measures:
            chosen = [sources[k] for k in np.flatnonzero(which)]
            how: dict[str, Any] = {"threshold": at, "draws": draws, "seed": seed}
            return measures_with_intervals(scores[which], fake[which], chosen, **how)

        everything = np.ones(len(fake), bool)
        methods = scored.methods if len(scored.methods) > 1 else []
        of_methods = {name: measured(scored.of_method(name), threshold) for name in methods}
        found = [windows.find_parts(curve.margin, threshold) for curve in scored.curves]
        audit = None
        if originals and any(entry.offset is not None for entry in originals):
            audit = audit_entries(originals, draws=draws, seed=seed)
        return cls(
            scored,
            threshold,
            {ALL: measured(everything, threshold), **of_methods},
            measured(everything, 0.0),
            audit,
            localise(scored.entries, found),
            calibration_errors(scores, fake, calibration),
            len(set(sources)),
            found,
        )

    @property
    def both(self) -> bool:
        """Whether there are fake and real clips."""
        return bool(self.scored.fake.any() and not self.scored.fake.all())

    def separation(self, method: str) -> Separation | None:
        """Return what the lengths alone tell of a method's fakes, None where it is not known."""
        if self.audit is None:
            return None
        return next((s for s in self.audit.separations if s.method == method), None)

    def rows(self) -> list[Row]:
        """Return one row per method, with what the lengths of the files alone tell beside."""
        rows = []
        for method, found in self.measures.items():
            fake = self.scored.fake[self._which(method)]
            lengths = self.separation(method)
            row: Row = {"list": self.scored.name, "fakes": method}
            row["fake, real"] = f"{fake.sum():,}, {(~fake).sum():,}"
            row |= {"AUC": found["auc"].value, "95 %": span(found["auc"])}
            row["lengths alone"] = None if lengths is None else lengths.auc
            for name, word in (("ap", "AP"), ("eer", "EER"), ("accuracy", "ACC")):
                row[word] = found[name].value
            rows.append(row | {"bACC": found["balanced_accuracy"].value, "F1": found["f1"].value})
        return rows

    def baseline_rows(self) -> list[Row]:
        """Return one row per method: AUC of the network and of every baseline."""
        rows = []
        for method, found in self.measures.items():
            which, lengths = self._which(method), self.separation(method)
            row: Row = {"fakes": method, "network": found["auc"].value}
            row["lengths"] = None if lengths is None else lengths.auc
            for name, scores in self.scored.baselines.items():
                row[name] = unchecked_auc(scores[which], self.scored.fake[which])
            rows.append(row)
        return rows

    def _which(self, method: str) -> np.ndarray:
        """Return which clips are real or fakes of a method, or all, bool, shape (N,)."""
        if method == ALL:
            return np.ones(len(self.scored.entries), bool)
        return self.scored.of_method(method)

    def measure_rows(self) -> list[Row]:
        """Return one row per measure of all fakes, at threshold 0 and at the chosen one."""
        chosen, rows = self.measures[ALL], []
        for name, words in WORDS.items():
            row: Row = {"measure": words, "at 0": self.at_zero[name].value}
            row["at 0, 95 %"] = span(self.at_zero[name])
            if self.threshold != 0:
                row[f"at {self.threshold:.4g}"] = chosen[name].value
                row[f"at {self.threshold:.4g}, 95 %"] = span(chosen[name])
            rows.append(row)
        return rows

    def method_rows(self) -> list[Row]:
        """Return one row per method with the measures that are not in `rows`."""
        names = ("hter", "real_recall", "fake_recall")
        return [
            {"fakes": method, **{WORDS[name]: found[name].value for name in names}}
            for method, found in self.measures.items()
        ]

    def worst(self, count: int = 6) -> dict[str, list[int]]:
        """Return the places of the clips that are most wrongly judged, by kind of error."""
        scores, fake = self.scored.scores, self.scored.fake
        kinds = {
            "Real clips called fake: the worst": (~fake & (scores > self.threshold), -scores),
            "Fakes called real: the worst": (fake & (scores <= self.threshold), scores),
        }
        return {
            heading: np.argsort(np.where(wrong, order, np.inf), kind="stable")[
                : min(count, int(wrong.sum()))
            ].tolist()
            for heading, (wrong, order) in kinds.items()
        }

    def numbers(self) -> dict[str, Any]:
        """Return every number by name."""
        fake = self.scored.fake
        return {
            "clips": len(fake),
            "fake": int(fake.sum()),
            "real": int((~fake).sum()),
            "threshold": self.threshold,
            "measures": {name: _plain(found) for name, found in self.measures.items()},
            "at_threshold_0": _plain(self.at_zero),
            "lengths_alone": {}
            if self.audit is None
            else {one.method: one._asdict() for one in self.audit.separations},
            "baselines": {
                name: unchecked_auc(scores, fake) for name, scores in self.scored.baselines.items()
            },
            "localisation": self.localisation,
            "calibration": self.calibration,
            "sources": self.sources,
        }


def localise(entries: Sequence[ClipEntry], found: Sequence[np.ndarray]) -> dict[str, float]:
    """Return AP and AR over the fakes whose forged parts are known, and all real clips.

    Fakes without known parts (forged as a whole, or not said) do not count.

    Args:
        entries: the clips.
        found: parts of each, see `cmdfd.segments.find_segments`.

    Returns:
        see `localisation_measures`; empty where no part is known.
    """
    known = [k for k, entry in enumerate(entries) if entry.segments or not entry.entire]
    if not any(entry.segments for entry in entries):
        return {}
    return localisation_measures([found[k] for k in known], [entries[k].segments for k in known])


def calibration_errors(
    scores: np.ndarray, fake: np.ndarray, calibration: ScoreCalibration | None
) -> dict[str, float]:
    """Return errors of probabilities at even prior odds; empty without a calibration.

    Args:
        scores: of clips, shape (N,).
        fake: bool, shape (N,).
        calibration: fitted on other clips.
    """
    if calibration is None:
        return {}
    llr, p = calibration.slope * scores + calibration.intercept, calibration.probability(scores)
    return {"ece": ece(p, fake, balanced=True), "cllr": cllr(llr, fake)}


def span(estimate: Estimate) -> str:
    """Return an interval in words, a dash for none."""
    if estimate.low != estimate.low:
        return "–"
    return f"{estimate.low:.3f} to {estimate.high:.3f}"


def _plain(found: Measures) -> dict[str, dict[str, float]]:
    return {name: estimate._asdict() for name, estimate in found.items()}
