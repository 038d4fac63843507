"""Logit distillers that correct a teacher, or a student, that is wrong: LA, RC and LR.

Each returns the distillation term of its method; add cross-entropy with the weights named in its
docstring. KL_tau(T || S) stands for the batch mean of
``sum_c softmax(z_T / tau)_c log(softmax(z_T / tau)_c / softmax(z_S / tau)_c)``.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from rld_distill.baselines import kd_loss
from rld_distill.checks import check_numbers
from rld_distill.logits import checked, kl_divergence, prepare_logits, true_entries


def la_loss(
    student_logits: Tensor, teacher_logits: Tensor, target: Tensor, *, temperature: float = 4.0
) -> Tensor:
    """Return ``tau^2 KL_tau(T' || S)``, label augmentation, "SWAP" in the RLD code.

    T' has the teacher's largest logit (the first, on a tie) and the true one swapped. Official:
    used alone, without CE; tau 4, ImageNet 1.

    Args:
        student_logits: any float dtype, shape (B, C).
        teacher_logits: likewise; no gradient reaches it.
        target: true classes, int64, shape (B,).
        temperature: tau, >= 1e-6.

    Returns:
        float32 scalar (float64 for float64 inputs).

    Raises:
        ValueError: shapes or labels do not fit, or an option is out of range; see `check_logits`.
    """
    check_numbers(temperature=temperature)
    student, teacher = prepare_logits(student_logits, teacher_logits, target)
    top, where = teacher.max(1, keepdim=True)
    true = target[:, None]
    swapped = teacher.scatter(1, where, teacher.gather(1, true)).scatter(1, true, top)
    return checked(kl_divergence(student, swapped, temperature).mean(), teacher_logits)


def rc_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    target: Tensor,
    *,
    temperature: float = 4.0,
    kd_weight: float = 1.0,
    correction_weight: float = 0.1,
) -> Tensor:
    """Return ``kd_weight KD + correction_weight * self_correction``, review and correction.

    KD is `kd_loss`, the other term is `self_correction_loss`. Official: weights 1 and 0.1, added to
    1 CE; tau 4.

    Args:
        student_logits: any float dtype, shape (B, C).
        teacher_logits: likewise; no gradient reaches it.
        target: true classes, int64, shape (B,).
        temperature: tau, >= 1e-6.
        kd_weight: >= 0.
        correction_weight: >= 0.

    Returns:
        float32 scalar (float64 for float64 inputs).

    Raises:
        ValueError: shapes or labels do not fit, or an option is out of range; see `check_logits`.
    """
    check_numbers(kd_weight=kd_weight, correction_weight=correction_weight)
    kd = kd_loss(student_logits, teacher_logits, temperature=temperature)
    correction = self_correction_loss(student_logits, target, temperature=temperature)
    return kd_weight * kd + correction_weight * correction


def self_correction_loss(
    student_logits: Tensor, target: Tensor, *, temperature: float = 4.0
) -> Tensor:
    """Return ``tau^2 KL_tau(S' || S)``, the part of RC that needs no teacher.

    S' is the student, without gradient, whose true logit is raised by its largest logit.

    Args:
        student_logits: any float dtype, shape (B, C).
        target: true classes, int64, shape (B,).
        temperature: tau, >= 1e-6.

    Returns:
        float32 scalar (float64 for float64 inputs).

    Raises:
        ValueError: shapes or labels do not fit, or an option is out of range; see `check_logits`.
    """
    check_numbers(temperature=temperature)
    student, corrected = prepare_logits(student_logits, student_logits, target)
    true = target[:, None]
    raised = corrected.gather(1, true) + corrected.amax(1, keepdim=True)
    return kl_divergence(student, corrected.scatter(1, true, raised), temperature).mean()


def lr_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    target: Tensor,
    *,
    right_weight: float = 4.0,
    wrong_weight: float = 1.0,
    eta: float = 0.8,
    temperature: float = 1.0,
) -> Tensor:
    """Return the label-revision objective, "REVISION" in the RLD code; it holds its own CE.

    Where the teacher is right (its first largest logit is the true class): mean CE + right_weight *
    MSE of the logits. Where it is wrong: wrong_weight * MSE of softmax(z_S / tau) and the revised
    label ``b p + (1 - b) onehot(y)``, p = softmax(z_T / tau), ``b = eta / (p_max - p_y + 1)``. Each
    mean is over its own samples (and classes), 0 without any. Official: 4, 1, 0.8, tau 1; no
    further CE.

    Args:
        student_logits: any float dtype, shape (B, C).
        teacher_logits: likewise; no gradient reaches it.
        target: true classes, int64, shape (B,).
        right_weight: of the logits' MSE where the teacher is right, >= 0.
        wrong_weight: of the revised label's MSE where it is wrong, >= 0.
        eta: how much of the teacher a revised label keeps at most, >= 0.
        temperature: tau, >= 1e-6.

    Returns:
        float32 scalar (float64 for float64 inputs).

    Raises:
        ValueError: shapes or labels do not fit, or an option is out of range; see `check_logits`.
    """
    check_numbers(right_weight=right_weight, wrong_weight=wrong_weight, eta=eta)
    check_numbers(temperature=temperature)
    student, teacher = prepare_logits(student_logits, teacher_logits, target)
    right = teacher.argmax(1) == target
    probabilities = (teacher / temperature).softmax(1)
    p_true = true_entries(probabilities, target)
    share = (eta / (probabilities.amax(1) - p_true + 1))[:, None]
    label = (share * probabilities).scatter_add(1, target[:, None], 1 - share)
    fit = F.cross_entropy(student, target, reduction="none")
    fit = fit + right_weight * (student - teacher).square().mean(1)
    revise = wrong_weight * ((student / temperature).softmax(1) - label).square().mean(1)
    loss = _mean_where(right, fit) + _mean_where(~right, revise)
    return checked(loss, teacher_logits)


def _mean_where(chosen: Tensor, values: Tensor) -> Tensor:
    return torch.where(chosen, values, 0).sum() / chosen.sum().clamp(min=1)
