"""One training step resnet32x4 -> resnet8x4 with RLD, against the same step written plainly.

``python -m pytest packages/rld-distill/bench/bench_step.py -s --device cuda``. Ours: teacher under
`torch.inference_mode`, channels last, `rld_loss`. Plain: teacher under `torch.no_grad`, contiguous,
the paper's formulas one after another. Both: batch 64 of 32x32, SGD. Times are printed, not tested.
"""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from papercommons.testing.timing import compare_speed
from rld_distill.losses import rld_loss
from rld_distill.zoo import create_model
from torch.nn import functional as F

BATCH, CLASSES, TAU = 64, 100, 4.0


def plain_loss(student, teacher, target):
    p, q = (F.softmax(logits / TAU, dim=1) for logits in (student, teacher))
    p_true, q_top = p.gather(1, target[:, None]).squeeze(1), q.max(dim=1).values
    p_pair = torch.stack((p_true, 1 - p_true), dim=1)
    q_pair = torch.stack((q_top, 1 - q_top), dim=1)
    scd = TAU**2 * F.kl_div(p_pair.log(), q_pair, reduction="batchmean")
    masked = teacher >= teacher.gather(1, target[:, None])
    p_rest, q_rest = ((logits / TAU).masked_fill(masked, -1e9) for logits in (student, teacher))
    mcd = TAU**2 * F.kl_div(
        F.log_softmax(p_rest, dim=1), F.softmax(q_rest, dim=1), reduction="batchmean"
    )
    return scd + 8 * mcd


def training_step(device, *, ours, precision="fp32"):
    """Return a function that makes one training step on a fixed batch."""
    layout = torch.channels_last if ours else torch.contiguous_format
    torch.manual_seed(0)
    teacher = create_model("resnet32x4", CLASSES).eval().to(device, memory_format=layout)
    student = create_model("resnet8x4", CLASSES).train().to(device, memory_format=layout)
    images = torch.randn(BATCH, 3, 32, 32).to(device, memory_format=layout)
    target = torch.randint(CLASSES, (BATCH,)).to(device)
    sgd = torch.optim.SGD(student.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)

    def step():
        half = torch.autocast(device.type, dtype=torch.bfloat16)
        with half if precision == "bf16" else nullcontext():
            with torch.inference_mode() if ours else torch.no_grad():
                teacher_logits = teacher(images)
            logits = student(images)
        if ours:
            distill = rld_loss(logits, teacher_logits.clone(), target)
        else:
            distill = plain_loss(logits, teacher_logits, target)
        sgd.zero_grad()
        (F.cross_entropy(logits.float(), target) + distill).backward()
        sgd.step()

    return step


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_step(device, precision, record):
    speed = compare_speed(
        training_step(device, ours=True, precision=precision),
        training_step(device, ours=False),
        rounds=30 if device.type == "cuda" else 7,
    )
    record(
        measured=f"training step, {precision}",
        size=f"{BATCH} x 32 x 32",
        ours=f"{1e3 * speed.ours_s:.1f} ms",
        plain=f"{1e3 * speed.reference_s:.1f} ms",
        **speed.ratios(),
        memory=None,
    )
