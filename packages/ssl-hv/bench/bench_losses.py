"""Joint-embedding losses against the same formulas written plainly, and against lightly.

``python -m pytest packages/ssl-hv/bench/bench_losses.py -s --device cpu`` (or cuda). The CPU part
uses one thread; without lightly its part is skipped. Values and gradients are tested; times and
memory, of loss and gradient together (DINO: and of its next centre), are only printed.
"""

from __future__ import annotations

import pytest
import torch
from papercommons.testing.timing import compare_speed, peak_memory
from ssl_hv.objectives.barlow_twins import barlow_twins_loss
from ssl_hv.objectives.dino import dino_loss, moved_center
from ssl_hv.objectives.fastsiam import fastsiam_loss
from ssl_hv.objectives.moco import info_nce_loss
from ssl_hv.objectives.simclr import nt_xent_loss
from ssl_hv.objectives.simsiam import negative_cosine
from ssl_hv.objectives.vicreg import vicreg_loss

N = 256


def unit(rows):
    return rows / rows.norm(dim=-1, keepdim=True)


def plain_nt_xent(za, zb):
    rows = unit(torch.cat([za, zb]))
    similar = torch.exp(rows @ rows.T / 0.5) * (1 - torch.eye(2 * N, device=za.device))
    positive = torch.cat([similar.diagonal(N), similar.diagonal(-N)])
    return -torch.log(positive / similar.sum(1)).mean()


def plain_info_nce(query, key, bank):
    query = unit(query)
    positive = torch.exp((query * unit(key)).sum(1) / 0.1)
    negative = torch.exp(query @ bank.T / 0.1).sum(1)
    return -torch.log(positive / (positive + negative)).mean()


def off_diagonal(matrix):
    return matrix * (1 - torch.eye(len(matrix), device=matrix.device))


def plain_barlow_twins(za, zb):
    a, b = ((z - z.mean(0)) / torch.sqrt(z.var(0, correction=0) + 1e-5) for z in (za, zb))
    c = a.T @ b / N
    return (c.diagonal() - 1).square().sum() + 5e-3 * off_diagonal(c).square().sum()


def plain_vicreg(za, zb):
    loss = 25 * (za - zb).square().mean()
    for z in (za, zb):
        loss = loss + 12.5 * torch.relu(1 - torch.sqrt(z.var(0) + 1e-4)).mean()
        loss = loss + off_diagonal(torch.cov(z.T)).square().sum() / z.shape[1]
    return loss


def plain_negative_cosine(p, z):
    return -(unit(p) * unit(z.detach())).sum(-1).mean()


def plain_fastsiam(p, z):
    others = [torch.stack([z[j] for j in range(4) if j != i]).mean(0) for i in range(4)]
    return sum(plain_negative_cosine(p[i], others[i]) for i in range(4)) / 4


def plain_dino(student, teacher, center):
    0.9 * center + 0.1 * teacher.mean((0, 1))
    terms = [
        -(((t - center) / 0.04).softmax(1) * (s / 0.1).log_softmax(1)).sum(1).mean()
        for i, t in enumerate(teacher)
        for j, s in enumerate(student)
        if i != j
    ]
    return sum(terms) / len(terms)


def dino(student, teacher, center):
    moved_center(center, teacher)
    return dino_loss(teacher, student, center)


PAIRS = {
    "NT-Xent": (nt_xent_loss, plain_nt_xent, 128),
    "Barlow Twins": (barlow_twins_loss, plain_barlow_twins, 2048),
    "VICReg": (vicreg_loss, plain_vicreg, 2048),
    "negative cosine": (negative_cosine, plain_negative_cosine, 128),
}
OTHERS = {
    "MoCo": (info_nce_loss, plain_info_nce, [(N, 128), (N, 128), (4096, 128)]),
    "FastSiam": (fastsiam_loss, plain_fastsiam, [(4, N, 128), (4, N, 128)]),
    "DINO": (dino, plain_dino, [(8, N, 2048), (2, N, 2048), (2048,)]),
}
ALL = {name: (f, g, [(N, dim), (N, dim)]) for name, (f, g, dim) in PAIRS.items()} | OTHERS


@pytest.fixture(autouse=True)
def _one_thread(device):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def measure(name, sizes, reference_name, ours, reference, device, record):
    torch.manual_seed(0)
    inputs = [unit(torch.randn(size, device=device)) for size in sizes]
    if len(inputs) == 2:
        inputs = [z * sizes[0][-1] ** 0.5 for z in inputs]  # deviation 1, as projections have
    inputs[0].requires_grad_()

    def run(function):
        loss = function(*inputs)
        return loss, torch.autograd.grad(loss, inputs[0])[0]

    def run_ours():
        return run(ours)

    def run_reference():
        return run(reference)

    torch.testing.assert_close(run_ours(), run_reference(), rtol=1e-3, atol=1e-5)
    speed = compare_speed(run_ours, run_reference, rounds=3)
    memory = [peak_memory(function, device) / 2**20 for function in (run_ours, run_reference)]
    record(
        measured=f"{name} against {reference_name}, loss + gradient",
        size=" and ".join(str(size) for size in sizes),
        ours=f"{1e3 * speed.ours_s:.2f} ms, {memory[0]:.1f} MiB",
        plain=f"{1e3 * speed.reference_s:.2f} ms, {memory[1]:.1f} MiB",
        **speed.ratios(),
        memory=round(memory[0] / memory[1], 3),
    )


@pytest.mark.parametrize("name", ALL)
def test_plain(name, device, record):
    ours, plain, sizes = ALL[name]
    measure(name, sizes, "the plain formula", ours, plain, device, record)


@pytest.mark.filterwarnings("ignore")  # lightly's own
@pytest.mark.parametrize("name", [*PAIRS, "DINO"])
def test_lightly(name, device, record):
    loss = pytest.importorskip("lightly.loss")
    ours, _, sizes = ALL[name]
    if name == "DINO":
        criterion = loss.DINOLoss(sizes[0][2]).to(device)

        def reference(student, teacher, center):
            criterion.center.copy_(center)
            return criterion(list(teacher), list(student))
    else:
        criterion = {
            "NT-Xent": loss.NTXentLoss,
            "Barlow Twins": loss.BarlowTwinsLoss,
            "VICReg": loss.VICRegLoss,
            "negative cosine": loss.NegativeCosineSimilarity,
        }[name]()

        def reference(za, zb):
            return criterion(za, zb.detach())

    measure(name, sizes, "lightly", ours, reference, device, record)
