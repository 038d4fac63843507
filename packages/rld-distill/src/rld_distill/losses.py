"""Refined logit distillation, RLD: learn from a teacher, not from its mistakes (arXiv 2408.07703).

Two terms: SCD hands on how sure the teacher is, attached to the true class; MCD hands on how the
teacher ranks the classes that it puts below the true class, and nothing about the others.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from rld_distill.checks import check_logits, check_names, check_numbers, check_teacher
from rld_distill.closed_form import RefinedLogits

Mask = Literal["ge", "gt"]
Reduction = Literal["mean", "sum", "none"]


def rld_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    target: Tensor,
    *,
    alpha: float = 1.0,
    beta: float = 8.0,
    temperature: float = 4.0,
    scd_temperature: float | None = None,
    standardize: bool = False,
    mask: Mask = "ge",
    reduction: Reduction = "mean",
) -> Tensor:
    """Return ``alpha * SCD + beta * MCD``, without cross-entropy and warm-up.

    Gradients are first order, in closed form, and reach the student only.

    Args:
        student_logits: scores to train, any float dtype, shape (B, C) with C >= 2.
        teacher_logits: fixed scores of the same classes, any float dtype, shape (B, C).
        target: true classes, int64, shape (B,), values in [0, C) (checked on CPU only).
        alpha: weight of SCD, >= 0. Official code: 1; the paper tunes it per pair.
        beta: weight of MCD, >= 0. Official code: 8; the paper tunes it per pair.
        temperature: tau of MCD, >= 1e-6. Official code: 4 for CIFAR-100, 1 for ImageNet.
        scd_temperature: tau of SCD; None takes `temperature`, as the paper's equations do.
        standardize: put both logits through `standardize_logits` first (the LSKD plug-in).
        mask: "ge" hides from MCD every class that the teacher puts at or above the true one (the
            paper's), ties made by half-precision rounding included; "gt" only those strictly above
            it (its ablation).
        reduction: "mean" over all B samples, "sum", or "none".

    Returns:
        Scalar, or (B,) with "none"; >= 0; float64 if an input is float64, else float32.

    Raises:
        ValueError: an argument breaks a rule above, or (on CPU) the teacher is not finite.

    Example:
        >>> student, teacher = torch.tensor([[1.0, 0.0, 2.0]]), torch.tensor([[3.0, 1.0, 0.0]])
        >>> rld_loss(student, teacher, torch.tensor([0]))
        tensor(9.7487)
    """
    check_names(mask, reduction)
    taus = (temperature, temperature if scd_temperature is None else scd_temperature)
    options = (alpha, beta, taus, standardize, mask)
    loss = _per_sample(student_logits, teacher_logits, target, options)[0]
    if reduction == "none":
        return loss
    return loss.mean() if reduction == "mean" else loss.sum()


def scd_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    target: Tensor,
    *,
    temperature: float = 4.0,
    standardize: bool = False,
    reduction: Reduction = "mean",
) -> Tensor:
    """Return sample-confidence distillation, ``tau^2 KL((q, 1 - q) || (p, 1 - p))``.

    q is the teacher's largest softmax entry, whichever class it is; p is the student's entry of
    the true class.

    Args:
        student_logits: any float dtype, shape (B, C).
        teacher_logits: likewise; no gradient reaches it.
        target: true classes, int64, shape (B,).
        temperature: tau, >= 1e-6.
        standardize: put both logits through `standardize_logits` first.
        reduction: mean, sum or none.

    Returns:
        float32 (float64 for float64 inputs), a scalar, or shape (B,) for reduction none.

    Raises:
        ValueError: see `rld_loss`.
    """
    options: dict[str, Any] = {"standardize": standardize, "reduction": reduction}
    options |= {"alpha": 1.0, "beta": 0.0, "temperature": temperature}
    return rld_loss(student_logits, teacher_logits, target, **options)


def mcd_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    target: Tensor,
    *,
    temperature: float = 4.0,
    standardize: bool = False,
    mask: Mask = "ge",
    reduction: Reduction = "mean",
) -> Tensor:
    """Return masked-correlation distillation, ``tau^2 KL`` of the softmaxes over the unmasked.

    A sample with one unmasked class or none adds 0, and counts in the mean.

    Args:
        student_logits: any float dtype, shape (B, C).
        teacher_logits: likewise; no gradient reaches it.
        target: true classes, int64, shape (B,).
        temperature: tau, >= 1e-6.
        standardize: put both logits through `standardize_logits` first.
        mask: see `rld_loss`.
        reduction: mean, sum or none.

    Returns:
        float32 (float64 for float64 inputs), a scalar, or shape (B,) for reduction none.

    Raises:
        ValueError: see `rld_loss`.
    """
    options: dict[str, Any] = {"standardize": standardize, "mask": mask, "reduction": reduction}
    options |= {"alpha": 0.0, "beta": 1.0, "temperature": temperature}
    return rld_loss(student_logits, teacher_logits, target, **options)


def standardize_logits(logits: Tensor) -> Tensor:
    """Return ``(z - mean) / (std + 1e-7)`` of each row, std unbiased (LSKD), float32 at least.

    Shape (B, C) in and out. Constant rows give zeros.
    """
    z = logits.to(torch.promote_types(logits.dtype, torch.float32))
    std, mean = torch.std_mean(z, dim=1, keepdim=True)
    return (z - mean) / (std + 1e-7)


class RLDTerms(NamedTuple):
    """The loss and its parts, batch means.

    Attributes:
        loss: ``alpha * scd + beta * mcd``, with gradient.
        scd: the first term with its tau^2, without gradient; 0 if alpha is 0.
        mcd: the second one likewise; 0 if beta is 0.
    """

    loss: Tensor
    scd: Tensor
    mcd: Tensor


class RLDLoss(nn.Module):
    """`rld_loss` as a module, with the same keywords; always the batch mean."""

    def __init__(
        self,
        *,
        alpha: float = 1.0,
        beta: float = 8.0,
        temperature: float = 4.0,
        scd_temperature: float | None = None,
        standardize: bool = False,
        mask: Mask = "ge",
    ) -> None:
        super().__init__()
        self.alpha, self.beta = alpha, beta
        self.temperature, self.standardize, self.mask = temperature, standardize, mask
        self.scd_temperature = temperature if scd_temperature is None else scd_temperature
        self._taus = (temperature, self.scd_temperature)
        check_numbers(temperature=temperature, scd_temperature=self.scd_temperature)
        check_numbers(alpha=alpha, beta=beta)
        check_names(mask, "mean")

    def forward(self, student: Tensor, teacher: Tensor, target: Tensor) -> Tensor:
        """Return the scalar loss; shapes (B, C), (B, C) and (B,)."""
        return rld_loss(student, teacher, target, **self._options())

    def terms(self, student: Tensor, teacher: Tensor, target: Tensor) -> RLDTerms:
        """Return the loss with its terms, from one pass; shapes (B, C), (B, C) and (B,)."""
        options = (self.alpha, self.beta, self._taus, self.standardize, self.mask)
        parts = _per_sample(student, teacher, target, options)
        return RLDTerms(*(part.mean() for part in parts))

    def extra_repr(self) -> str:
        """Return the settings, for ``print(module)``."""
        return ", ".join(f"{name}={value!r}" for name, value in self._options().items())

    def _options(self) -> dict[str, Any]:
        names = ("alpha", "beta", "temperature", "scd_temperature", "standardize", "mask")
        return {name: getattr(self, name) for name in names}


def _per_sample(
    student: Tensor, teacher: Tensor, target: Tensor, options: Any
) -> tuple[Tensor, Tensor, Tensor]:
    alpha, beta, (tau, tau_scd), standardize, mask = options
    check_logits(student, teacher, target)
    check_numbers(temperature=tau, scd_temperature=tau_scd, alpha=alpha, beta=beta)
    teacher = teacher.detach()
    if standardize:
        student, teacher = standardize_logits(student), standardize_logits(teacher)
    needs_gradient = torch.is_grad_enabled() and student.requires_grad
    options = (alpha, beta, tau_scd, tau, mask, needs_gradient)
    loss, scd, mcd = RefinedLogits.apply(student, teacher, target, options)
    check_teacher(teacher, loss)
    return loss, scd, mcd
