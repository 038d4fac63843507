"""A training step with Auto-lambda against the paper's passes, written plainly.

``python -m pytest packages/semforge/bench/bench_auto_lambda.py -s --device cpu`` (or cuda). The CPU
part uses one thread. The gradient of the weights is tested; times and memory are only printed.
"""

from __future__ import annotations

import copy

import pytest
import torch
from papercommons.testing.timing import compare_speed, peak_memory
from semforge.auto_lambda import AutoLambda
from semforge.losses import task_losses
from semforge.model import SemForgeNet
from torch.optim import Adam


@pytest.fixture(autouse=True)
def _one_thread(device):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def plain_step(net, copied, weights, objective, train, meta, optimizer, lr):
    """Return the gradient of the weights, and leave that of the network; as the paper's code."""
    parameters, others = list(net.parameters()), list(copied.parameters())
    losses = objective(net(train[0]), train[1])
    gradients = torch.autograd.grad((weights * losses).sum(), parameters)
    with torch.no_grad():
        for p, q, g in zip(parameters, others, gradients, strict=True):
            q.copy_(p - lr * g)
    primary = objective(copied(meta[0]), meta[1])[0]
    slopes = torch.autograd.grad(primary, others)
    eps = 0.01 / (torch.cat([s.flatten() for s in slopes]).norm() + 1e-6)
    sides = []
    for shift in (1, -2, 1):
        with torch.no_grad():
            for p, s in zip(parameters, slopes, strict=True):
                p += shift * eps * s
        if len(sides) < 2:
            losses = objective(net(train[0]), train[1])
            sides.append(torch.autograd.grad((weights * losses).sum(), weights)[0])
    optimizer.zero_grad()
    losses = objective(net(train[0]), train[1])
    (weights.detach() * losses).sum().backward()
    return -lr * (sides[0] - sides[1]) / (2 * eps)


@pytest.mark.parametrize("form", ["exact", "finite"])
@pytest.mark.parametrize(("backbone", "batch"), [("tiny", 32), ("resnet18", 8)])
def test_step(backbone, batch, form, device, record):
    torch.manual_seed(0)
    net = SemForgeNet(backbone, image_size=64).to(device)
    images = torch.randn(2, batch, 3, 64, 64, device=device)
    labels = net.graph.states[torch.randint(0, 1544, (2, batch))].to(device)
    train, meta = ((images[i], labels[i]) for i in range(2))
    optimizer = Adam(net.parameters(), lr=1e-4)
    auto = AutoLambda(lr=1e-3, form=form).to(device)
    copied, weights = copy.deepcopy(net), torch.ones(3, device=device, requires_grad=True)
    seen = []
    auto.optimizer.register_step_pre_hook(lambda *_: seen.append(auto.weights.grad))

    def objective(scores, labels):
        return task_losses(net.head, scores, labels)

    def ours():
        optimizer.zero_grad()
        auto.update(net, objective, train, meta, optimizer).total.backward()

    def reference():
        return plain_step(net, copied, weights, objective, train, meta, optimizer, 1e-4)

    expected = reference()
    ours()
    torch.testing.assert_close(
        seen[0], expected, rtol=0.05, atol=0.05 * expected.abs().max().item()
    )
    speed = compare_speed(ours, reference, rounds=3)
    memory = [peak_memory(function, device) / 2**20 for function in (ours, reference)]
    record(
        measured=f"step with Auto-lambda ({form}) against the paper's passes",
        size=f"{backbone}, B = {batch}, 64 x 64",
        ours=f"{1e3 * speed.ours_s:.0f} ms, {memory[0]:.0f} MiB",
        plain=f"{1e3 * speed.reference_s:.0f} ms, {memory[1]:.0f} MiB",
        **speed.ratios(),
        memory=round(memory[0] / memory[1], 3),
    )
