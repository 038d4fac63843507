"""What the losses of all methods do with logits before and after their own arithmetic."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from rld_distill.checks import check_logits, check_teacher
from rld_distill.losses import standardize_logits


def prepare_logits(
    student: Tensor, teacher: Tensor, target: Tensor | None = None, *, standardize: bool = False
) -> tuple[Tensor, Tensor]:
    """Return both logits, checked, in one dtype, float32 at least, the teacher without gradient.

    Args:
        student: any float dtype, shape (B, C).
        teacher: likewise.
        target: true classes, int64, shape (B,), where a loss takes them.
        standardize: put both through `standardize_logits`.

    Raises:
        ValueError: see `check_logits`.
    """
    check_logits(student, teacher, target)
    dtype = torch.promote_types(torch.promote_types(student.dtype, teacher.dtype), torch.float32)
    student, teacher = student.to(dtype), teacher.detach().to(dtype)
    if standardize:
        return standardize_logits(student), standardize_logits(teacher)
    return student, teacher


def checked(loss: Tensor, teacher: Tensor) -> Tensor:
    """Return a loss that is not the fault of a broken teacher.

    Args:
        loss: float, any shape.
        teacher: logits, float, shape (B, C).

    Raises:
        ValueError: see `check_teacher`.
    """
    check_teacher(teacher, loss)
    return loss


def kl_divergence(student: Tensor, teacher: Tensor, tau: float | Tensor) -> Tensor:
    """Return ``tau^2 KL_tau(T || S)`` per sample, float, shape (B,).

    Args:
        student: logits, float, shape (B, C).
        teacher: likewise.
        tau: > 0.
    """
    log_s, log_t = (student / tau).log_softmax(1), (teacher / tau).log_softmax(1)
    divergence: Tensor = F.kl_div(log_s, log_t, reduction="none", log_target=True)
    return divergence.sum(1) * tau**2


def true_entries(values: Tensor, target: Tensor) -> Tensor:
    """Return each sample's entry of its true class, shape (B,).

    Args:
        values: shape (B, C).
        target: int64, shape (B,).
    """
    return values.gather(1, target[:, None]).squeeze(1)


def other_entries(values: Tensor, target: Tensor) -> Tensor:
    """Return each sample's entries of the other classes, in order, shape (B, C - 1).

    Args:
        values: shape (B, C).
        target: int64, shape (B,).
    """
    index = torch.arange(values.shape[1] - 1, device=values.device)
    return values.gather(1, index + (index >= target[:, None]))
