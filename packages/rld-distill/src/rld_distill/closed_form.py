"""RLD's value and its gradient in one pass, for `rld_distill.losses`.

With p for the student and q for the teacher, the derivatives by student logits are

- SCD: ``tau (p - q)`` for the true class, ``-tau (p - q) softmax_i / (1 - p)`` for the others;
- MCD: ``tau (p_i - q_i)`` for unmasked classes, 0 for masked ones.

So no graph is kept, and all large intermediate values are chunks of rows that stay in cache.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

LOG2_E = math.log2(math.e)  # softmaxes are in base 2: on a CPU exp2 takes 0.4 times as long as exp
HIDDEN = -1e30  # a logit that no class can have: it absorbs what is added to it
CPU_CHUNK, GPU_CHUNK = 2**17, 2**21  # logits worked on at once: small buffers that stay in cache


def sample_confidence(
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

    Args:
        student: logits, float32 or float64, shape (B, C).
        teacher: likewise.
        target: true classes, int64, shape (B,).
        tau: > 0.
        weight: of the derivative.
        gradient: it is added to this, shape (B, C).
        buffers: one or more of shape (B, C), written over.

    Returns:
        Shape (B,).
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


def masked_correlation(
    student: Tensor,
    teacher: Tensor,
    target: Tensor,
    tau: float,
    mask: str,
    weight: float,
    gradient: Tensor,
    buffers: list[Tensor],
) -> Tensor:
    """Return KL(q || p) of unmasked softmaxes per sample; write weight * (p - q) to `gradient`.

    Where all classes are masked both softmaxes are uniform: 0 and 0.

    Args:
        student: logits, float32 or float64, shape (B, C).
        teacher: likewise.
        target: true classes, int64, shape (B,).
        tau: > 0.
        mask: ge or gt: which classes are left out beside the true one.
        weight: of the derivative.
        gradient: written over, shape (B, C).
        buffers: three of shape (B, C), written over.

    Returns:
        Shape (B,).
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


class RefinedLogits(torch.autograd.Function):
    """``alpha * SCD + beta * MCD`` per sample, and both terms, unweighted and without gradient.

    The gradient is found on the way, a chunk of rows at a time. A chunk has four buffers of its
    size in float32 or float64; the gradient is the only full one.
    """

    @staticmethod
    def forward(
        ctx: Any, student: Tensor, teacher: Tensor, target: Tensor, options: Any
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the loss and the terms, each of shape (B,); see `rld_loss` for the arguments."""
        alpha, beta, tau_scd, tau, mask, needs_gradient = options
        work = torch.promote_types(torch.promote_types(student.dtype, teacher.dtype), torch.float32)
        # float16 would flush small gradients to 0 before a loss scaler can lift them
        keep = work if student.dtype == torch.float16 else student.dtype
        scd, mcd = student.new_zeros((2, len(student)), dtype=work)
        saved = torch.empty_like(student, dtype=keep) if needs_gradient else None
        chunks = _chunks(student)
        scratch = student.new_empty((4, *student[chunks[0]].shape), dtype=work)
        for rows in chunks:
            s, t, y = student[rows].to(work), teacher[rows].to(work), target[rows]
            gradient, *buffers = scratch[:, : len(s)]
            if beta:
                mcd[rows] = masked_correlation(s, t, y, tau, mask, beta * tau, gradient, buffers)
            else:
                gradient.zero_()
            if alpha:
                scd[rows] = sample_confidence(s, t, y, tau_scd, alpha * tau_scd, gradient, buffers)
            if saved is not None:
                saved[rows] = gradient
        if saved is not None:
            ctx.save_for_backward(saved)
        ctx.dtype = student.dtype
        scd, mcd = scd.clamp(min=0) * tau_scd**2, mcd.clamp(min=0) * tau**2
        ctx.mark_non_differentiable(scd, mcd)
        return alpha * scd + beta * mcd, scd, mcd

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor, *unused: Tensor) -> tuple[Tensor, None, None, None]:
        """Return the gradient of the student's logits, (B, C), for that of the loss, (B,)."""
        (gradient,) = ctx.saved_tensors
        scaled = torch.empty_like(gradient, dtype=ctx.dtype)
        for rows in _chunks(gradient):
            torch.mul(gradient[rows], grad_loss[rows, None], out=scaled[rows])
        return scaled, None, None, None


def _chunks(logits: Tensor) -> list[slice]:
    if torch.compiler.is_compiling():  # the compiler fuses by itself
        return [slice(None)]
    chunk = GPU_CHUNK
    if logits.device.type == "cpu":
        chunk = CPU_CHUNK * max(1, torch.get_num_threads() // 4)  # torch gives a thread 2**15
    step = max(1, chunk // logits.shape[1])
    return [slice(start, start + step) for start in range(0, logits.shape[0], step)]
