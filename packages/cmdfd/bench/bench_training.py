"""A training step against the same step written plainly, and the memory of the 3-D front end.

``python -m pytest packages/cmdfd/bench/bench_training.py -s --device cpu`` (or cuda). The CPU part
uses one thread. Values and gradients are tested; times and memory are only printed.
"""

from __future__ import annotations

import math

import pytest
import torch
from cmdfd.losses import correlation_distillation_loss, frame_cross_entropy
from cmdfd.model import CMDFDNet
from cmdfd.visual import VisualFrontend, normalised
from papercommons.testing.timing import compare_speed, peak_memory

SIZES = {"cpu": (4, 25, 64, 16), "cuda": (16, 75, 112, 64)}  # clips, frames, pixels, width
CLASSES = 40


@pytest.fixture(autouse=True)
def _one_thread(device):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def plain_output(net, mfcc, frames):
    """Return logits and embeddings; the 3-D convolution takes one clip after the other."""
    front = net.visualFrontend
    maps = [front.frontend3D[0](clip[None, None]) for clip in normalised(frames)]
    pooled = front.frontend3D[1:](torch.cat(maps))
    features = front.resnet(pooled.transpose(1, 2).flatten(0, 1)).unflatten(0, frames.shape[:2])
    v = net.visualConv1D(net.visualTCN(features.transpose(1, 2))).transpose(1, 2)
    a = net.embed_audio(mfcc)
    audio, visual = net.crossA2V(src=a, tar=v), net.crossV2A(src=v, tar=a)
    return net.lossAV(net.back_end(audio, visual)), audio, visual


def plain_loss(logits, audio, visual, heard, seen, labels):
    """Return the loss as its formulas read, frame by frame."""
    total = 0
    for b, label in enumerate(labels):
        squares = 0
        for t in range(logits.shape[1]):
            log_odds = logits[b, t].logsumexp(0) - logits[b, t, label]
            a, v = audio[b, t], visual[b, t]
            s = ((a @ v) / (a.norm() * v.norm()) + 1) / 2
            p, q = heard[b, t], seen[b, t]
            m = (p + q) / 2
            divergence = ((p * (p / m).log()).sum() + (q * (q / m).log()).sum()) / 2
            r = 1 - divergence / math.log(2)
            bce = -(r * s.log() + (1 - r) * (1 - s).log())
            total = total + (log_odds + bce) / logits.shape[1]
            squares = squares + (r - s) ** 2 / logits.shape[1]
        e = torch.sigmoid((squares + 1e-12).sqrt())
        total = total + (e**2 if label == 0 else (1 - e) ** 2)
    return total / len(labels)


def test_step(device, record):
    clips, frames, side, width = SIZES[torch.device(device).type]
    torch.manual_seed(0)
    net = CMDFDNet(64, width, dropout=0.0).to(device)
    mfcc = torch.randn(clips, 4 * frames, 13, device=device)
    pictures = torch.randint(0, 256, (clips, frames, side, side), device=device).float()
    heard, seen = torch.randn(2, clips, frames, CLASSES, device=device).softmax(-1)
    labels = torch.arange(clips, device=device) % 2
    inputs = [p for p in net.parameters() if p.requires_grad]

    def ours():
        out = net(mfcc, pictures)
        loss = frame_cross_entropy(out.logits, labels) + correlation_distillation_loss(
            out.audio, out.visual, heard, seen, labels
        )
        return loss, *torch.autograd.grad(loss, inputs)

    def plain():
        loss = plain_loss(*plain_output(net, mfcc, pictures), heard, seen, labels.tolist())
        return loss, *torch.autograd.grad(loss, inputs)

    found, expected = ours(), plain()
    torch.testing.assert_close(found[0], expected[0], rtol=1e-4, atol=1e-5)
    most = max(float(gradient.abs().max()) for gradient in expected[1:])
    torch.testing.assert_close(found[1:], expected[1:], rtol=0.02, atol=2e-3 * most)
    speed = compare_speed(ours, plain, rounds=3)
    memory = [peak_memory(function, device) / 2**20 for function in (ours, plain)]
    record(
        measured="training step, loss + gradients, against loops over clips and frames",
        size=f"B = {clips}, T = {frames}, {side} x {side}, width {width}",
        ours=f"{1e3 * speed.ours_s:.0f} ms, {memory[0]:.0f} MiB",
        plain=f"{1e3 * speed.reference_s:.0f} ms, {memory[1]:.0f} MiB",
        **speed.ratios(),
        memory=round(memory[0] / memory[1], 3),
    )


def test_losses(device, record):
    clips, frames, classes = 8, 75, CLASSES
    torch.manual_seed(0)
    audio, visual = torch.randn(2, clips, frames, 128, device=device).requires_grad_()
    heard, seen = torch.randn(2, clips, frames, classes, device=device).softmax(-1)
    logits = torch.randn(clips, frames, 2, device=device, requires_grad=True)
    labels = torch.arange(clips, device=device) % 2
    inputs = [audio, visual, logits]

    def ours():
        loss = frame_cross_entropy(logits, labels) + correlation_distillation_loss(
            audio, visual, heard, seen, labels
        )
        return loss, *torch.autograd.grad(loss, inputs)

    def plain():
        loss = plain_loss(logits, audio, visual, heard, seen, labels.tolist())
        return loss, *torch.autograd.grad(loss, inputs)

    torch.testing.assert_close(ours(), plain(), rtol=1e-3, atol=1e-6)
    speed = compare_speed(ours, plain, rounds=3)
    memory = [peak_memory(function, device) / 2**20 for function in (ours, plain)]
    record(
        measured="losses + gradients against loops over clips and frames",
        size=f"B = {clips}, T = {frames}, {classes} classes",
        ours=f"{1e3 * speed.ours_s:.1f} ms, {memory[0]:.1f} MiB",
        plain=f"{1e3 * speed.reference_s:.1f} ms, {memory[1]:.1f} MiB",
        **speed.ratios(),
        memory=round(memory[0] / memory[1], 3),
    )


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "forward+backward"])
def test_front_end(backward, device, record):
    """The plain column joins the clips in time, as the official code does, and mixes neighbours."""
    clips, frames, side, width = SIZES[torch.device(device).type]
    torch.manual_seed(0)
    front, joined = (VisualFrontend(width, legacy_concat=legacy) for legacy in (False, True))
    joined.load_state_dict(front.state_dict())
    pictures = torch.randn(clips, frames, side, side, device=device)
    ours, plain = (_passes(one.to(device).eval(), pictures, backward) for one in (front, joined))
    with torch.no_grad():
        apart, mixed = (
            front.frontend3D(pictures[:, None]),
            joined.frontend3D(pictures.flatten(0, 1)[None, None]),
        )
    inner = mixed.unflatten(2, (clips, frames))[0].transpose(0, 1)[:, :, 2:-2]
    torch.testing.assert_close(apart[:, :, 2:-2], inner, rtol=1e-3, atol=1e-4)
    speed = compare_speed(ours, plain, rounds=3)
    memory = [peak_memory(function, device) / 2**20 for function in (ours, plain)]
    how = "forward + backward" if backward else "forward"
    record(
        measured=f"3-D front end clip by clip against clips joined in time, {how}",
        size=f"B = {clips}, T = {frames}, {side} x {side}, width {width}",
        ours=f"{1e3 * speed.ours_s:.0f} ms, {memory[0]:.0f} MiB",
        plain=f"{1e3 * speed.reference_s:.0f} ms, {memory[1]:.0f} MiB",
        **speed.ratios(),
        memory=round(memory[0] / memory[1], 3),
    )


def _passes(front, pictures, backward):
    weight = front.frontend3D[0].weight

    def run():
        with torch.set_grad_enabled(backward):
            clips = pictures.flatten(0, 1)[None] if front.legacy_concat else pictures
            maps = front.frontend3D(clips[:, None])
        return torch.autograd.grad(maps.square().mean(), weight) if backward else maps

    return run
