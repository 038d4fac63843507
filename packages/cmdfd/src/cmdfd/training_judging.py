"""How a network does that was just trained: scores of its val and test splits, method by method."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from papercommons.files import write_csv
from papercommons.metrics.score_calibration import calibrate_scores
from papercommons.report import Section

from cmdfd.entries import FAKE, REAL
from cmdfd.measures import clip_measures
from cmdfd.model import CMDFDNet
from cmdfd.pictures import scores_png
from cmdfd.prepared import PreparedClips
from cmdfd.scoring import Detector
from cmdfd.scoring_options import WindowOptions
from cmdfd.training_splits import Splits

_SHOWN = ("auc", "ap", "balanced_accuracy", "eer", "real_recall", "fake_recall")


@dataclass
class Judged:
    """Scores and what follows from them.

    Attributes:
        scores: split -> of its clips.
        clips: split -> its clips.
        calibration: of the scores, fitted on val, plain types; None without both classes in val.
        rows: split -> table by method.
        numbers: split -> measures.
    """

    scores: dict[str, np.ndarray] = field(default_factory=dict)
    clips: dict[str, PreparedClips] = field(default_factory=dict)
    calibration: dict[str, Any] | None = None
    rows: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    numbers: dict[str, dict[str, float]] = field(default_factory=dict)

    def save(self, path: Path) -> str:
        """Write the score of each clip, and return the path."""
        rows = [
            {
                "name": entry.name,
                "split": split,
                "method": entry.method,
                "label": FAKE if entry.entire else REAL,
                "score": f"{score:.5f}",
            }
            for split, clips in self.clips.items()
            for entry, score in zip(clips.entries, self.scores[split], strict=True)
        ]
        write_csv(path, rows)
        return str(path)

    def sections(self, split: str) -> list[Section]:
        """Return the section of the report about one split; nothing if it was not scored."""
        if split not in self.scores:
            return []
        methods = np.array([entry.method for entry in self.clips[split].entries])
        labels = np.array(self.clips[split].labels)
        groups = {REAL: self.scores[split][labels == 0]}
        for method in sorted(set(methods[labels == 1])):
            groups[method] = self.scores[split][(labels == 1) & (methods == method)]
        return [
            Section(
                f"Scores of the {split} split",
                "Mean margin of the logits of fake and real. cmdfd-eval says more, with intervals.",
                figure=scores_png({k: v for k, v in groups.items() if len(v)}, {"0": 0.0}),
                caption="Scores of real clips and of each method's fakes",
            )
        ]


def judge_splits(
    net: CMDFDNet, device: torch.device, splits: Splits, *, legacy: bool = False
) -> Judged:
    """Score val and test, and calibrate on val.

    Args:
        net: trained; is moved to the device.
        device: where it computes.
        splits: of the run.
        legacy: the network was trained as the official code does it.
    """
    config = {"crop": dict(splits.crop), "legacy": legacy}
    detector = Detector(net.to(device).float().eval(), device, "32-true", config, "")
    judged = Judged()
    for split in ("val", "test"):
        clips = splits.clips.get(split)
        if clips is None:
            continue
        pieces = ((k, clips.read(k, 0, n)) for k, n in enumerate(clips.lengths))
        found = {k: scores.score for k, scores in detector.score(pieces, WindowOptions())}
        scores = np.array([found[k] for k in range(len(clips))])
        judged.scores[split], judged.clips[split] = scores, clips
        judged.numbers[split] = clip_measures(scores, clips.labels)
        judged.rows[split] = rows_of(clips, scores)
    if "val" in judged.scores:
        made = calibrate_scores(judged.scores["val"], judged.clips["val"].labels)
        judged.calibration = None if made is None else made._asdict()
    return judged


def rows_of(clips: PreparedClips, scores: np.ndarray) -> list[dict[str, Any]]:
    """Return measures of all clips, and of each method's fakes against all real clips.

    Args:
        clips: N of them.
        scores: shape (N,).
    """
    labels = np.array(clips.labels)
    methods = np.array([entry.method for entry in clips.entries])
    forged = sorted(set(methods[labels == 1]))
    rows = []
    for name in ("all", *(forged if len(forged) > 1 else ())):
        kept = (labels == 0) | (name == "all") | (methods == name)
        found = clip_measures(scores[kept], labels[kept])
        fakes = int((labels[kept] == 1).sum())
        row = {"method": name, "fake": fakes, "real": int(kept.sum()) - fakes}
        rows.append(row | {key.replace("_", " "): found[key] for key in _SHOWN})
    return rows
