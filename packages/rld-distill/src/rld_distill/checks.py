"""What the losses accept; everything else is a ValueError that names rule and value."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def check_logits(student: Tensor, teacher: Tensor, target: Tensor | None = None) -> None:
    """Refuse logits or labels that no loss here can use; no device synchronisation.

    Args:
        student: floating point, shape (B, C) with B >= 1 and C >= 2.
        teacher: likewise.
        target: true classes, int64, shape (B,), where a loss takes them.

    Raises:
        ValueError: they are something else; values of the target are looked at on the CPU alone.
    """
    for name, logits in (("student_logits", student), ("teacher_logits", teacher)):
        if logits.ndim != 2 or logits.shape[0] < 1 or logits.shape[1] < 2:
            raise ValueError(
                f"{name} must have shape (B, C) with B >= 1 and C >= 2, got {tuple(logits.shape)}"
            )
        if not logits.is_floating_point():
            raise ValueError(f"{name} must be floating point, got {logits.dtype}")
    if student.shape != teacher.shape:
        raise ValueError(
            "student_logits and teacher_logits must have equal shapes, "
            f"got {tuple(student.shape)} and {tuple(teacher.shape)}"
        )
    if target is None:
        return
    batch, classes = student.shape
    if target.is_floating_point() or target.ndim == 2:
        raise ValueError(
            f"target must hold one class index per sample, got {target.dtype} of shape "
            f"{tuple(target.shape)}: soft and one-hot labels (mixup, cutmix) are not supported, "
            "because the mask needs one true class"
        )
    if target.dtype != torch.int64 or target.shape != (batch,):
        raise ValueError(
            f"target must be int64 of shape ({batch},), got {target.dtype} of shape "
            f"{tuple(target.shape)}"
        )
    if target.device.type == "cpu" and not torch.compiler.is_compiling():
        low, high = (int(end) for end in torch.aminmax(target))
        if low < 0 or high >= classes:
            first = int(((target < 0) | (target >= classes)).nonzero()[0])
            raise ValueError(
                f"target must lie in [0, {classes}), got {int(target[first])} in sample {first}"
            )


def check_numbers(**numbers: float) -> None:
    """Raise ValueError for a weight below 0, a temperature below 1e-6, or one not finite."""
    for name, number in numbers.items():
        low = 1e-6 if name.endswith("temperature") else 0
        if not low <= number < math.inf:
            raise ValueError(f"{name} must be finite and >= {low:g}, got {number}")


def check_names(mask: str, reduction: str) -> None:
    """Refuse an unknown mask or reduction.

    Args:
        mask: ge or gt.
        reduction: mean, sum or none.

    Raises:
        ValueError: one of them is unknown.
    """
    if mask not in ("ge", "gt"):
        raise ValueError(f"mask must be 'ge' or 'gt', got {mask!r}")
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"reduction must be 'mean', 'sum' or 'none', got {reduction!r}")


def check_teacher(teacher: Tensor, loss: Tensor) -> None:
    """Refuse a teacher that made a loss on the CPU NaN or infinite.

    Args:
        teacher: logits, shape (B, C).
        loss: any shape.

    Raises:
        ValueError: the loss is not finite, and the teacher's logits are not.
    """
    if loss.device.type != "cpu" or torch.compiler.is_compiling():
        return
    if math.isfinite(loss.detach().sum().item()):
        return
    broken = (~teacher.isfinite()).any(1).nonzero()
    if len(broken):
        raise ValueError(f"teacher_logits hold NaN or infinity, first in sample {int(broken[0])}")
