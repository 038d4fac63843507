"""What a classifier's logits are worth: accuracy, calibration, and the company of its teacher."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from papercommons.metrics.bootstrap import bootstrap_interval
from papercommons.report import Section, figure_png, image_grid_png
from torch import Tensor
from torch.nn import functional as F
from torchmetrics.functional.classification import (
    multiclass_calibration_error,
    multiclass_confusion_matrix,
)

from rld_distill.sources import Pictures

LIMITS = (
    "Accuracy holds for images like those of the test split. The headline is the last epoch; "
    "best.ckpt is chosen on the val split, never on test. One seed says little: "
    "rld-distill-compare gives mean and spread. The published gains of RLD are on CIFAR-100 and "
    "ImageNet; on other data another method can win."
)


def classification_report(
    logits: Tensor, target: Tensor, teacher_logits: Tensor | None = None, *, draws: int = 1000
) -> dict[str, float]:
    """Return the numbers of one split.

    Args:
        logits: float, shape (N, C).
        target: int64, shape (N,).
        teacher_logits: float, shape (N, C), or None.
        draws: resamples of images for the interval.

    Returns:
        accuracy with its 95 % bootstrap interval (accuracy_low, accuracy_high), top5 (from 6
        classes on), nll, ece (15 bins) and, with a teacher, teacher_accuracy, agreement (same
        class named), accuracy_teacher_right and accuracy_teacher_wrong (NaN where that never is).
    """
    logits = logits.float().cpu()
    right = (logits.argmax(1) == target).double()
    low, high = bootstrap_interval(right, draws=draws)
    numbers = {"accuracy": right.mean().item(), "accuracy_low": low, "accuracy_high": high}
    if logits.shape[1] > 5:
        numbers["top5"] = (logits.topk(5).indices == target[:, None]).any(1).double().mean().item()
    numbers["nll"] = F.cross_entropy(logits, target).item()
    ece = multiclass_calibration_error(
        logits.softmax(1), target, num_classes=logits.shape[1], n_bins=15
    )
    numbers["ece"] = ece.item()
    if teacher_logits is not None:
        teacher = teacher_logits.argmax(1).cpu()
        teacher_right = teacher == target
        numbers |= {
            "teacher_accuracy": teacher_right.double().mean().item(),
            "agreement": (logits.argmax(1) == teacher).double().mean().item(),
            "accuracy_teacher_right": right[teacher_right].mean().item(),
            "accuracy_teacher_wrong": right[~teacher_right].mean().item(),
        }
    return numbers


def result_rows(columns: dict[str, dict[str, float]]) -> list[dict[str, Any]]:
    """Return a result table: one row per measure, one column per split.

    Args:
        columns: heading -> numbers of `classification_report`.
    """
    labels = {
        "accuracy": "accuracy",
        "accuracy_low": "  95 % from",
        "accuracy_high": "  95 % to",
        "top5": "top-5 accuracy",
        "nll": "negative log-likelihood",
        "ece": "calibration error",
        "teacher_accuracy": "teacher's accuracy",
        "agreement": "agreement with teacher",
        "accuracy_teacher_right": "accuracy where teacher right",
        "accuracy_teacher_wrong": "accuracy where teacher wrong",
    }
    return [
        {"": label} | {heading: numbers.get(key) for heading, numbers in columns.items()}
        for key, label in labels.items()
        if any(key in numbers for numbers in columns.values())
    ]


def report_sections(
    logits: Tensor,
    target: Tensor,
    classes: Sequence[str],
    images: Pictures,
    teacher_logits: Tensor | None = None,
) -> list[Section]:
    """Return the pictures of a report: reliability, confusions, and telling examples.

    Args:
        logits: float, shape (N, C).
        target: int64, shape (N,).
        classes: C names.
        images: the same N pictures.
        teacher_logits: float, shape (N, C), or None.
    """
    logits = logits.float().cpu()
    sections = [
        Section(
            "Calibration and confusions",
            figure=_calibration_and_confusion(logits, target, classes),
            caption="Left: of the answers given with a certain confidence, the share that is right "
            "(on the diagonal: neither over- nor underconfident). Right: true class by row, answer "
            "by column, share of the row.",
        )
    ]
    wrong = logits.argmax(1) != target
    if teacher_logits is not None:
        teacher = teacher_logits.argmax(1).cpu()
        shown = (~wrong & (teacher != target)).nonzero().flatten()[:12].tolist()
        if shown:
            captions = [
                f"{classes[int(target[i])]}\nteacher: {classes[int(teacher[i])]}" for i in shown
            ]
            sections.append(
                Section(
                    "Right where the teacher is wrong",
                    figure=image_grid_png([images[i] for i in shown], captions),
                    caption="Test images that the student names rightly and the teacher does not; "
                    "above each its true class and the teacher's answer.",
                )
            )
    confidence = logits.softmax(1).amax(1)
    order = torch.where(wrong, confidence, -1.0).argsort(descending=True)
    shown = order[: min(12, int(wrong.sum()))].tolist()
    if shown:
        answers = logits.argmax(1)
        captions = [
            f"{classes[int(target[i])]}\nsays {classes[int(answers[i])]}, {confidence[i]:.0%}"
            for i in shown
        ]
        sections.append(
            Section(
                "Most confident mistakes",
                figure=image_grid_png([images[i] for i in shown], captions),
                caption="Test images the student gets wrong, the most confident first; above each "
                "its true class and the student's answer.",
            )
        )
    return sections


def _calibration_and_confusion(logits: Tensor, target: Tensor, classes: Sequence[str]) -> bytes:
    confidence, answer = logits.softmax(1).max(1)
    right = (answer == target).float()
    bins = (confidence * 10).long().clamp(max=9)
    count = torch.bincount(bins, minlength=10)
    share = torch.bincount(bins, weights=right, minlength=10) / count
    middle = torch.bincount(bins, weights=confidence, minlength=10) / count
    table = multiclass_confusion_matrix(answer, target, num_classes=logits.shape[1]).float()
    table /= table.sum(1, keepdim=True).clamp(min=1)

    def draw(figure: Any) -> None:
        left, second = figure.subplots(1, 2)
        left.plot([0, 1], [0, 1], color="#94a3b8", linewidth=1)
        seen = count > 0
        area = 12 + 180 * count[seen] / count.sum()
        left.scatter(middle[seen].numpy(), share[seen].numpy(), s=area.numpy(), zorder=3)
        left.set(title="reliability", xlabel="confidence", ylabel="share right", aspect="equal")
        left.set(xlim=(0, 1.03), ylim=(0, 1.03))
        picture = second.imshow(table.numpy(), cmap="Blues", vmin=0, vmax=1)
        second.set(title="confusions", xlabel="answer", ylabel="true class")
        second.grid(visible=False)
        if len(classes) <= 20:
            second.set_xticks(
                range(len(classes)), classes, rotation=90 if len(classes[0]) > 2 else 0
            )
            second.set_yticks(range(len(classes)), classes)
        figure.colorbar(picture, ax=second, shrink=0.85)

    return figure_png(draw, height=4.0)
