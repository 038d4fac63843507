"""The other logit distillers RLD is compared with, each a short function of the two logits.

Each returns the distillation term of its method, a float32 scalar (float64 for float64 inputs);
add cross-entropy with the weights named in its docstring. KL_tau(T || S) stands for the batch mean
of ``sum_c softmax(z_T / tau)_c log(softmax(z_T / tau)_c / softmax(z_S / tau)_c)``. All take student
and teacher logits (B, C) of any float dtype and, where they need it, the true classes (B,) int64;
they raise ValueError as `rld_loss` does. No gradient reaches the teacher.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rld_distill.checks import check_logits, check_numbers, check_teacher
from rld_distill.losses import standardize_logits


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
    """
    check_numbers(temperature=temperature)
    student, teacher = _prepare(student_logits, teacher_logits, standardize=standardize)
    return _finish(_kl(student, teacher, temperature).mean(), teacher_logits)


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
    """
    check_numbers(temperature=temperature, alpha=alpha, beta=beta)
    student, teacher = _prepare(student_logits, teacher_logits, target, standardize=standardize)
    others_s, others_t = _others(student, target), _others(teacher, target)
    odds_s, odds_t = (
        _true(logits, target) / temperature - (others / temperature).logsumexp(1)
        for logits, others in ((student, others_s), (teacher, others_t))
    )
    # softmax([log odds, 0]) is (p_y, 1 - p_y)
    pair_s, pair_t = (torch.stack([odds, torch.zeros_like(odds)], 1) for odds in (odds_s, odds_t))
    tckd = temperature**2 * _kl(pair_s, pair_t, 1.0)
    nckd = _kl(others_s, others_t, temperature)
    return _finish((alpha * tckd + beta * nckd).mean(), teacher_logits)


def la_loss(
    student_logits: Tensor, teacher_logits: Tensor, target: Tensor, *, temperature: float = 4.0
) -> Tensor:
    """Return ``tau^2 KL_tau(T' || S)``, label augmentation, "SWAP" in the RLD code.

    T' has the teacher's largest logit (the first, on a tie) and the true one swapped. Official:
    used alone, without CE; tau 4, ImageNet 1.
    """
    check_numbers(temperature=temperature)
    student, teacher = _prepare(student_logits, teacher_logits, target)
    top, where = teacher.max(1, keepdim=True)
    true = target[:, None]
    swapped = teacher.scatter(1, where, teacher.gather(1, true)).scatter(1, true, top)
    return _finish(_kl(student, swapped, temperature).mean(), teacher_logits)


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
    """
    check_numbers(temperature=temperature)
    student, corrected = _prepare(student_logits, student_logits, target)
    true = target[:, None]
    raised = corrected.gather(1, true) + corrected.amax(1, keepdim=True)
    return _kl(student, corrected.scatter(1, true, raised), temperature).mean()


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
    """
    check_numbers(right_weight=right_weight, wrong_weight=wrong_weight, eta=eta)
    check_numbers(temperature=temperature)
    student, teacher = _prepare(student_logits, teacher_logits, target)
    right = teacher.argmax(1) == target
    probabilities = (teacher / temperature).softmax(1)
    p_true = _true(probabilities, target)
    share = (eta / (probabilities.amax(1) - p_true + 1))[:, None]
    label = (share * probabilities).scatter_add(1, target[:, None], 1 - share)
    fit = F.cross_entropy(student, target, reduction="none")
    fit = fit + right_weight * (student - teacher).square().mean(1)
    revise = wrong_weight * ((student / temperature).softmax(1) - label).square().mean(1)
    loss = _mean_where(right, fit) + _mean_where(~right, revise)
    return _finish(loss, teacher_logits)


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
    """
    student, teacher = _prepare(student_logits, teacher_logits, standardize=standardize)
    probabilities = teacher.softmax(1)
    samples = _fraction_up_to_median(probabilities.amax(1))
    classes = _fraction_up_to_median(probabilities.sum(0))
    loss = student.new_zeros(())
    for tau in temperatures:
        loss = loss + samples * kd_loss(student, teacher, temperature=tau)
        loss = loss + classes * class_gram_loss(student, teacher, temperature=tau)
        loss = loss + samples * batch_gram_loss(student, teacher, temperature=tau)
    return _finish(loss, teacher_logits)


def class_gram_loss(
    student_logits: Tensor, teacher_logits: Tensor, *, temperature: float = 4.0
) -> Tensor:
    """Return ``sum (G_T - G_S)^2 / C``, G = P^T P of P = softmax(z / tau): MLKD's class level.

    G, which is (C, C), is never formed.
    """
    check_numbers(temperature=temperature)
    student, teacher = _prepare(student_logits, teacher_logits)
    s, t = (student / temperature).softmax(1), (teacher / temperature).softmax(1)
    with torch.autocast(s.device.type, enabled=False):
        # with D = T - S and A = T + S: 2 (T^T T - S^T S) = D^T A + A^T D
        gap, total = t - s, t + s
        mixed = gap @ total.T
        squares = ((gap @ gap.T) * (total @ total.T)).sum() + (mixed * mixed.T).sum()
    return _finish(squares / (2 * s.shape[1]), teacher_logits)


def batch_gram_loss(
    student_logits: Tensor, teacher_logits: Tensor, *, temperature: float = 4.0
) -> Tensor:
    """Return ``sum (G_T - G_S)^2 / B``, G = P P^T of P = softmax(z / tau): MLKD's batch level."""
    check_numbers(temperature=temperature)
    student, teacher = _prepare(student_logits, teacher_logits)
    s, t = (student / temperature).softmax(1), (teacher / temperature).softmax(1)
    with torch.autocast(s.device.type, enabled=False):
        squares = (t @ t.T - s @ s.T).square().sum()
    return _finish(squares / len(s), teacher_logits)


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
    """
    check_numbers(temperature=temperature, gamma=gamma)
    student, teacher = _prepare(student_logits, teacher_logits, target)
    hard = -_true(teacher.softmax(1), target) * _true(student.log_softmax(1), target)
    q = (_others(teacher, target) / temperature).softmax(1)
    log_s = (_others(student, target) / temperature).log_softmax(1)
    soft = -(q * log_s).sum(1) * temperature**2
    return _finish((hard + gamma * soft).mean(), teacher_logits)


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
    """
    check_numbers(temperature=temperature, beta=beta, gamma=gamma)
    student, teacher = _prepare(student_logits, teacher_logits)
    s, t = (student / temperature).softmax(1), (teacher / temperature).softmax(1)
    inter, intra = 1 - _pearson(s, t, 1).mean(), 1 - _pearson(s, t, 0).mean()
    return _finish(beta * inter + gamma * intra, teacher_logits)


def ttm_loss(
    student_logits: Tensor, teacher_logits: Tensor, *, gamma: float = 0.1, weighted: bool = False
) -> Tensor:
    """Return ``mean KL(p || softmax(z_S))``, transformed teacher matching (Zheng and Yang 2024).

    p is softmax(z_T)^gamma renormalised; the student stays at temperature 1, and there is no tau^2.
    `weighted` multiplies each sample by ``U = sum_c softmax(z_T)_c^gamma``, large where the teacher
    is unsure. Official README: added to CE; TTM weight 45 at gamma 0.1 (VGG-13 to 8).
    """
    check_numbers(gamma=gamma)
    student, teacher = _prepare(student_logits, teacher_logits)
    powered = gamma * teacher.log_softmax(1)
    divergence = _kl(student, powered, 1.0)
    if weighted:
        divergence = powered.logsumexp(1).exp() * divergence
    return _finish(divergence.mean(), teacher_logits)


def wttm_loss(student_logits: Tensor, teacher_logits: Tensor, *, gamma: float = 0.2) -> Tensor:
    """Return WTTM, `ttm_loss` weighted by sample. README: weight 4, gamma 0.2, with CRD."""
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
        """Set lambda for an epoch counted from 1 (0, the state at first, leaves theta alone)."""
        if epoch < 0:
            raise ValueError(f"epoch must be >= 0, got {epoch}")
        part = (1 + math.cos(math.pi * min(epoch, self.epochs) / self.epochs)) / 2
        self.lambda_ = self.lambda_min * (1 - part)

    def forward(self, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        """Return ``tau^2 KL_tau(T || S)``; shapes (B, C)."""
        student, teacher = _prepare(student_logits, teacher_logits, standardize=self.standardize)
        tau = self.temperature.to(student.dtype)
        return _finish(_kl(student, teacher, tau).mean(), teacher_logits)


class _ScaleGradient(torch.autograd.Function):
    """The identity, whose gradient is multiplied by a factor."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad * ctx.factor, None


def _prepare(
    student: Tensor, teacher: Tensor, target: Tensor | None = None, *, standardize: bool = False
) -> tuple[Tensor, Tensor]:
    """Return both logits, checked, in one dtype, float32 at least, the teacher without gradient."""
    check_logits(student, teacher, target)
    dtype = torch.promote_types(torch.promote_types(student.dtype, teacher.dtype), torch.float32)
    student, teacher = student.to(dtype), teacher.detach().to(dtype)
    if standardize:
        return standardize_logits(student), standardize_logits(teacher)
    return student, teacher


def _finish(loss: Tensor, teacher: Tensor) -> Tensor:
    check_teacher(teacher, loss)
    return loss


def _kl(student: Tensor, teacher: Tensor, tau: float | Tensor) -> Tensor:
    """Return ``tau^2 KL_tau(T || S)`` per sample, (B,)."""
    log_s, log_t = (student / tau).log_softmax(1), (teacher / tau).log_softmax(1)
    divergence: Tensor = F.kl_div(log_s, log_t, reduction="none", log_target=True)
    return divergence.sum(1) * tau**2


def _true(values: Tensor, target: Tensor) -> Tensor:
    """Return each sample's entry of its true class, (B,)."""
    return values.gather(1, target[:, None]).squeeze(1)


def _others(values: Tensor, target: Tensor) -> Tensor:
    """Return each sample's entries of the other classes, in order, (B, C - 1)."""
    index = torch.arange(values.shape[1] - 1, device=values.device)
    return values.gather(1, index + (index >= target[:, None]))


def _mean_where(chosen: Tensor, values: Tensor) -> Tensor:
    return torch.where(chosen, values, 0).sum() / chosen.sum().clamp(min=1)


def _fraction_up_to_median(values: Tensor) -> Tensor:
    return (values <= values.quantile(0.5)).to(values.dtype).mean()


def _pearson(first: Tensor, second: Tensor, dim: int) -> Tensor:
    a, b = (values - values.mean(dim, keepdim=True) for values in (first, second))
    norms = torch.linalg.vector_norm(a, dim=dim) * torch.linalg.vector_norm(b, dim=dim)
    return (a * b).sum(dim) / (norms + 1e-8)
