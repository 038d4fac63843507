"""What a classifier of scans is worth: ranking, decisions, calibration, and how sure that is.

Everything is computed for many weightings of the scans at once: one of ones for the estimate, and
one per resample of whole patients for its interval.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from papercommons.metrics.bootstrap import estimate, group_weights
from papercommons.metrics.calibration import weighted_ece
from papercommons.metrics.roc import weighted_auc
from papercommons.report import Section, figure_png
from sklearn.metrics import roc_curve
from torch import Tensor


def classification_numbers(
    probabilities: Tensor, target: Tensor, weights: Tensor | None = None
) -> dict[str, Tensor]:
    """Return accuracy, ranking, decision and calibration numbers, one per row of weights.

    Args:
        probabilities: float, shape (N, C), rows sum to 1.
        target: int64, shape (N,).
        weights: of the scans, >= 0, shape (R, N); None is one row of ones.

    Returns:
        float64 (R,) each: accuracy; macro_auc, macro_precision, macro_recall, macro_f1 (means over
        the classes) and weighted_precision, weighted_f1 (over the classes by their share); nll;
        ece (15 bins). NaN where a class that a number needs is absent.
    """
    probabilities, target = probabilities.double().cpu(), target.cpu()
    count, classes = probabilities.shape
    weights = (torch.ones(1, count) if weights is None else weights).double().cpu()
    total = weights.sum(1)
    answer = probabilities.argmax(1)
    table = torch.zeros(len(weights), classes * classes, dtype=torch.double)
    cells = (target * classes + answer).expand_as(weights)
    table = table.scatter_add(1, cells, weights).view(-1, classes, classes)
    right, support = table.diagonal(dim1=1, dim2=2), table.sum(2)
    named = table.sum(1)
    recall = right / torch.where(support > 0, support, torch.nan)
    # a class never named, though it is there, has precision 0 (as in sklearn), not none
    precision = torch.where(named > 0, right / named.clamp(min=1e-12), 0.0) + 0 * recall
    f1 = 2 * right / (support + named).clamp(min=1e-12) + 0 * recall
    aucs = torch.stack(
        [weighted_auc(probabilities[:, c], target == c, weights) for c in range(classes)], dim=1
    )
    share = support / total[:, None]
    true = probabilities.gather(1, target[:, None])[:, 0]
    return {
        "accuracy": right.sum(1) / total,
        "macro_auc": aucs.mean(1),
        "macro_precision": precision.mean(1),
        "macro_recall": recall.mean(1),
        "macro_f1": f1.mean(1),
        "weighted_precision": (precision.nan_to_num() * share).sum(1),
        "weighted_f1": (f1.nan_to_num() * share).sum(1),
        "nll": (weights * -true.clamp(min=1e-12).log()).sum(1) / total,
        "ece": torch.from_numpy(weighted_ece(probabilities.amax(1), answer == target, weights)),
    }


def classification_report(
    probabilities: Tensor,
    target: Tensor,
    patients: Sequence[Hashable],
    classes: Sequence[str] | None = None,
    *,
    draws: int = 1000,
    seed: int = 0,
) -> tuple[dict[str, float], list[str]]:
    """Return the numbers of one split with intervals over patients, and notes on what is undefined.

    Args:
        probabilities: float, shape (N, C).
        target: int64, shape (N,).
        patients: of each scan; an interval resamples patients, not scans.
        classes: names for the notes; numbers if None.
        draws: resamples.
        seed: of the resampling.

    Returns:
        The numbers of `classification_numbers`, each with ``NAME_low`` and ``NAME_high``; these are
        NaN for a single patient, and where the number is undefined in more than 5 % of the
        resamples.
    """
    values = classification_numbers(probabilities, target)
    resampled = classification_numbers(
        probabilities, target, group_weights(patients, draws=draws, seed=seed)
    )
    numbers: dict[str, float] = {}
    notes = []
    several = len(set(patients)) > 1
    for name, value in values.items():
        found = estimate(value.item(), resampled[name])
        honest = several and resampled[name].isnan().double().mean() <= 0.05
        numbers[name] = found.value
        numbers[f"{name}_low"] = found.low if honest else torch.nan
        numbers[f"{name}_high"] = found.high if honest else torch.nan
    names = list(map(str, range(probabilities.shape[1]))) if classes is None else classes
    absent = [name for number, name in enumerate(names) if not (target == number).any()]
    if absent:
        notes.append(f"no scan of class {', '.join(absent)}: macro numbers are not defined")
    lost = resampled["macro_auc"].isnan().double().mean().item()
    if not absent and lost > 0.05:
        notes.append(
            f"{lost:.0%} of the resamples lack a class: too few patients for macro intervals"
        )
    return numbers, notes


def per_class_rows(
    probabilities: Tensor, target: Tensor, classes: Sequence[str], *, specificity: float = 0.95
) -> list[dict[str, Any]]:
    """Return one row per class: scans, AUC against the rest, precision, recall, F1, sensitivity.

    The sensitivity is that of a point of the ROC curve of these very scans, no threshold to use; it
    is None where there are too few scans of other classes to tell that specificity from 1.

    Args:
        probabilities: float, shape (N, C).
        target: int64, shape (N,).
        classes: C names.
        specificity: at which the sensitivity is read off the ROC curve of this very split.
    """
    answer = probabilities.argmax(1)
    rows = []
    for number, name in enumerate(classes):
        truth, named = target == number, answer == number
        hit = (truth & named).sum().item()
        support, answers = truth.sum().item(), named.sum().item()
        sensitivity = None
        if support and (len(target) - support) * (1 - specificity) >= 1 - 1e-9:
            false, true, _ = roc_curve(truth, probabilities[:, number], drop_intermediate=False)
            allowed = false <= 1 - specificity + 1e-9
            sensitivity = true[allowed].max().item()
        rows.append(
            {
                "class": name,
                "scans": support,
                "AUC": weighted_auc(probabilities[:, number], truth).item(),
                "precision": hit / answers if answers else None,
                "recall": hit / support if support else None,
                "F1": 2 * hit / (support + answers) if support + answers else None,
                "sensitivity": sensitivity,
                "specificity": specificity,
            }
        )
    return rows


def confusion_table(answer: Tensor, target: Tensor, classes: int) -> Tensor:
    """Return how often each class (row) was taken for each (column), int64, shape (C, C).

    Args:
        answer: int64, shape (N,).
        target: int64, shape (N,).
        classes: C.
    """
    cells = torch.bincount(target * classes + answer, minlength=classes * classes)
    return cells.view(classes, classes)


def confusion_rows(answer: Tensor, target: Tensor, classes: Sequence[str]) -> list[dict[str, Any]]:
    """Return the confusion matrix: one row per true class, one column per answer.

    Args:
        answer: int64, shape (N,).
        target: int64, shape (N,).
        classes: C names.
    """
    table = confusion_table(answer, target, len(classes))
    return [
        {"label": name}
        | {f"predicted_{other}": int(n) for other, n in zip(classes, row, strict=True)}
        for name, row in zip(classes, table, strict=True)
    ]


LABELS = {
    "accuracy": "accuracy",
    "macro_auc": "macro AUC",
    "macro_precision": "macro precision",
    "macro_recall": "macro recall",
    "macro_f1": "macro F1",
    "weighted_precision": "weighted precision",
    "weighted_f1": "weighted F1",
    "nll": "negative log-likelihood",
    "ece": "calibration error",
}


def result_rows(numbers: Mapping[str, float]) -> list[dict[str, Any]]:
    """Return the result table: one row per number with its interval.

    Args:
        numbers: of `classification_report`.
    """
    return [
        {
            "": label,
            "value": numbers[name],
            "95 % from": numbers[f"{name}_low"],
            "95 % to": numbers[f"{name}_high"],
        }
        for name, label in LABELS.items()
    ]


def report_sections(
    probabilities: Tensor, target: Tensor, rows: Sequence[Mapping[str, Any]]
) -> list[Section]:
    """Return the report's tables and pictures: classes, ROC, confusions, reliability.

    Args:
        probabilities: float, shape (N, C).
        target: int64, shape (N,).
        rows: of `per_class_rows`.
    """
    return [
        Section("Each class against the rest", rows=rows),
        Section(
            "ROC curves, confusions, calibration",
            figure=_curves_png(probabilities, target, rows),
            caption="Left: ROC curve of each class against the rest. Middle: true class by row, "
            "answer by column, number of scans. Right: of the answers given with a certain "
            "confidence, the share that is right (on the diagonal: neither over- nor "
            "underconfident); larger dots are more scans.",
        ),
    ]


def _curves_png(probabilities: Tensor, target: Tensor, rows: Sequence[Mapping[str, Any]]) -> bytes:
    confidence, answer = probabilities.max(1)
    right = (answer == target).float()
    bins = (confidence * 10).long().clamp(max=9)
    count = torch.bincount(bins, minlength=10)
    share = torch.bincount(bins, weights=right, minlength=10) / count
    middle = torch.bincount(bins, weights=confidence, minlength=10) / count
    classes = [row["class"] for row in rows]
    table = confusion_table(answer, target, len(classes))

    def draw(figure: Any) -> None:
        curves, matrix, reliability = figure.subplots(1, 3)
        for number, of_class in enumerate(rows):
            if 0 < of_class["scans"] < len(target):
                scores = probabilities[:, number]
                false, true, _ = roc_curve(target == number, scores, drop_intermediate=False)
                curves.plot(false, true, label=f"{of_class['class']} ({of_class['AUC']:.3f})")
        curves.plot([0, 1], [0, 1], color="#94a3b8", linewidth=1)
        curves.set(title="ROC", xlabel="false positives", ylabel="true positives", aspect="equal")
        if curves.get_legend_handles_labels()[0]:
            curves.legend(loc="lower right", fontsize=8)
        shares = table / table.sum(1, keepdim=True).clamp(min=1)
        matrix.imshow(shares.numpy(), cmap="Blues", vmin=0, vmax=1)
        for row in range(len(classes)):
            for column in range(len(classes)):
                dark = table[row, column] > 0.6 * table[row].sum()
                matrix.text(
                    column,
                    row,
                    int(table[row, column]),
                    ha="center",
                    va="center",
                    color="white" if dark else "#0f172a",
                )
        places = range(len(classes))
        matrix.set(title="confusions", xlabel="answer", ylabel="true class")
        matrix.set_xticks(places, classes)
        matrix.set_yticks(places, classes)
        matrix.grid(visible=False)
        reliability.plot([0, 1], [0, 1], color="#94a3b8", linewidth=1)
        seen = count > 0
        sizes = 12 + 180 * count[seen] / count.sum()
        reliability.scatter(middle[seen].numpy(), share[seen].numpy(), s=sizes.numpy(), zorder=3)
        reliability.set(
            title="reliability", xlabel="confidence", ylabel="share right", aspect="equal"
        )

    return figure_png(draw, width=12.0, height=3.8)
