"""The network against the same weights applied plainly, as section 3's formulas read.

``python -m pytest packages/defi-net/bench/bench_network.py -s --device cpu`` (or cuda). Plainly:
maps are upsampled, concatenated and convolved, in the default memory format and float32. Ours:
coarser maps are convolved before they are upsampled, channels last, and on CUDA bfloat16 beside
float32. The backbone is the same. The CPU part uses one thread. Values and gradients are tested;
times and memory are only printed.
"""

from __future__ import annotations

import copy

import pytest
import torch
from defi_net.edges import edge_label
from defi_net.losses import boundary_loss, structure_loss
from defi_net.model import DeFINet
from papercommons.testing.timing import compare_speed, peak_memory
from torch.nn import functional as F


def up(x, like):
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)


def down(x):
    return F.max_pool2d(x, 3, stride=2, padding=1)


def joined(conv, *maps):
    return conv(torch.cat([x if x.shape == maps[0].shape else up(x, maps[0]) for x in maps], 1))


def plain_neck(neck, maps):
    c1, c2, c3, c4 = (conv(x) for conv, x in zip(neck.top_down.reduce, maps, strict=True))
    p1, p2, p3, p4 = neck.top_down.mix
    t4 = joined(p4, down(c3), c4)
    t3 = joined(p3, down(c2), c3, c4, t4)
    t2 = joined(p2, down(c1), c2, c3, t3)
    t1 = joined(p1, c1, c2, t2)
    t1, t2, t3, t4 = (f(t) for f, t in zip(neck.top_down.smooth, (t1, t2, t3, t4), strict=True))
    q1, q2, q3, q4 = neck.bottom_up.mix
    b1 = joined(q1, t1, t2)
    b2 = joined(q2, down(b1), down(t1), t2, t3)
    b3 = joined(q3, down(b2), down(t2), t3, t4)
    b4 = joined(q4, down(b3), down(t3), t4)
    fused = [f(b) for f, b in zip(neck.bottom_up.smooth, (b1, b2, b3, b4), strict=True)]
    return [f(torch.cat(pair, 1)) for f, *pair in zip(neck.output, maps, fused, strict=True)]


def plain_head(head, maps):
    low1, low2, mid, high = maps
    ream, saff = head.ream, head.saff
    fused = F.relu(up(ream.mid(mid), low2) + ream.low2(low2))
    fused = F.relu(up(ream.fused(fused), low1) + ream.low1(low1))
    pooled = torch.cat([mid.mean(1, keepdim=True), mid.max(1, keepdim=True).values], 1)
    edge = ream.edge_head(fused * up(1 - torch.sigmoid(ream.attention(pooled)), low1))
    weights = saff.learner(saff.prior(high)).unflatten(1, (2, 2))
    layers = torch.stack([saff.high(high), saff.low_mid(fused)], 2)
    return edge, saff.classifier((weights * layers).sum(2))


def plain_forward(model, images):
    return plain_head(model.head, plain_neck(model.neck, model.backbone(images)))


@pytest.fixture(autouse=True)
def _one_thread(device):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def outcome(network, function, backward):
    """Outputs, or the gradients of both losses where `backward`."""
    with torch.set_grad_enabled(backward):
        outputs = function()
    if not backward:
        return outputs
    if len(outputs) == 2:
        edge, mask = outputs
        masks = torch.zeros_like(mask)
        masks[..., : mask.shape[-1] // 3] = 1
        loss = 5 * structure_loss(mask, masks) + boundary_loss(edge, edge_label(masks))
    else:
        loss = sum(x.square().mean() for x in outputs)
    return torch.autograd.grad(loss, list(network.parameters()))


def test_values_and_gradients():
    torch.manual_seed(0)
    model, images = DeFINet("hrnet_tiny", 8).double(), torch.randn(2, 3, 32, 32).double()
    for backward in (False, True):
        ours = outcome(model, lambda: model(images), backward)
        plain = outcome(model, lambda: plain_forward(model, images), backward)
        torch.testing.assert_close(ours, plain)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("part", ["neck", "network"])
@pytest.mark.parametrize("backward", [False, True], ids=["inference", "training step"])
def test_network(backward, part, precision, device, record):
    if device.type == "cpu" and precision == "bfloat16":
        pytest.skip("bfloat16 is for CUDA here")
    torch.manual_seed(0)
    count, size = (4, 352) if device.type == "cuda" else (1, 128)
    model = DeFINet().to(device).train(backward)
    plain_model = copy.deepcopy(model).to(memory_format=torch.contiguous_format)
    images = torch.randn(count, 3, size, size, device=device)
    with torch.no_grad():
        maps = plain_model.backbone(images)
    last = [x.contiguous(memory_format=torch.channels_last) for x in maps]

    def ours():
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            if part == "neck":
                return outcome(model.neck, lambda: model.neck(last), backward)
            return outcome(model, lambda: model(images), backward)

    def plain():
        if part == "neck":
            return outcome(plain_model.neck, lambda: plain_neck(plain_model.neck, maps), backward)
        return outcome(plain_model, lambda: plain_forward(plain_model, images), backward)

    speed = compare_speed(ours, plain, rounds=3)
    memory = [peak_memory(function, device) / 2**20 for function in (ours, plain)]
    record(
        measured=f"{part}, {'training step' if backward else 'inference'}, {precision}",
        size=f"{count} x 3 x {size} x {size}",
        ours=f"{1e3 * speed.ours_s:.0f} ms, {memory[0]:.0f} MiB",
        plain=f"{1e3 * speed.reference_s:.0f} ms, {memory[1]:.0f} MiB",
        **speed.ratios(),
        memory=round(memory[0] / memory[1], 3),
    )
