"""Logit distillers that match relations between classes and between samples: MLKD and DIST.

Each returns the distillation term of its method; add cross-entropy with the weights named in its
docstring. KL_tau(T || S) stands for the batch mean of
``sum_c softmax(z_T / tau)_c log(softmax(z_T / tau)_c / softmax(z_S / tau)_c)``.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rld_distill.baselines import kd_loss
from rld_distill.checks import check_numbers
from rld_distill.logits import checked, prepare_logits


def mlkd_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    *,
    temperatures: Sequence[float] = (4.0, 3.0, 5.0, 2.0, 6.0),
    standardize: bool = False,
) -> Tensor:
    """Return multi-level logit distillation on one view (Jin et al. 2023).

    The sum over `temperatures` of `kd_loss` + `class_gram_loss` + `batch_gram_loss`, each scaled by
    a selected fraction: of the samples at or below the median teacher confidence for the first and
    last, of the classes at or below the median summed probability for the class term. This is the
    official arithmetic: the selection is meant as a mask, but there it multiplies a term that is
    already reduced, so no sample or class is left out and about half of the weight is. Official:
    0.1 CE + 0.9 of this, tau 4 and {3, 5, 2, 6}; two views and 480 epochs there.

    Args:
        student_logits: any float dtype, shape (B, C).
        teacher_logits: likewise; no gradient reaches it.
        temperatures: each >= 1e-6.
        standardize: put both logits through `standardize_logits` first.

    Returns:
        float32 scalar (float64 for float64 inputs).

    Raises:
        ValueError: shapes or labels do not fit, or an option is out of range; see `check_logits`.
    """
    student, teacher = prepare_logits(student_logits, teacher_logits, standardize=standardize)
    probabilities = teacher.softmax(1)
    samples = _fraction_up_to_median(probabilities.amax(1))
    classes = _fraction_up_to_median(probabilities.sum(0))
    loss = student.new_zeros(())
    for tau in temperatures:
        loss = loss + samples * kd_loss(student, teacher, temperature=tau)
        loss = loss + classes * class_gram_loss(student, teacher, temperature=tau)
        loss = loss + samples * batch_gram_loss(student, teacher, temperature=tau)
    return checked(loss, teacher_logits)


def class_gram_loss(
    student_logits: Tensor, teacher_logits: Tensor, *, temperature: float = 4.0
) -> Tensor:
    """Return ``sum (G_T - G_S)^2 / C``, G = P^T P of P = softmax(z / tau): MLKD's class level.

    G, which is (C, C), is never formed.

    Args:
        student_logits: any float dtype, shape (B, C).
        teacher_logits: likewise; no gradient reaches it.
        temperature: tau, >= 1e-6.

    Returns:
        float32 scalar (float64 for float64 inputs).

    Raises:
        ValueError: shapes or labels do not fit, or an option is out of range; see `check_logits`.
    """
    check_numbers(temperature=temperature)
    student, teacher = prepare_logits(student_logits, teacher_logits)
    s, t = (student / temperature).softmax(1), (teacher / temperature).softmax(1)
    with torch.autocast(s.device.type, enabled=False):
        # with D = T - S and A = T + S: 2 (T^T T - S^T S) = D^T A + A^T D
        gap, total = t - s, t + s
        mixed = gap @ total.T
        squares = ((gap @ gap.T) * (total @ total.T)).sum() + (mixed * mixed.T).sum()
    return checked(squares / (2 * s.shape[1]), teacher_logits)


def batch_gram_loss(
    student_logits: Tensor, teacher_logits: Tensor, *, temperature: float = 4.0
) -> Tensor:
    """Return ``sum (G_T - G_S)^2 / B``, G = P P^T of P = softmax(z / tau): MLKD's batch level.

    Args:
        student_logits: any float dtype, shape (B, C).
        teacher_logits: likewise; no gradient reaches it.
        temperature: tau, >= 1e-6.

    Returns:
        float32 scalar (float64 for float64 inputs).

    Raises:
        ValueError: shapes or labels do not fit, or an option is out of range; see `check_logits`.
    """
    check_numbers(temperature=temperature)
    student, teacher = prepare_logits(student_logits, teacher_logits)
    s, t = (student / temperature).softmax(1), (teacher / temperature).softmax(1)
    with torch.autocast(s.device.type, enabled=False):
        squares = (t @ t.T - s @ s.T).square().sum()
    return checked(squares / len(s), teacher_logits)


def dist_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    *,
    beta: float = 1.0,
    gamma: float = 1.0,
    temperature: float = 1.0,
) -> Tensor:
    """Return ``beta (1 - mean_b r_b) + gamma (1 - mean_c r_c)``, DIST (Huang et al. 2022).

    r_b is the Pearson correlation of the two softmaxes at tau over the classes of sample b, r_c the
    one over the batch of class c, with 1e-8 added to their denominators. No tau^2, which some
    versions have. Official segmentation code: 1, 1, tau 1; 2 and 2 are in use for classification.
    Added to 1 CE.

    Args:
        student_logits: any float dtype, shape (B, C).
        teacher_logits: likewise; no gradient reaches it.
        beta: weight of the correlation within samples, >= 0.
        gamma: weight of the correlation within classes, >= 0.
        temperature: tau, >= 1e-6.

    Returns:
        float32 scalar (float64 for float64 inputs).

    Raises:
        ValueError: shapes or labels do not fit, or an option is out of range; see `check_logits`.
    """
    check_numbers(temperature=temperature, beta=beta, gamma=gamma)
    student, teacher = prepare_logits(student_logits, teacher_logits)
    s, t = (student / temperature).softmax(1), (teacher / temperature).softmax(1)
    inter, intra = 1 - _pearson(s, t, 1).mean(), 1 - _pearson(s, t, 0).mean()
    return checked(beta * inter + gamma * intra, teacher_logits)


def _fraction_up_to_median(values: Tensor) -> Tensor:
    return (values <= values.quantile(0.5)).to(values.dtype).mean()


def _pearson(first: Tensor, second: Tensor, dim: int) -> Tensor:
    a, b = (values - values.mean(dim, keepdim=True) for values in (first, second))
    norms = torch.linalg.vector_norm(a, dim=dim) * torch.linalg.vector_norm(b, dim=dim)
    return (a * b).sum(dim) / (norms + 1e-8)
