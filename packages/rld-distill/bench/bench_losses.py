"""`rld_loss` forward and backward against the same equations written plainly with autograd.

``python -m pytest packages/rld-distill/bench/bench_losses.py -s --device cpu`` (or cuda). The CPU
part uses one thread. Values and gradients are tested; times and memory are only printed.
"""

from __future__ import annotations

import pytest
import torch
from papercommons.testing.timing import compare_speed, peak_memory
from rld_distill.losses import RLDLoss, rld_loss
from torch.nn import functional as F

SIZES = ((64, 100), (512, 1000), (256, 21841))
TAU, BETA = 4.0, 8.0


def plain_loss(student, teacher, target):
    s, t = F.softmax(student / TAU, dim=1), F.softmax(teacher / TAU, dim=1)
    true = torch.zeros_like(s).scatter_(1, target[:, None], 1).bool()
    top = torch.zeros_like(t).scatter_(1, t.argmax(1, keepdim=True), 1).bool()
    pair_s = torch.stack([(s * true).sum(1), (s * ~true).sum(1)], 1)
    pair_t = torch.stack([(t * top).sum(1), (t * ~top).sum(1)], 1)
    scd = F.kl_div(pair_s.log(), pair_t, reduction="batchmean") * TAU**2
    masked = teacher >= teacher.gather(1, target[:, None])
    below_s = F.log_softmax((student / TAU).masked_fill(masked, -1e9), dim=1)
    below_t = F.softmax((teacher / TAU).masked_fill(masked, -1e9), dim=1)
    return scd + BETA * F.kl_div(below_s, below_t, reduction="batchmean") * TAU**2


def terms_loss(student, teacher, target):
    return RLDLoss(temperature=TAU, beta=BETA).terms(student, teacher, target).loss


def batch(size, device, dtype=torch.float32):
    """Return logits and labels; the teacher is right about 80 % of the samples."""
    generator = torch.Generator().manual_seed(0)
    student = 2 * torch.randn(size, generator=generator)
    teacher = 3 * torch.randn(size, generator=generator)
    first, second = teacher.topk(2, dim=1).indices.T
    target = torch.where(torch.rand(size[0], generator=generator) < 0.8, first, second)
    student, teacher = student.to(device, dtype), teacher.to(device, dtype)
    return student.requires_grad_(), teacher, target.to(device)


@pytest.fixture(autouse=True)
def _one_thread(device):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize(
    ("name", "loss"), [("rld_loss", rld_loss), ("RLDLoss.terms", terms_loss)], ids=["loss", "terms"]
)
def test_loss(name, loss, size, device, record):
    student, teacher, target = batch(size, device)

    def ours():
        value = loss(student, teacher, target)
        return value, *torch.autograd.grad(value, student)

    def plain():
        value = plain_loss(student, teacher, target)
        return value, *torch.autograd.grad(value, student)

    torch.testing.assert_close(ours(), plain(), rtol=2e-5, atol=1e-8)
    speed = compare_speed(ours, plain, rounds=15)
    memory = [peak_memory(function, device) / 2**20 for function in (ours, plain)]
    record(
        measured=name,
        size=str(size),
        ours=f"{1e3 * speed.ours_s:.2f} ms",
        plain=f"{1e3 * speed.reference_s:.2f} ms",
        **speed.ratios(),
        memory=round(memory[0] / memory[1], 2),
    )
