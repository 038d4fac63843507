"""What a network says about faces of known truth: measures of faces, videos, nodes and methods."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from papercommons.metrics.bootstrap import Estimate
from papercommons.metrics.calibration import ece
from papercommons.metrics.score_calibration import ScoreCalibration
from torch import Tensor

from semforge.calibration import threshold_of
from semforge.evaluation import detection_intervals, detection_measures
from semforge.inference import UNKNOWN
from semforge.inspector import Scores

Row = dict[str, Any]
Resample = Literal["video", "identity", "face"]
NAMES = {
    "auc": "ROC AUC",
    "ap": "average precision",
    "eer": "equal error rate",
    "tpr_at_1_fpr": "fakes found at 1 % false alarms",
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
}
REAL = "real"
FEW = 20  # sources below which an interval is not to be trusted


@dataclass
class Judgement:
    """Scores of faces of known truth, and what follows from them.

    Attributes:
        scores: of all faces.
        nodes: names of the nodes that are scored.
        threshold: on the log odds of the root.
        fixed: whether the user gave it, or the network has none.
        faces: measure -> value with interval, over faces.
        videos: likewise, over videos; empty where no video has several faces.
        calibration: errors of the probabilities.
        sources: how many different ones the intervals resample.
        curves: distortion -> measures of faces.
    """

    scores: Scores
    nodes: Sequence[str]
    threshold: float
    fixed: bool
    faces: dict[str, Estimate]
    videos: dict[str, Estimate]
    calibration: dict[str, float]
    sources: int
    curves: dict[str, dict[str, float]] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        scores: Scores,
        nodes: Sequence[str],
        *,
        calibration: ScoreCalibration | None = None,
        threshold: float | None = None,
        sources: Sequence[str] | None = None,
        draws: int = 1000,
        seed: int = 0,
    ) -> Judgement:
        """Return the judgement of scores.

        Args:
            scores: of all faces; those with an unknown root count for the other nodes alone.
            nodes: names of the nodes that are scored.
            calibration: of the network.
            threshold: on p(fake), in (0, 1); None is the network's own, or 1/2.
            sources: what intervals resample, one per face; None is the videos.
            draws: resamples, >= 1.
            seed: of the resampling.

        Raises:
            ValueError: scores are not finite, or no root is known.
        """
        known = (scores.labels[:, 0] != UNKNOWN).nonzero()[:, 0]
        if not len(known):
            raise ValueError("no face is known to be fake or real; label 0 or 1 in the first place")
        fake = scores.labels[known, 0] == 1
        odds, p = scores.log_odds[known, 0].double(), scores.probabilities[known, 0]
        groups = video_names(scores) if sources is None else list(sources)
        at = threshold_of(calibration, threshold)
        common: dict[str, Any] = {"draws": draws, "seed": seed}
        errors = {"ece": ece(p, fake)}
        if calibration is not None:
            even = calibration.probability(odds)
            errors["ece_calibrated"] = ece(even, fake, balanced=True)
        return cls(
            scores,
            tuple(nodes),
            at,
            threshold is not None or calibration is None or calibration.slope == 0,
            detection_intervals(odds, fake, [groups[i] for i in known], threshold=at, **common),
            _video_measures(scores, known, groups, at, common),
            errors,
            len({groups[i] for i in known}),
        )

    @property
    def both(self) -> bool:
        """Whether there are known fakes and known real faces."""
        root = self.scores.labels[:, 0]
        return bool((root == 1).any() and (root == 0).any())

    def table(self) -> list[Row]:
        """Return one row per measure, of faces and, if there are any, of videos."""
        rows = []
        for name, words in NAMES.items():
            row: Row = {"measure": words}
            for what, found in (("faces", self.faces), ("videos", self.videos)):
                if found:
                    estimate = found[name]
                    row |= {what: estimate.value, f"{what}, 95 %": _span(estimate)}
            rows.append(row)
        return [
            *rows,
            *(
                {"measure": _ERRORS[name], "faces": value}
                for name, value in self.calibration.items()
            ),
        ]

    def node_table(self) -> list[Row]:
        """Return one row per node: how many are known, AUC, AP, and how often it is decoded."""
        rows = []
        for i, node in enumerate(self.nodes):
            label = self.scores.labels[:, i]
            known = label != UNKNOWN
            found: Row = {"node": node, "altered": int((label == 1).sum())}
            found["not_altered"] = int((label == 0).sum())
            found |= dict.fromkeys(("auc", "ap"))
            if known.any():
                of_node = detection_measures(self.scores.log_odds[known, i], label[known] == 1)
                found["auc"] = float(of_node["auc"])
                found["ap"] = float(of_node["ap"])
            rows.append(found)
        return rows

    def method_table(self) -> list[Row]:
        """Return one row per method: AUC against all real faces, and how many are called fake."""
        root, odds = self.scores.labels[:, 0], self.scores.log_odds[:, 0].double()
        methods = self.scores.methods
        rows = []
        for method in sorted(set(methods), key=lambda name: (name != REAL, name)):
            own = torch.tensor([name == method for name in methods]) & (root != UNKNOWN)
            if not own.any():
                continue
            row: Row = {"method": method, "faces": int(own.sum())}
            fakes = own & (root == 1)
            against = fakes | (root == 0)
            if fakes.any() and (root == 0).any():
                found = detection_measures(odds[against], root[against] == 1)
                row["auc"] = float(found["auc"])
                row["tpr_at_1_fpr"] = float(found["tpr_at_1_fpr"])
            row["called_fake"] = float((odds[own] >= self.threshold).double().mean())
            row["mean_p_fake"] = float(self.scores.probabilities[own, 0].mean())
            rows.append(row)
        return rows

    def states(self) -> dict[str, float | int | None]:
        """Return how often the decoded labels are right.

        ``exact`` is over the faces whose labels are all known, ``agree`` over all: no known label
        is contradicted.
        """
        labels = self.scores.labels[:, : len(self.nodes)]
        known = labels != UNKNOWN
        agree = ((labels == self.scores.decoded) | ~known).all(1)
        whole = known.all(1)
        return {
            "exact": float(agree[whole].double().mean()) if whole.any() else None,
            "wholly_known": int(whole.sum()),
            "agree": float(agree.double().mean()),
            "faces": len(labels),
        }

    def numbers(self) -> dict[str, Any]:
        """Return every number by name."""
        root = self.scores.labels[:, 0]
        found: dict[str, Any] = {
            "faces": {name: each._asdict() for name, each in self.faces.items()},
            "videos": {name: each._asdict() for name, each in self.videos.items()},
            "nodes": {row["node"]: row for row in self.node_table()},
            "methods": {row["method"]: row for row in self.method_table()},
            "map_state": self.states(),
            "robustness": self.curves,
            "threshold_log_odds": self.threshold,
            "counts": {
                "faces": len(root),
                "fake": int((root == 1).sum()),
                "real": int((root == 0).sum()),
                "videos": len({name for name in self.scores.videos if name}),
            },
        }
        return found | self.calibration

    def notes(self) -> list[str]:
        """Return what must be known beside the table, a line each."""
        root = self.scores.labels[:, 0]
        count, fakes, unknown = len(root), int((root == 1).sum()), int((root == UNKNOWN).sum())
        lines = [f"{count:,} faces: {fakes:,} fake, {count - fakes - unknown:,} real"]
        if unknown:
            lines[0] += f", {unknown:,} unknown, which count for the other nodes alone"
        if not self.both:
            lines.append("ONLY ONE CLASS: AUC, EER and all that needs both are not defined (–)")
        elif not self.faces["auc"].low > 0.5:
            lines.append(NO_BETTER)
        p = float(torch.tensor(self.threshold, dtype=torch.double).sigmoid())
        chosen = "given, or fixed" if self.fixed else "chosen on the val split in training"
        lines.append(f"called fake from p = {p:.4g} on ({chosen})")
        if self.sources < FEW:
            lines.append(f"ONLY {self.sources} INDEPENDENT SOURCES: the intervals say little")
        states = self.states()
        if len(self.nodes) > 1:
            exact = "–" if states["exact"] is None else f"{states['exact']:.3f}"
            lines.append(
                f"decoded labels: exact on {exact} of the {states['wholly_known']:,} faces with "
                f"all labels known, against no known label on {states['agree']:.3f} of all"
            )
        return lines


NO_BETTER = "NOT SHOWN TO BE BETTER THAN CHANCE: the AUC's interval does not clear 0.5"
_ERRORS = {
    "ece": "calibration error of p(fake)",
    "ece_calibrated": "calibration error, calibrated, classes weighed alike",
}


def video_names(scores: Scores) -> list[str]:
    """Return which video each face is from; a picture of its own is one."""
    return [video or name for video, name in zip(scores.videos, scores.names, strict=True)]


def mean_by_group(values: Tensor, groups: Sequence[str]) -> tuple[list[str], Tensor]:
    """Return the groups in their first order, and the mean of each, float64.

    Args:
        values: shape (N,).
        groups: N names.
    """
    number = {name: place for place, name in enumerate(dict.fromkeys(groups))}
    place = torch.tensor([number[name] for name in groups])
    sums = torch.zeros(len(number), dtype=torch.double).index_add(0, place, values.double())
    return list(number), sums / place.bincount(minlength=len(number))


def _video_measures(
    scores: Scores, known: Tensor, groups: Sequence[str], at: float, common: dict[str, Any]
) -> dict[str, Estimate]:
    """Return the measures of the videos' mean p(fake); none where no video has several faces."""
    videos = video_names(scores)
    of_known = [videos[i] for i in known]
    names, p = mean_by_group(scores.probabilities[known, 0], of_known)
    if len(names) == len(of_known):
        return {}
    _, fake = mean_by_group(scores.labels[known, 0] == 1, of_known)
    group = dict(zip(of_known, (groups[i] for i in known), strict=True))
    threshold = float(torch.tensor(at, dtype=torch.double).sigmoid())
    sources = [group[name] for name in names]
    return detection_intervals(p, fake > 0.5, sources, threshold=threshold, **common)


def _span(estimate: Estimate) -> str:
    if estimate.low != estimate.low:
        return "–"
    return f"{estimate.low:.3f} to {estimate.high:.3f}"
