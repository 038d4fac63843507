"""What the curves of a clip amount to: fake or real, and which parts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from cmdfd.features import FPS
from cmdfd.predicting_files import Source
from cmdfd.scoring import Detector
from cmdfd.scoring_options import FaceOptions, WindowOptions
from cmdfd.windows import FrameScores, per_second

Row = dict[str, Any]
MOST_PARTS = 6  # named in a table


@dataclass(frozen=True)
class VerdictSettings:
    """How clips are looked at.

    Attributes:
        threshold: a clip is called fake above this score.
        faces: how faces are found.
        windows: of long clips.
    """

    threshold: float
    faces: FaceOptions
    windows: WindowOptions


@dataclass(frozen=True)
class Verdict:
    """What is said of one clip.

    Attributes:
        row: of predictions.csv.
        found: curves of its frames.
        parts: begin, end and score of forged parts, seconds of the file, shape (K, 3).
        begin: seconds of the file where the first frame is.
        notes: what the user should know.
    """

    row: Row
    found: FrameScores
    parts: np.ndarray
    begin: float
    notes: tuple[str, ...]


def judge_clip(
    source: Source,
    name: str,
    found: FrameScores,
    facts: dict[str, Any],
    detector: Detector,
    look: VerdictSettings,
) -> Verdict:
    """Return what the curves of a clip amount to.

    Args:
        source: the clip.
        name: plain and unique.
        found: its curves.
        facts: ``begin``, ``notes`` and, if known, ``faces``.
        detector: knows its calibration.
        look: threshold and how parts are found.
    """
    begin = float(facts["begin"])
    parts = look.windows.find_parts(found.margin, look.threshold)
    parts[:, :2] += begin
    score = found.score
    by_second = per_second(found.margin)
    row: Row = {"file": source.name, "path": str(source.path), "name": name}
    row |= {"prediction": "fake" if score > look.threshold else "real", "score": round(score, 5)}
    if detector.calibration is not None:
        row["p_fake"] = round(float(detector.calibration.probability(score)), 6)
    row["correlation"] = round(float(found.correlation.mean(dtype=np.float64)), 5)
    row["seconds"] = round(len(found.margin) / FPS, 2)
    row["highest_second"] = round(begin + float(by_second.argmax()), 2)
    row["highest_score"] = round(float(by_second.max()), 5)
    row["parts"] = ";".join(f"{b:.2f}-{e:.2f}" for b, e, _ in parts)
    row["share_in_parts"] = round(float((parts[:, 1] - parts[:, 0]).sum()) / row["seconds"], 4)
    if facts.get("faces") is not None:
        row["faces"] = facts["faces"]
    return Verdict(row, found, parts, begin, tuple(facts["notes"]))


def second_rows(seen: Verdict) -> list[Row]:
    """Return one row per second of a clip: its score, correlation, and how much is in a part."""
    count = len(seen.found.margin)
    times = seen.begin + (np.arange(count) + 0.5) / FPS
    inside = np.zeros(count)
    for begin, end, _ in seen.parts:
        inside[(times >= begin) & (times < end)] = 1
    columns = [per_second(v) for v in (seen.found.margin, seen.found.correlation, inside)]
    last = seen.begin + count / FPS
    return [
        {
            "file": seen.row["file"],
            "begin": round(seen.begin + k, 2),
            "end": round(min(seen.begin + k + 1, last), 2),
            "score": round(score, 5),
            "correlation": round(together, 5),
            "in_parts": round(share, 4),
        }
        for k, (score, together, share) in enumerate(
            zip(*(column.tolist() for column in columns), strict=True)
        )
    ]


def shown(row: Row) -> Row:
    """Return a row as the table shows it."""
    found: Row = {"file": row["file"], "prediction": row["prediction"], "score": row["score"]}
    if "p_fake" in row:
        found["p(fake)"] = row["p_fake"]
    found |= {"correlation": row["correlation"], "seconds": row["seconds"]}
    parts = row["parts"].split(";")
    more = f" and {len(parts) - MOST_PARTS} more" if len(parts) > MOST_PARTS else ""
    found["suspicious parts (s)"] = ", ".join(parts[:MOST_PARTS]) + more
    return found
