"""Logit distillers that match the teacher's softmax, which RLD is compared with.

Each returns the distillation term of its method; add cross-entropy with the weights named in its
docstring. KL_tau(T || S) stands for the batch mean of
``sum_c softmax(z_T / tau)_c log(softmax(z_T / tau)_c / softmax(z_S / tau)_c)``.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from rld_distill.checks import check_numbers
from rld_distill.logits import checked, kl_divergence, other_entries, prepare_logits, true_entries


def kd_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    *,
    temperature: float = 4.0,
    standardize: bool = False,
) -> Tensor:
    """Return ``tau^2 KL_tau(T || S)`` (Hinton et al. 2015).

    Official weights: 0.1 CE + 0.9 KD at tau 4; ImageNet 1 CE + 0.5 KD (ResNet-34 to 18) or 0.5 and
    0.5 (ResNet-50 to MobileNet), tau 1. With `standardize` (LSKD, Sun et al. 2024): 0.1 CE + 9 KD
    at tau 2.

    Args:
        student_logits: any float dtype, shape (B, C).
        teacher_logits: likewise; no gradient reaches it.
        temperature: tau, >= 1e-6.
        standardize: put both logits through `standardize_logits` first.

    Returns:
        float32 scalar (float64 for float64 inputs).

    Raises:
        ValueError: shapes or labels do not fit, or an option is out of range; see `check_logits`.
    """
    check_numbers(temperature=temperature)
    student, teacher = prepare_logits(student_logits, teacher_logits, standardize=standardize)
    return checked(kl_divergence(student, teacher, temperature).mean(), teacher_logits)


def dkd_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    target: Tensor,
    *,
    alpha: float = 1.0,
    beta: float = 8.0,
    temperature: float = 4.0,
    standardize: bool = False,
) -> Tensor:
    """Return ``alpha TCKD + beta NCKD``, decoupled distillation (Zhao et al. 2022).

    TCKD is ``tau^2 KL`` of the pairs (p_y, 1 - p_y), NCKD is ``tau^2 KL`` of the softmaxes over the
    classes other than y. Official: added to 1 CE; alpha 1, tau 4, beta 8, but 2 for ResNet-56 to
    20, 110 to 32 and 110 to 20, and 6 for VGG-13 to 8 or MobileNetV2 and WRN-40-2 to WRN,
    ResNet-8x4 or MobileNetV2; ImageNet beta 0.5 or 2, tau 1; warm-up 20 epochs (ImageNet 1).

    Args:
        student_logits: any float dtype, shape (B, C).
        teacher_logits: likewise; no gradient reaches it.
        target: true classes, int64, shape (B,).
        alpha: weight of TCKD, >= 0.
        beta: weight of NCKD, >= 0.
        temperature: tau, >= 1e-6.
        standardize: put both logits through `standardize_logits` first.

    Returns:
        float32 scalar (float64 for float64 inputs).

    Raises:
        ValueError: shapes or labels do not fit, or an option is out of range; see `check_logits`.
    """
    check_numbers(temperature=temperature, alpha=alpha, beta=beta)
    student, teacher = prepare_logits(
        student_logits, teacher_logits, target, standardize=standardize
    )
    others_s, others_t = other_entries(student, target), other_entries(teacher, target)
    odds_s, odds_t = (
        true_entries(logits, target) / temperature - (others / temperature).logsumexp(1)
        for logits, others in ((student, others_s), (teacher, others_t))
    )
    # softmax([log odds, 0]) is (p_y, 1 - p_y)
    pair_s, pair_t = (torch.stack([odds, torch.zeros_like(odds)], 1) for odds in (odds_s, odds_t))
    tckd = temperature**2 * kl_divergence(pair_s, pair_t, 1.0)
    nckd = kl_divergence(others_s, others_t, temperature)
    return checked((alpha * tckd + beta * nckd).mean(), teacher_logits)


def nkd_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    target: Tensor,
    *,
    temperature: float = 1.0,
    gamma: float = 1.5,
) -> Tensor:
    """Return the soft terms of normalised KD, NKD (Yang et al. 2023).

    The batch mean of ``-softmax(z_T)_y log softmax(z_S)_y - gamma tau^2 sum_{i != y} q_i log s_i``,
    where q and s are the softmaxes at tau over the classes other than y. Cross-entropies, not
    divergences: not 0 at the optimum. Official: tau 1, gamma 1.5, added to 1 CE.

    Args:
        student_logits: any float dtype, shape (B, C).
        teacher_logits: likewise; no gradient reaches it.
        target: true classes, int64, shape (B,).
        temperature: tau, >= 1e-6.
        gamma: weight of the other classes, >= 0.

    Returns:
        float32 scalar (float64 for float64 inputs).

    Raises:
        ValueError: shapes or labels do not fit, or an option is out of range; see `check_logits`.
    """
    check_numbers(temperature=temperature, gamma=gamma)
    student, teacher = prepare_logits(student_logits, teacher_logits, target)
    hard = -true_entries(teacher.softmax(1), target) * true_entries(student.log_softmax(1), target)
    q = (other_entries(teacher, target) / temperature).softmax(1)
    log_s = (other_entries(student, target) / temperature).log_softmax(1)
    soft = -(q * log_s).sum(1) * temperature**2
    return checked((hard + gamma * soft).mean(), teacher_logits)


def ttm_loss(
    student_logits: Tensor, teacher_logits: Tensor, *, gamma: float = 0.1, weighted: bool = False
) -> Tensor:
    """Return ``mean KL(p || softmax(z_S))``, transformed teacher matching (Zheng and Yang 2024).

    p is softmax(z_T)^gamma renormalised; the student stays at temperature 1, and there is no tau^2.
    `weighted` multiplies each sample by ``U = sum_c softmax(z_T)_c^gamma``, large where the teacher
    is unsure. Official README: added to CE; TTM weight 45 at gamma 0.1 (VGG-13 to 8).

    Args:
        student_logits: any float dtype, shape (B, C).
        teacher_logits: likewise; no gradient reaches it.
        gamma: power of the teacher's softmax, >= 0.
        weighted: multiply each sample by U.

    Returns:
        float32 scalar (float64 for float64 inputs).

    Raises:
        ValueError: shapes or labels do not fit, or an option is out of range; see `check_logits`.
    """
    check_numbers(gamma=gamma)
    student, teacher = prepare_logits(student_logits, teacher_logits)
    powered = gamma * teacher.log_softmax(1)
    divergence = kl_divergence(student, powered, 1.0)
    if weighted:
        divergence = powered.logsumexp(1).exp() * divergence
    return checked(divergence.mean(), teacher_logits)


def wttm_loss(student_logits: Tensor, teacher_logits: Tensor, *, gamma: float = 0.2) -> Tensor:
    """Return WTTM, `ttm_loss` weighted by sample. README: weight 4, gamma 0.2, with CRD.

    Args:
        student_logits: any float dtype, shape (B, C).
        teacher_logits: likewise; no gradient reaches it.
        gamma: power of the teacher's softmax, >= 0.

    Returns:
        float32 scalar (float64 for float64 inputs).

    Raises:
        ValueError: shapes or labels do not fit, or an option is out of range; see `check_logits`.
    """
    return ttm_loss(student_logits, teacher_logits, gamma=gamma, weighted=True)


class CTKDLoss(nn.Module):
    """KD at a temperature that learns to make it hard: curriculum temperature (Li et al. 2023).

    ``tau = start + span * sigmoid(theta)`` with one learnable theta, whose gradient is multiplied
    by a lambda <= 0, so that descent raises the loss. Lambda goes from 0 to `lambda_min` along half
    a cosine in `epochs` epochs, then stays; it is no part of the state dict: call `set_epoch` at
    each epoch. Official: theta 1 at first, start 1, span 20, lambda -1 after 10 epochs; 0.1 CE +
    0.9 of this. Give `theta` to the optimiser.

    Args:
        start: lowest tau, > 0.
        span: highest tau minus lowest, >= 0.
        lambda_min: last lambda, <= 0.
        epochs: length of the schedule, >= 1.
        standardize: put both logits through `standardize_logits` first.
    """

    def __init__(
        self,
        *,
        start: float = 1.0,
        span: float = 20.0,
        lambda_min: float = -1.0,
        epochs: int = 10,
        standardize: bool = False,
    ) -> None:
        super().__init__()
        check_numbers(start=start, span=span)
        if not (start > 0 and lambda_min <= 0 and epochs >= 1):
            raise ValueError(
                "start must be > 0, lambda_min <= 0 and epochs >= 1, "
                f"got {start}, {lambda_min} and {epochs}"
            )
        self.start, self.span, self.standardize = start, span, standardize
        self.lambda_min, self.epochs = lambda_min, epochs
        self.theta = nn.Parameter(torch.ones(()))
        self.set_epoch(0)

    @property
    def temperature(self) -> Tensor:
        """The present tau, a scalar; its gradient reaches theta multiplied by lambda."""
        theta: Tensor = _ScaleGradient.apply(self.theta, self.lambda_)
        return self.start + self.span * torch.sigmoid(theta)

    def set_epoch(self, epoch: int) -> None:
        """Set lambda for an epoch counted from 1 (0, the state at first, leaves theta alone).

        Raises:
            ValueError: epoch < 0.
        """
        if epoch < 0:
            raise ValueError(f"epoch must be >= 0, got {epoch}")
        part = (1 + math.cos(math.pi * min(epoch, self.epochs) / self.epochs)) / 2
        self.lambda_ = self.lambda_min * (1 - part)

    def forward(self, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        """Return ``tau^2 KL_tau(T || S)``; shapes (B, C)."""
        student, teacher = prepare_logits(
            student_logits, teacher_logits, standardize=self.standardize
        )
        tau = self.temperature.to(student.dtype)
        return checked(kl_divergence(student, teacher, tau).mean(), teacher_logits)


class _ScaleGradient(torch.autograd.Function):
    """The identity, whose gradient is multiplied by a factor."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad * ctx.factor, None
