"""DINO: a student's crops agree with a teacher's whole views (Caron et al. 2021; section 3.3)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ssl_hv.gather import gather
from ssl_hv.objectives.checks import check_temperature
from ssl_hv.objectives.joint_embedding import JointEmbedding, spread
from ssl_hv.objectives.momentum import cosine_schedule, momentum_copy, update_momentum
from ssl_hv.objectives.precision import in_float32
from ssl_hv.objectives.projection import DINOHead


@in_float32
def dino_loss(
    teacher: Tensor,
    student: Tensor,
    center: Tensor,
    *,
    teacher_temperature: float = 0.04,
    student_temperature: float = 0.1,
) -> Tensor:
    """Return the mean cross-entropy H(teacher, student) over images and pairs of unlike views.

    ``H(softmax((g_t - c) / tau_t), softmax(g_s / tau_s))`` for every teacher view t and student
    view s != t.

    Args:
        teacher: outputs for T global views, any float dtype, shape (T, N, K); gets no gradient.
        student: outputs for S views, shape (S, N, K), S >= 2, the first T of the same views.
        center: c, shape (K,).
        teacher_temperature: tau_t > 0. Paper: 0.04.
        student_temperature: tau_s > 0. Paper: 0.1.

    Returns:
        Scalar >= 0, float32 (float64 for float64).

    Raises:
        ValueError: the shapes do not match or a temperature is <= 0.
    """
    check_temperature(teacher_temperature)
    check_temperature(student_temperature)
    views, others = len(teacher), len(student)
    if student.shape[1:] != teacher.shape[1:] or others < max(views, 2) or center.ndim != 1:
        raise ValueError(
            "teacher (T, N, K), student (S, N, K) with S >= max(T, 2) and center (K,) expected, "
            f"got {tuple(teacher.shape)}, {tuple(student.shape)} and {tuple(center.shape)}"
        )
    targets = ((teacher.detach() - center) / teacher_temperature).softmax(2)
    log_student = (student / student_temperature).log_softmax(2)
    entropy = -targets.flatten(1) @ log_student.flatten(1).T  # (T, S), summed over images
    pairs = views * (others - 1)
    return (entropy.sum() - entropy.diagonal().sum()) / (pairs * teacher.shape[1])


@torch.no_grad()
def moved_center(center: Tensor, teacher: Tensor, *, momentum: float = 0.9) -> Tensor:
    """Return ``m * c + (1 - m) * mean of the teacher's outputs`` over all views and processes.

    Args:
        center: c, shape (K,).
        teacher: outputs of this process, shape (T, N, K), the same N on every process.
        momentum: m in [0, 1]. Paper: 0.9.
    """
    mean = gather(teacher.mean((0, 1))[None].to(center.dtype)).mean(0)
    return momentum * center + (1 - momentum) * mean


class DINO(JointEmbedding):
    """DINO with two global views, then six local ones (of one size, which may be smaller).

    Args:
        encoder: see `JointEmbedding`; it must take both sizes. It is the student's.
        hidden_dim: width of the head's two hidden layers.
        bottleneck_dim: width of its unit rows.
        prototypes: K, its outputs.
        teacher_temperature: tau_t > 0.
        student_temperature: tau_s > 0.
        momentum: m in [0, 1] of the teacher at the start; it goes to 1 on half a cosine.
        center_momentum: m in [0, 1] of the centre.
        frozen: share of the training in which the prototypes of the student stay, in [0, 1].
            Paper: the first of 100 epochs.
    """

    local_views = 6
    center: Tensor

    def __init__(
        self,
        encoder: nn.Module,
        *,
        hidden_dim: int = 512,
        bottleneck_dim: int = 64,
        prototypes: int = 2048,
        teacher_temperature: float = 0.04,
        student_temperature: float = 0.1,
        momentum: float = 0.996,
        center_momentum: float = 0.9,
        frozen: float = 0.01,
    ):
        super().__init__(encoder)
        check_temperature(teacher_temperature)
        check_temperature(student_temperature)
        self.head = DINOHead(
            self.dim, hidden_dim, hidden_dim, bottleneck_dim, prototypes=prototypes
        )
        self.teacher_encoder = momentum_copy(self.encoder)
        self.teacher_head = momentum_copy(self.head)
        self.register_buffer("center", torch.zeros(prototypes))
        self.temperatures = (teacher_temperature, student_temperature)
        self.momentum, self.center_momentum = momentum, center_momentum
        self.frozen = frozen
        self.head.set_frozen(frozen > 0)

    def forward(self, views: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return "loss" and "spread" of 2 + 6 views, each (N, C, H, W).

        In training the centre then moves towards the teacher's outputs.
        """
        self.check(views)
        whole, local = torch.cat(list(views[:2])), torch.cat(list(views[2:]))
        h = self.encoder(whole)
        student = torch.cat([self.head(h), self.head(self.encoder(local))])
        with torch.no_grad():
            teacher = self.teacher_head(self.teacher_encoder(whole)).unflatten(0, (2, -1))
        loss = dino_loss(
            teacher,
            student.unflatten(0, (len(views), -1)),
            self.center,
            teacher_temperature=self.temperatures[0],
            student_temperature=self.temperatures[1],
        )
        if self.training:
            self.center.copy_(moved_center(self.center, teacher, momentum=self.center_momentum))
        return {"loss": loss, "spread": spread(h)}

    def update(self, progress: float) -> None:
        """Let the teacher follow, the less the further the training is; free the prototypes."""
        momentum = cosine_schedule(progress, self.momentum, 1.0)
        update_momentum(self.teacher_encoder, self.encoder, momentum)
        update_momentum(self.teacher_head, self.head, momentum)
        self.head.set_frozen(progress < self.frozen)
