"""`NonLocalBlock3d` against the same block written plainly, with its N x N matrix.

``python -m pytest packages/nlran/bench/bench_non_local.py -s --device cpu`` (or cuda). The CPU part
uses one thread. Values and gradients are tested; times and memory are only printed.
"""

from __future__ import annotations

import pytest
import torch
from nlran.non_local import NonLocalBlock3d
from papercommons.testing.timing import compare_speed, peak_memory

CHANNELS = 64
GRIDS = ((8, 16, 16), (8, 32, 32), (16, 32, 32))  # N = 2,048, 8,192, 16,384
FORMS = ("embedded_gaussian", "gaussian", "dot_product", "concatenation")


def plain_block(block, x):
    """Return what `block` returns, as its formulas read."""
    theta, phi = (x, x) if block.form == "gaussian" else (block.theta(x), block.phi(x))
    theta, phi, g = (t.flatten(2).transpose(1, 2) for t in (theta, phi, block.g(x)))
    if block.form == "concatenation":
        weight = block.concat.weight.squeeze(0)
        a, b = theta @ weight[: theta.shape[2]], phi @ weight[theta.shape[2] :]
        weights = torch.relu(a[:, :, None] + b[:, None]) / phi.shape[1]
    else:
        scores = theta @ phi.transpose(1, 2)
        weights = scores / phi.shape[1] if block.form == "dot_product" else scores.softmax(2)
    y = (weights @ g).transpose(1, 2).unflatten(2, x.shape[2:])
    return x + block.norm(block.out(y))


@pytest.fixture(autouse=True)
def _one_thread(device):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "forward+backward"])
@pytest.mark.parametrize(
    ("form", "grid"),
    [("embedded_gaussian", grid) for grid in GRIDS] + [(form, GRIDS[1]) for form in FORMS[1:]],
    ids=str,
)
def test_block(form, grid, backward, device, record):
    torch.manual_seed(0)
    block = NonLocalBlock3d(CHANNELS, form=form).to(device)
    torch.nn.init.ones_(block.norm.weight)
    x = (0.3 * torch.randn(1, CHANNELS, *grid, device=device)).requires_grad_()
    inputs = [x, *(p for p in block.parameters() if p is not block.out.bias)]  # BN undoes that

    def run(function):
        if not backward:
            with torch.no_grad():
                return (function(x),)
        out = function(x)
        return out, *torch.autograd.grad(out.square().mean(), inputs)

    def ours():
        return run(block)

    def plain():
        return run(lambda x: plain_block(block, x))

    torch.testing.assert_close(ours(), plain(), rtol=1e-3, atol=1e-4)
    speed = compare_speed(ours, plain, rounds=3)
    memory = [peak_memory(function, device) / 2**20 for function in (ours, plain)]
    n = grid[0] * grid[1] * grid[2]
    record(
        measured=f"{form}, {'forward + backward' if backward else 'forward'}",
        size=f"N = {n:,}, C = {CHANNELS}",
        ours=f"{1e3 * speed.ours_s:.1f} ms, {memory[0]:.0f} MiB",
        plain=f"{1e3 * speed.reference_s:.1f} ms, {memory[1]:.0f} MiB",
        **speed.ratios(),
        memory=round(memory[0] / memory[1], 3),
    )
