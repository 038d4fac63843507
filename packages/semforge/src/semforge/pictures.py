"""The pictures of the reports on faces of known truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from papercommons.metrics.score_calibration import ScoreCalibration
from papercommons.report import PALETTE, Section, figure_png, image_grid_png

from semforge.inference import UNKNOWN
from semforge.judgement import NAMES, Judgement, Row

SHOWN = 6
COLUMNS = NAMES | {
    "not_altered": "not altered",
    "called_fake": "called fake",
    "mean_p_fake": "mean p(fake)",
}
REAL_COLOUR, FAKE_COLOUR = PALETTE[0], PALETTE[3]


def judgement_sections(found: Judgement, calibration: ScoreCalibration | None) -> list[Section]:
    """Return the parts of a report on judged faces.

    Args:
        found: the judgement.
        calibration: of the network.
    """
    sections = []
    if found.both:
        sections = [
            Section(
                "Fake or real",
                "Left: log odds of fake; faces are called so right of the line. Right: ROC curve.",
                figure=scores_png(found),
                caption="Histograms of the scores, and the ROC curve, of faces",
            ),
            Section(
                "Calibration",
                "How many faces are fake among those with about the same probability. Sizes of "
                "the dots follow the numbers of faces.",
                figure=reliability_png(found, calibration),
                caption="Share of fakes against the probability of fake",
            ),
        ]
    if len(found.nodes) > 1:
        sections.append(
            Section(
                "Nodes of the graph",
                "Each node over the faces where it is known.",
                figure=nodes_png(found),
                caption="Area under the ROC curve of each node",
                rows=_worded(found.node_table()),
            )
        )
    sections.append(
        Section(
            "By method",
            "A method's fakes against all real faces; of real faces, those called fake.",
            rows=_worded(found.method_table()),
        )
    )
    if len(found.curves) > 1:
        sections.append(
            Section(
                "After JPEG, resizing, blur and noise",
                "Faces are changed at the network's size. Resizing: by a factor and back.",
                figure=curves_png(found.curves),
                caption="Area under the ROC curve; dashed: faces as they are",
                rows=[{"after": name, **row} for name, row in found.curves.items()],
            )
        )
    return sections


def scores_png(found: Judgement) -> bytes:
    """Return a PNG with the histograms of the log odds and the ROC curve."""
    root = found.scores.labels[:, 0]
    odds = found.scores.log_odds[:, 0]

    def draw(figure: Any) -> None:
        left, right = figure.subplots(1, 2)
        known = odds[root != UNKNOWN].numpy()
        bins = np.histogram_bin_edges(np.clip(known, -30, 30), 50).tolist()
        for value, name, colour in ((0, "real", REAL_COLOUR), (1, "fake", FAKE_COLOUR)):
            values = odds[root == value].clamp(-30, 30).numpy()
            left.hist(values, bins, alpha=0.6, density=True, label=name, color=colour)
        left.axvline(found.threshold, color="k", linewidth=1, label="threshold")
        left.set(xlabel="log odds of fake", ylabel="density")
        left.legend()
        estimate = found.faces["auc"].value
        right.plot(*roc_points(odds[root != UNKNOWN], root[root != UNKNOWN] == 1))
        right.plot([0, 1], [0, 1], color="0.7", linewidth=1)
        right.set(xlabel="false alarms", ylabel="fakes found", title=f"faces: AUC {estimate:.3f}")

    return figure_png(draw)


def _worded(rows: Sequence[Row]) -> list[Row]:
    """Return rows with the names of their columns in words."""
    return [{COLUMNS.get(name, name): value for name, value in row.items()} for row in rows]


def roc_points(scores: torch.Tensor, fake: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return the corners of the ROC curve: shares of real and of fake faces above each score.

    Args:
        scores: higher = more fake, shape (N,).
        fake: bool, shape (N,), both values.
    """
    levels, level = scores.unique(return_inverse=True)
    shares = []
    for kind in (~fake, fake):
        count = level[kind].bincount(minlength=len(levels)).flip(0).cumsum(0).double()
        shares.append(np.concatenate([[0.0], (count / count[-1]).numpy()]))
    return shares[0], shares[1]


def reliability_png(found: Judgement, calibration: ScoreCalibration | None) -> bytes:
    """Return a PNG of the reliability diagram of p(fake), as it is and calibrated.

    Args:
        found: the judgement.
        calibration: of the network; None draws p(fake) alone.
    """
    root = found.scores.labels[:, 0]
    known = root != UNKNOWN
    fake = (root[known] == 1).double()
    shown = {"p(fake)": found.scores.probabilities[known, 0].double()}
    if calibration is not None:
        even = calibration.probability(found.scores.log_odds[known, 0])
        shown["calibrated"] = torch.from_numpy(even)

    def draw(figure: Any) -> None:
        for axes, (name, p) in zip(
            figure.subplots(1, len(shown), squeeze=False)[0], shown.items(), strict=True
        ):
            place = (p * 10).long().clamp(max=9)
            count = place.bincount(minlength=10)
            some = count > 0
            means = place.bincount(p, minlength=10)[some] / count[some]
            shares = place.bincount(fake, minlength=10)[some] / count[some]
            size = 20 + 300 * (count[some] / len(p))
            axes.plot([0, 1], [0, 1], color="0.7", linewidth=1)
            axes.scatter(means.numpy(), shares.numpy(), s=size.numpy())
            axes.set(xlabel=name, ylabel="share of fakes", xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))

    return figure_png(draw, width=4 * max(2, len(shown)), height=3.4)


def nodes_png(found: Judgement) -> bytes:
    """Return a PNG with a bar per node: the area under its ROC curve."""
    rows = [row for row in found.node_table() if _defined(row["auc"])]

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        values = [row["auc"] - 0.5 for row in rows]
        axes.barh([row["node"] for row in rows], values, left=0.5)
        axes.axvline(0.5, color="0.4", linewidth=1)
        axes.set(xlabel="ROC AUC", xlim=(min(0.4, *(0.5 + v for v in values), 1), 1))
        axes.invert_yaxis()

    return figure_png(draw, height=0.8 + 0.27 * max(3, len(rows)))


def curves_png(curves: Mapping[str, Mapping[str, float]], measure: str = "auc") -> bytes:
    """Return a PNG with a panel per kind of distortion.

    Args:
        curves: distortion (or ``none``) -> its measures.
        measure: the one drawn.
    """
    kinds: dict[str, list[tuple[float, float]]] = {}
    for name, row in curves.items():
        if name != "none":
            kind, _, strength = name.partition("=")
            kinds.setdefault(kind, []).append((float(strength), row[measure]))
    labels = {
        "jpeg": "JPEG quality",
        "webp": "WebP quality",
        "resize": "factor",
        "blur": "sigma",
        "noise": "sigma",
    }

    def draw(figure: Any) -> None:
        panels = figure.subplots(1, len(kinds), squeeze=False, sharey=True)[0]
        for axes, (kind, points) in zip(panels, kinds.items(), strict=True):
            points.sort()
            axes.plot(*zip(*points, strict=True), marker="o", markersize=3)
            axes.axhline(curves["none"][measure], color="0.4", linestyle="--", linewidth=1)
            axes.set(title=kind, xlabel=labels[kind])
            if kind in ("jpeg", "webp", "resize"):
                axes.invert_xaxis()  # stronger to the right
        panels[0].set_ylabel("ROC AUC")

    return figure_png(draw, width=2.6 * max(3, len(kinds)), height=2.8)


def errors_sections(found: Judgement, pictures: Mapping[int, np.ndarray]) -> list[Section]:
    """Return the worst false alarms and misses.

    Args:
        found: the judgement.
        pictures: place of a face -> uint8 (S, S, 3), of those that `worst_faces` names.
    """
    sections = []
    for heading, places in worst_faces(found).items():
        if places:
            captions = [
                f"{_short(found.scores.names[i])}\n{found.scores.methods[i]}, "
                f"p {float(found.scores.probabilities[i, 0]):.3f}"
                for i in places
            ]
            sections.append(
                Section(
                    heading,
                    figure=image_grid_png([pictures[i] for i in places], captions, columns=SHOWN),
                    caption="Faces as the network sees them, with p(fake)",
                )
            )
    return sections


def worst_faces(found: Judgement) -> dict[str, list[int]]:
    """Return the places of the faces that are most wrongly judged, at most six of each kind."""
    root, odds = found.scores.labels[:, 0], found.scores.log_odds[:, 0]
    worst = {}
    for heading, value, sign in (
        ("Real faces called fake: the worst", 0, -1.0),
        ("Fakes called real: the worst", 1, 1.0),
    ):
        wrong = (root == value) & ((odds >= found.threshold) != bool(value))
        order = torch.where(wrong, sign * odds, torch.inf).argsort(stable=True)
        worst[heading] = order[: min(SHOWN, int(wrong.sum()))].tolist()
    return worst


def lambda_section(rows: Sequence[Mapping[str, float]]) -> Section:
    """Return the weights of the levels over the epochs.

    Args:
        rows: of the history, with lambda/LEVEL.
    """
    from papercommons.report import curves_png as lines_png

    names = [name for name in rows[-1] if name.startswith("lambda/")]
    curves = {name.removeprefix("lambda/"): [row.get(name) for row in rows] for name in names}
    return Section(
        "Weights of the levels",
        "Auto-lambda turns up what makes the primary task (fake or real) better on held-out faces.",
        figure=lines_png({"lambda": curves}),
        caption="Weight of each level's loss at the end of each epoch",
    )


def _defined(value: float | None) -> bool:
    return value is not None and value == value


def _short(name: str) -> str:
    return name if len(name) <= 26 else f"…{name[-25:]}"
