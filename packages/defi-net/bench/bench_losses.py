"""Losses and edge labels against the same formulas written plainly.

``python -m pytest packages/defi-net/bench/bench_losses.py -s --device cpu`` (or cuda). The CPU part
uses one thread. Values and gradients are tested; times and memory are only printed.
"""

from __future__ import annotations

import pytest
import torch
from defi_net.edges import edge_label
from defi_net.losses import structure_loss
from papercommons.testing.timing import compare_speed, peak_memory
from torch.nn import functional as F


def plain_structure_loss(logits, masks):
    means = F.avg_pool2d(masks, 31, stride=1, padding=15)
    weights = 1 + 5 * (means - masks).abs()
    bce = F.binary_cross_entropy_with_logits(logits, masks, reduction="none")
    bce = (weights * bce).sum((2, 3)) / weights.sum((2, 3))
    p = torch.sigmoid(logits)
    inter, union = (p * masks * weights).sum((2, 3)), ((p + masks) * weights).sum((2, 3))
    return (bce + 1 - (inter + 1) / (union - inter + 1)).mean()


def plain_edge_label(masks):
    return masks * F.max_pool2d(1 - masks, 5, stride=1, padding=2)


@pytest.fixture(autouse=True)
def _one_thread(device):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("name", ["structure loss + gradient", "edge label"])
def test_losses(name, device, record):
    torch.manual_seed(0)
    count = 16 if device.type == "cuda" else 4
    noise = F.avg_pool2d(torch.randn(count, 1, 352, 352, device=device), 31, 1, 15)
    masks = (noise > 0).float()
    logits = torch.randn(masks.shape, device=device, requires_grad=True)

    def loss_and_gradient(function):
        loss = function()
        return loss, torch.autograd.grad(loss, logits)[0]

    if name == "edge label":

        def ours():
            return edge_label(masks)

        def plain():
            return plain_edge_label(masks)
    else:

        def ours():
            return loss_and_gradient(lambda: structure_loss(logits, masks, bce="weighted"))

        def plain():
            return loss_and_gradient(lambda: plain_structure_loss(logits, masks))

    torch.testing.assert_close(ours(), plain(), rtol=1e-4, atol=1e-6)
    speed = compare_speed(ours, plain, rounds=5)
    memory = [peak_memory(function, device) / 2**20 for function in (ours, plain)]
    record(
        measured=name,
        size=f"{count} x 1 x 352 x 352",
        ours=f"{1e3 * speed.ours_s:.1f} ms, {memory[0]:.0f} MiB",
        plain=f"{1e3 * speed.reference_s:.1f} ms, {memory[1]:.0f} MiB",
        **speed.ratios(),
        memory=round(memory[0] / memory[1], 3),
    )
