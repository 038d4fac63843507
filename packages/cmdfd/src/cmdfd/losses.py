"""Correlation distillation: how alike voice and mouth are should follow what they say.

Speech recognisers give per-frame posteriors of what is heard, p_A, and what is seen, p_V. Their
agreement r = 1 - D(p_A, p_V) is the soft target of the cosine of the student's embeddings
(specification section 3.5; arXiv 2404.19171).
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Target = Literal["js", "jeffreys"]
Distill = Literal["all", "real"]
OverTime = Literal["mean", "sum"]

_LEAST = 1e-30  # of a probability, so that 1 / p and log p stay finite in float32


def correlation_distillation_loss(
    audio: Tensor,
    visual: Tensor,
    audio_posterior: Tensor,
    visual_posterior: Tensor,
    labels: Tensor,
    *,
    target: Target = "js",
    distill: Distill = "all",
    over_time: OverTime = "mean",
    w_dist: float = 1.0,
    w_con: float = 1.0,
) -> Tensor:
    """Return ``w_dist * L_dist + w_con * L_con``, what the paper adds to the cross-entropy.

    Args:
        audio: embeddings a', any float dtype, shape (B, T, D).
        visual: embeddings v', shape (B, T, D).
        audio_posterior: p_A, rows sum to 1, shape (B, T, K).
        visual_posterior: p_V, shape (B, T, K).
        labels: 0 real, 1 fake, shape (B,).
        target: see `correlation_target`.
        distill: see `distillation_loss`.
        over_time: see `contrastive_loss`.
        w_dist: weight of `distillation_loss`. Paper: 1.
        w_con: weight of `contrastive_loss`. Paper: 1.

    Returns:
        float32 (float64 for float64 embeddings) scalar >= 0.

    Raises:
        ValueError: shapes do not match, or an unknown way.

    Example:
        >>> a, p = torch.ones(1, 2, 4), torch.full((1, 2, 8), 1 / 8)
        >>> correlation_distillation_loss(a, a, p, p, torch.tensor([0]))
        tensor(0.2500)
    """
    s = correlation(audio, visual)
    r = correlation_target(audio_posterior, visual_posterior, target=target)
    return w_dist * distillation_loss(s, r, labels, distill=distill) + w_con * contrastive_loss(
        s, r, labels, over_time=over_time
    )


def correlation(audio: Tensor, visual: Tensor) -> Tensor:
    """Return how alike both embeddings are in each frame: s = (cos + 1) / 2.

    Args:
        audio: float, shape (..., D).
        visual: float, shape (..., D).

    Returns:
        at least float32, shape (...), in [0, 1].

    Raises:
        ValueError: shapes differ.
    """
    if audio.shape != visual.shape:
        raise ValueError(
            f"audio and visual must have one shape, got {tuple(audio.shape)} and "
            f"{tuple(visual.shape)}"
        )
    return ((F.cosine_similarity(_wide(audio), _wide(visual), dim=-1) + 1) / 2).clamp(0, 1)


def correlation_target(
    audio_posterior: Tensor, visual_posterior: Tensor, *, target: Target = "js"
) -> Tensor:
    """Return how far both recognisers agree in each frame: r = 1 - D, clamped to [0, 1].

    Args:
        audio_posterior: p_A, shape (..., K).
        visual_posterior: p_V, shape (..., K).
        target: D: ``js``, `jensen_shannon` in bits; ``jeffreys``, the official code's
            `jeffreys_divergence`, which hardly varies for soft posteriors.

    Returns:
        at least float32, shape (...), in [0, 1].

    Raises:
        ValueError: shapes differ, or an unknown target.
    """
    if target not in ("js", "jeffreys"):
        raise ValueError(f"target must be js or jeffreys, got {target!r}")
    divergence = jensen_shannon if target == "js" else jeffreys_divergence
    return (1 - divergence(audio_posterior, visual_posterior)).clamp(0, 1)


def jensen_shannon(p: Tensor, q: Tensor, *, unit: Literal["bits", "nats"] = "bits") -> Tensor:
    """Return the Jensen-Shannon divergence of distributions over the last axis.

    ``(KL(p, m) + KL(q, m)) / 2`` with ``m = (p + q) / 2``.

    Args:
        p: >= 0, rows sum to 1, float, shape (..., K).
        q: likewise.
        unit: of the result; 1 bit is ln 2 nats.

    Returns:
        at least float32, shape (...), in [0, 1] bits. Its gradients are finite everywhere.

    Raises:
        ValueError: shapes differ, or an unknown unit.

    Example:
        >>> jensen_shannon(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]))
        tensor(1.)
    """
    if unit not in ("bits", "nats"):
        raise ValueError(f"unit must be bits or nats, got {unit!r}")
    p, q = _distributions(p, q)
    log_m = ((p + q) / 2).log()
    nats = (p * (p.log() - log_m) + q * (q.log() - log_m)).sum(-1) / 2
    nats = nats.clamp(0, math.log(2))
    return (nats / math.log(2)).clamp(max=1) if unit == "bits" else nats


def jeffreys_divergence(p: Tensor, q: Tensor, *, eps: float = 1e-10) -> Tensor:
    """Return what the official code takes: half the symmetrised KL, averaged over the classes.

    ``1/2 mean_c[p log(p/q + eps) + q log(q/p + eps)]``: in nats, without upper bound. Where the
    official code is infinite or NaN, because a posterior underflows, this is large and finite.

    Args:
        p: >= 0, rows sum to 1, float, shape (..., K).
        q: likewise.
        eps: inside the logarithm.

    Returns:
        at least float32, shape (...).

    Raises:
        ValueError: shapes differ.
    """
    p, q = _distributions(p, q)
    # log(p/q + eps), without the quotient, which overflows
    terms = p * ((p + eps * q).log() - q.log()) + q * ((q + eps * p).log() - p.log())
    return terms.mean(-1) / 2


def distillation_loss(s: Tensor, r: Tensor, labels: Tensor, *, distill: Distill = "all") -> Tensor:
    """Return L_dist: the mean binary cross-entropy of correlation and target over all frames.

    Args:
        s: correlations in [0, 1], float, shape (B, T).
        r: targets in [0, 1], float, shape (B, T).
        labels: 0 real, 1 fake, shape (B,).
        distill: ``all`` clips, as in the paper's code, or the ``real`` ones; without any it is 0.

    Returns:
        at least float32, scalar.

    Raises:
        ValueError: shapes do not match, or an unknown value of distill.
    """
    _check_frames(s, r, labels)
    if distill not in ("all", "real"):
        raise ValueError(f"distill must be all or real, got {distill!r}")
    s, r = _wide(s), _wide(r)
    least = torch.finfo(s.dtype).eps
    s = s.clamp(least, 1 - least)
    losses = -(r * s.log() + (1 - r) * torch.log1p(-s))
    if distill == "all":
        return losses.mean()
    real = (labels == 0).to(losses.dtype)
    return (losses.mean(1) * real).sum() / real.sum().clamp(min=1)


def contrastive_loss(
    s: Tensor, r: Tensor, labels: Tensor, *, over_time: OverTime = "mean", eps: float = 1e-12
) -> Tensor:
    """Return L_con: real clips must follow the target, fake ones must not.

    ``mean_b[(1 - y) e^2 + y max(0, 1 - e)^2]`` with ``e = sigmoid(sqrt(mean_t (r - s)^2 + eps))``.
    As e is in [0.5, 1), it is >= 0.25 for real clips and <= 0.25 for fake ones.

    Args:
        s: correlations in [0, 1], float, shape (B, T).
        r: targets in [0, 1], float, shape (B, T).
        labels: y, 0 real, 1 fake, shape (B,).
        over_time: ``sum`` is the official code's, which grows with the length of the clip.
        eps: keeps the root's gradient finite where s = r.

    Returns:
        at least float32, scalar.

    Raises:
        ValueError: shapes do not match, or an unknown value of over_time.
    """
    _check_frames(s, r, labels)
    if over_time not in ("mean", "sum"):
        raise ValueError(f"over_time must be mean or sum, got {over_time!r}")
    squares = (_wide(r) - _wide(s)).square()
    e = torch.sigmoid(((squares.mean(1) if over_time == "mean" else squares.sum(1)) + eps).sqrt())
    return torch.where(labels == 0, e.square(), (1 - e).square()).mean()


def frame_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return L_ce: the cross-entropy of per-frame logits, each frame with its clip's label.

    Args:
        logits: any float dtype, shape (B, T, 2).
        labels: 0 real, 1 fake, int64, shape (B,).

    Returns:
        at least float32, scalar.

    Raises:
        ValueError: shapes do not match.
    """
    if logits.ndim != 3 or logits.shape[2] != 2 or labels.shape != logits.shape[:1]:
        raise ValueError(
            f"logits must be (B, T, 2) and labels (B,), got {tuple(logits.shape)} and "
            f"{tuple(labels.shape)}"
        )
    repeated = labels[:, None].expand(logits.shape[:2])
    return F.cross_entropy(_wide(logits).flatten(0, 1), repeated.flatten())


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _distributions(p: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
    if p.shape != q.shape or p.ndim < 1:
        raise ValueError(
            f"posteriors must have one shape (..., K), got {tuple(p.shape)} and {tuple(q.shape)}; "
            "both teachers need the same classes and frames"
        )
    return _wide(p).clamp(min=_LEAST), _wide(q).clamp(min=_LEAST)


def _check_frames(s: Tensor, r: Tensor, labels: Tensor) -> None:
    if s.ndim != 2 or r.shape != s.shape or labels.shape != s.shape[:1]:
        raise ValueError(
            f"correlations and targets must be (B, T) and labels (B,), got {tuple(s.shape)}, "
            f"{tuple(r.shape)} and {tuple(labels.shape)}"
        )
