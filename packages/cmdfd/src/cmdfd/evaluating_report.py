"""The parts of the report of cmdfd-eval."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from papercommons.metrics.score_calibration import ScoreCalibration
from papercommons.report import Section, image_grid_png

from cmdfd.auditing import separation_row
from cmdfd.evaluation import Judgement
from cmdfd.pictures import (
    bars_png,
    clip_png,
    film_strip,
    reliability_png,
    roc_png,
    scores_png,
)
from cmdfd.prepared import PreparedClips

SHOWN_PARTS = 3


def evaluation_sections(
    judged: Sequence[Judgement],
    clips: Sequence[PreparedClips],
    calibration: ScoreCalibration | None,
) -> list[Section]:
    """Return the parts of a report on lists of known truth.

    Args:
        judged: of each list.
        clips: of each list.
        calibration: of the scores.
    """
    sections = []
    both = [one for one in judged if one.both]
    if both:
        curves = {one.scored.name: (one.scored.scores, one.scored.fake) for one in both}
        sections.append(
            Section(
                "ROC curves",
                "Shares of clips above each threshold.",
                figure=roc_png(curves),
                caption="ROC curve of each list",
            )
        )
    if both and calibration is not None:
        curves = {
            one.scored.name: (calibration.probability(one.scored.scores), one.scored.fake)
            for one in both
        }
        sections.append(
            Section(
                "Calibration",
                f"p(fake) at even prior odds, fitted on {calibration.fake} fake and "
                f"{calibration.real} real clips that are in none of the lists. Sizes of the dots "
                "follow the numbers of clips; where a list has not as many fakes as real clips, "
                "dots lie off the line. In the calibration error both classes weigh the same.",
                figure=reliability_png(curves),
                caption="Share of fakes against the probability of fake",
                rows=[
                    {
                        "list": one.scored.name,
                        "calibration error": one.calibration.get("ece"),
                        "Cllr in bits (1: no use)": one.calibration.get("cllr"),
                    }
                    for one in both
                ],
            )
        )
    for one, of_list in zip(judged, clips, strict=True):
        sections += list_sections(one, of_list)
    return sections


def list_sections(one: Judgement, clips: PreparedClips) -> list[Section]:
    """Return the parts about one list.

    Args:
        one: its judgement.
        clips: the same clips.
    """
    name, scored = one.scored.name, one.scored
    groups = {"real": scored.scores[~scored.fake]}
    for method in scored.methods:
        groups[method] = scored.scores[scored.fake & scored.of_method(method)]
    thresholds = {"0": 0.0}
    if one.threshold != 0:
        thresholds[f"{one.threshold:.4g}, chosen"] = one.threshold
    sections = [
        Section(
            f"{name}: scores",
            "Mean margin of the logits of fake and real over the frames of a clip.",
            figure=scores_png({k: v for k, v in groups.items() if len(v)}, thresholds),
            caption="Scores of real clips and of each method's fakes",
            rows=one.measure_rows(),
        )
    ]
    if one.both:
        rows = one.baseline_rows()
        sections.append(
            Section(
                f"{name}: beside the baselines",
                "AUC of a method's fakes against all real clips. A network is worth what it is "
                "better than the baselines.",
                figure=bars_png(rows, [key for key in rows[0] if key != "fakes"]),
                caption="AUC of the network and of the baselines by method",
                rows=rows,
            )
        )
    sections.append(Section(f"{name}: more measures by method", rows=one.method_rows()))
    if one.audit is not None:
        sections.append(
            Section(
                f"{name}: what the lengths of the files give away",
                "How much the sound is longer than the picture, as the only score. The network "
                "sees clips cut to the time both have.",
                rows=[separation_row(each) for each in one.audit.separations],
            )
        )
    return [*sections, *part_sections(one, clips), *error_sections(one, clips)]


def part_sections(one: Judgement, clips: PreparedClips) -> list[Section]:
    """Return how well forged parts are found, with some clips; nothing where none is known.

    Args:
        one: the judgement.
        clips: the same clips.
    """
    if not one.localisation:
        return []
    sections = [
        Section(
            f"{one.scored.name}: forged parts",
            "AP at three overlaps and AR at several numbers of proposals, as LAV-DF and "
            "AV-Deepfake1M define them, over fakes with known parts and all real clips.",
            rows=[one.localisation],
        )
    ]
    partial = [k for k, entry in enumerate(one.scored.entries) if entry.segments]
    for k in partial[:SHOWN_PARTS]:
        entry, curve = one.scored.entries[k], one.scored.curves[k]
        picture = clip_png(
            curve,
            np.asarray(clips.read(k, 0, clips.lengths[k]).frames),
            one.found[k],
            threshold=one.threshold,
            true_parts=entry.segments,
        )
        sections.append(
            Section(
                f"{entry.name}: score {curve.score:.2f}",
                figure=picture,
                caption="Frames, score (thick: mean of each second) and correlation over time",
            )
        )
    return sections


def error_sections(one: Judgement, clips: PreparedClips) -> list[Section]:
    """Return the worst false alarms and misses.

    Args:
        one: the judgement.
        clips: the same clips.
    """
    sections = []
    for heading, places in one.worst().items():
        if places:
            pictures = [film_strip(clips.read(k, 0, clips.lengths[k]).frames, 4) for k in places]
            captions = [
                f"{_short(one.scored.entries[k].name)}\n{one.scored.entries[k].method}, "
                f"score {one.scored.scores[k]:.2f}"
                for k in places
            ]
            sections.append(
                Section(
                    f"{one.scored.name}: {heading[0].lower()}{heading[1:]}",
                    figure=image_grid_png(pictures, captions, columns=2),
                    caption="Four frames of each clip, as the network sees them",
                )
            )
    return sections


def _short(name: str) -> str:
    return name if len(name) <= 46 else f"…{name[-45:]}"
