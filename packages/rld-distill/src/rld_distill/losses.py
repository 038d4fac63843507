"""Refined logit distillation, RLD: learn from a teacher, not from its mistakes (arXiv 2408.07703).

Two terms: SCD hands on how sure the teacher is, attached to the true class; MCD hands on how the
teacher ranks the classes that it puts below the true class, and nothing about the others.
"""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

Mask = Literal["ge", "gt"]
Reduction = Literal["mean", "sum", "none"]

LOG2_E = math.log2(math.e)  # softmaxes are in base 2: on a CPU exp2 takes 0.4 times as long as exp
HIDDEN = -1e30  # a logit that no class can have: it absorbs what is added to it
CPU_CHUNK, GPU_CHUNK = 2**17, 2**21  # logits worked on at once, so that their buffers stay in cache


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
            paper's); "gt" only those strictly above it (its ablation).
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
    tau_scd = temperature if scd_temperature is None else scd_temperature
    _check(student_logits, teacher_logits, target)
    _check_numbers(temperature=temperature, scd_temperature=tau_scd, alpha=alpha, beta=beta)
    _check_names(mask, reduction)
    teacher_logits = teacher_logits.detach()
    if standardize:
        student_logits = standardize_logits(student_logits)
        teacher_logits = standardize_logits(teacher_logits)
    needs_gradient = torch.is_grad_enabled() and student_logits.requires_grad
    options = (alpha, beta, tau_scd, temperature, mask, needs_gradient)
    loss: Tensor = _RLD.apply(student_logits, teacher_logits, target, options)
    _check_teacher(teacher_logits, loss)
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
    the true class. Arguments, result and errors are those of `rld_loss`.
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

    Arguments, result and errors are those of `rld_loss`. A sample with one unmasked class or none
    adds 0, and counts in the mean.
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
    """The terms of RLD: batch means without alpha and beta, each with its own tau^2."""

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
        _check_numbers(temperature=temperature, scd_temperature=self.scd_temperature)
        _check_numbers(alpha=alpha, beta=beta)
        _check_names(mask, "mean")

    def forward(self, student: Tensor, teacher: Tensor, target: Tensor) -> Tensor:
        """Return the scalar loss; shapes (B, C), (B, C) and (B,)."""
        return rld_loss(student, teacher, target, **self._options())

    def terms(self, student: Tensor, teacher: Tensor, target: Tensor) -> RLDTerms:
        """Return both terms, each with its gradient; ``alpha * scd + beta * mcd`` is `forward`.

        To log the terms, train on that sum: this and `forward` would be two passes.
        """
        shared: dict[str, Any] = {"standardize": self.standardize}
        scd = scd_loss(student, teacher, target, temperature=self.scd_temperature, **shared)
        shared |= {"mask": self.mask, "temperature": self.temperature}
        return RLDTerms(scd, mcd_loss(student, teacher, target, **shared))

    def extra_repr(self) -> str:
        """Return the settings, for ``print(module)``."""
        return ", ".join(f"{name}={value!r}" for name, value in self._options().items())

    def _options(self) -> dict[str, Any]:
        names = ("alpha", "beta", "temperature", "scd_temperature", "standardize", "mask")
        return {name: getattr(self, name) for name in names}


def _scd(
    student: Tensor,
    teacher: Tensor,
    target: Tensor,
    tau: float,
    weight: float,
    gradient: Tensor,
    buffers: list[Tensor],
) -> Tensor:
    """Return KL((q, 1 - q) || (p, 1 - p)) per sample; add weight * its derivative to `gradient`.

    In log odds m = log(q / (1 - q)) and n = log(p / (1 - p)) nothing overflows: the divergence is
    ``(1 - q) (n - m) + log sigmoid(m) - log sigmoid(n)``. Its derivative by student / tau is p - q
    for the true class and (q - p) softmax_i / (1 - p) for the others.
    """
    odds, scale = buffers[0], LOG2_E / tau
    torch.sub(teacher, teacher.amax(1, keepdim=True), out=odds).mul_(scale).exp2_()
    total = odds.sum(1)
    rest = odds.frac_().sum(1)  # frac drops the top class and its ties: their odds are exactly 1
    rest += total.sub_(rest).round_().sub_(1)  # and all these but one belong to the rest
    m = rest.clamp_(min=torch.finfo(rest.dtype).tiny).log_().neg_()

    true = target[:, None]
    torch.sub(student, student.gather(1, true), out=odds).scatter_(1, true, HIDDEN)
    top = odds.amax(1, keepdim=True)
    total = odds.sub_(top).mul_(scale).exp2_().sum(1)
    n = total.log().add_(top.squeeze(1), alpha=1 / tau).neg_()
    not_q, not_p = torch.sigmoid(-m), torch.sigmoid(-n)
    p_minus_q = n.sigmoid().mul_(not_q).sub_(m.sigmoid().mul_(not_p))  # exact near 0 and near 1
    odds.scatter_(1, true, -total[:, None])
    gradient.addcmul_(odds, p_minus_q.div_(total).mul_(-weight)[:, None])
    return (n - m).mul_(not_q).add_(F.logsigmoid(m)).sub_(F.logsigmoid(n))


def _mcd(
    student: Tensor,
    teacher: Tensor,
    target: Tensor,
    tau: float,
    mask: Mask,
    weight: float,
    gradient: Tensor,
    buffers: list[Tensor],
) -> Tensor:
    """Return KL(q || p) of unmasked softmaxes per sample; write weight * (p - q) to `gradient`.

    Where all classes are masked both softmaxes are uniform: 0 and 0.
    """
    masked, t, s = buffers
    compare = torch.ge if mask == "ge" else torch.gt
    compare(teacher, teacher.gather(1, target[:, None]), out=masked)  # 1.0 or 0.0: faster than bool
    for logits, out in ((teacher, t), (student, s)):
        torch.add(logits, masked, alpha=HIDDEN, out=out)
        out.sub_(out.amax(1, keepdim=True)).mul_(LOG2_E / tau)
    q, log_ratio = torch.exp2(t, out=masked), t.sub_(s)
    p = s.exp2_()
    total_q, total_p = q.sum(1), p.sum(1)
    torch.mul(p, total_p.reciprocal().mul_(weight)[:, None], out=gradient)
    gradient.addcmul_(q, total_q.reciprocal().mul_(-weight)[:, None])
    mean_ratio = log_ratio.mul_(q).sum(1).div_(total_q)
    return mean_ratio.div_(LOG2_E).add_(total_p.div_(total_q).log_())


class _RLD(torch.autograd.Function):
    """The loss per sample; its gradient is found on the way, a chunk of rows at a time."""

    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor, target: Tensor, options: Any) -> Tensor:
        alpha, beta, tau_scd, tau, mask, needs_gradient = options
        work = torch.promote_types(torch.promote_types(student.dtype, teacher.dtype), torch.float32)
        # float16 would flush small gradients to 0 before a loss scaler can lift them
        keep = work if student.dtype == torch.float16 else student.dtype
        loss = student.new_zeros(len(student), dtype=work)
        saved = torch.empty_like(student, dtype=keep) if needs_gradient else None
        chunks = _chunks(student)
        scratch = student.new_empty((4, *student[chunks[0]].shape), dtype=work)
        for rows in chunks:
            s, t, y = student[rows].to(work), teacher[rows].to(work), target[rows]
            gradient, *buffers = scratch[:, : len(s)]
            if beta:
                mcd = _mcd(s, t, y, tau, mask, beta * tau, gradient, buffers)
                loss[rows].add_(mcd, alpha=beta * tau**2)
            else:
                gradient.zero_()
            if alpha:
                scd = _scd(s, t, y, tau_scd, alpha * tau_scd, gradient, buffers)
                loss[rows].add_(scd, alpha=alpha * tau_scd**2)
            if saved is not None:
                saved[rows] = gradient
        if saved is not None:
            ctx.save_for_backward(saved)
        ctx.dtype = student.dtype
        return loss.clamp_(min=0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,) = ctx.saved_tensors
        scaled = torch.empty_like(gradient, dtype=ctx.dtype)
        for rows in _chunks(gradient):
            torch.mul(gradient[rows], grad_loss[rows, None], out=scaled[rows])
        return scaled, None, None, None


def _chunks(logits: Tensor) -> list[slice]:
    if torch.compiler.is_compiling():  # the compiler fuses by itself
        return [slice(None)]
    chunk = CPU_CHUNK if logits.device.type == "cpu" else GPU_CHUNK
    step = max(1, chunk // logits.shape[1])
    return [slice(start, start + step) for start in range(0, logits.shape[0], step)]


def _check(student: Tensor, teacher: Tensor, target: Tensor | None = None) -> None:
    """Raise ValueError for logits or labels no loss here can use; no device synchronisation."""
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


def _check_numbers(**numbers: float) -> None:
    for name, number in numbers.items():
        low = 1e-6 if name.endswith("temperature") else 0
        if not low <= number < math.inf:
            raise ValueError(f"{name} must be finite and >= {low:g}, got {number}")


def _check_names(mask: str, reduction: str) -> None:
    if mask not in ("ge", "gt"):
        raise ValueError(f"mask must be 'ge' or 'gt', got {mask!r}")
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"reduction must be 'mean', 'sum' or 'none', got {reduction!r}")


def _check_teacher(teacher: Tensor, loss: Tensor) -> None:
    """Raise ValueError if a NaN or infinite loss (on CPU) comes from the teacher."""
    if loss.device.type != "cpu" or torch.compiler.is_compiling():
        return
    if math.isfinite(loss.detach().sum().item()):
        return
    broken = (~teacher.isfinite()).any(1).nonzero()
    if len(broken):
        raise ValueError(f"teacher_logits hold NaN or infinity, first in sample {int(broken[0])}")
