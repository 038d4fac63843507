"""Exact inference against a loop over states, and the enumeration of states.

``python -m pytest packages/semforge/bench/bench_marginals.py -s --device cpu`` (or cuda). The CPU
part uses one thread. Values and gradients are tested; times and memory are only printed.
"""

from __future__ import annotations

import itertools

import pytest
import torch
from papercommons.testing.timing import compare_speed, peak_memory
from semforge.graph import LabelGraph
from semforge.heads import GraphHead
from semforge.inference import marginals
from semforge.losses import task_losses
from semforge.states import enumerate_states

GRAPH = LabelGraph.ffsc()


@pytest.fixture(autouse=True)
def _one_thread(device):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def by_state(scores, states):
    """Return the marginals by a loop over states, each of which sees the whole batch."""
    scores = scores.double()
    z = torch.zeros(len(scores), dtype=torch.double, device=scores.device)
    p = torch.zeros_like(scores)
    for state in states:
        weight = (scores @ state).exp()
        z += weight
        p += weight[:, None] * state
    return p / z[:, None]


def by_node(scores, states):
    """Return the marginals as the paper's code does: all weights, then a sum per node."""
    energies = states @ scores.double().T
    weights = (energies - energies.amax(0)).exp()
    z, p = weights.sum(0), torch.zeros_like(scores)
    for i in range(scores.shape[1]):
        p[:, i] = weights[states[:, i] > 0].sum(0) / z
    return p


def row(record, measured, size, ours, plain, device):
    speed = compare_speed(ours, plain, rounds=5)
    memory = [peak_memory(function, device) / 2**20 for function in (ours, plain)]
    record(
        measured=measured,
        size=size,
        ours=f"{1e3 * speed.ours_s:.2f} ms, {memory[0]:.1f} MiB",
        plain=f"{1e3 * speed.reference_s:.2f} ms, {memory[1]:.1f} MiB",
        **speed.ratios(),
        memory=round(memory[0] / memory[1], 3),
    )


@pytest.mark.parametrize("plain", [by_state, by_node], ids=["state", "node"])
@pytest.mark.parametrize("batch", [32, 256])
def test_marginals(batch, plain, device, record):
    torch.manual_seed(0)
    scores = torch.randn(batch, 12, device=device)
    states = GRAPH.states.to(device)
    matrix = states.double()

    def ours():
        return marginals(scores, states)

    def reference():
        return plain(scores, matrix)

    torch.testing.assert_close(ours(), reference().float(), rtol=0, atol=1e-6)
    name = "a loop over states in float64" if plain is by_state else "the paper's sum per node"
    row(record, f"marginals against {name}", f"B = {batch}, FFSC", ours, reference, device)


@pytest.mark.parametrize("batch", [32, 256])
def test_losses(batch, device, record):
    """Exact logs against the clamped cross-entropy of the paper's code, with gradients."""
    torch.manual_seed(0)
    scores = torch.randn(batch, 12, device=device, requires_grad=True)
    labels = GRAPH.states[torch.randint(0, 1544, (batch,))].to(device)
    head, matrix = GraphHead(GRAPH).to(device), GRAPH.states.double().to(device)

    def ours():
        losses = task_losses(head, scores, labels)
        return losses, torch.autograd.grad(losses.sum(), scores)[0]

    def reference():
        energies = matrix @ scores.double().T
        weights = (energies - energies.amax(0)).exp()
        z, bce = weights.sum(0), torch.nn.BCELoss()
        of_nodes = [
            bce((weights[matrix[:, i] > 0].sum(0) / z).float(), labels[:, i].float())
            for i in range(12)
        ]
        losses = [of_nodes[0], sum(of_nodes[1:6]) / 5, sum(of_nodes[6:]) / 6]
        return torch.stack(losses), torch.autograd.grad(sum(losses), scores)[0]

    torch.testing.assert_close(ours(), reference(), rtol=1e-4, atol=1e-5)
    name = "level losses + gradient against the paper's sum per node"
    row(record, name, f"B = {batch}, FFSC", ours, reference, device)


@pytest.mark.parametrize("n", [12, 20])
def test_enumeration(n, record):
    """The plain column deletes rows rule by rule, of a table made by itertools, as the paper's."""
    root = [(0, i) for i in range(1, 1 + n // 2)]
    above = [(i, range(1, 1 + n // 2)) for i in range(1 + n // 2, n)]

    def ours():
        return enumerate_states(n, subsumption=root, any_parent=above)

    def reference():
        rows = torch.tensor(list(itertools.product((0, 1), repeat=n)), dtype=torch.uint8)
        for a, b in root:
            rows = rows[(rows[:, a] == 1) | (rows[:, b] == 0)]
        for node, parents in above:
            rows = rows[(rows[:, node] == 0) | rows[:, list(parents)].bool().any(1)]
        return rows

    assert torch.equal(ours(), reference())
    speed = compare_speed(ours, reference, rounds=1)
    record(
        measured="enumeration of legal states against a table of all states",
        size=f"n = {n}, {len(ours()):,} legal",
        ours=f"{1e3 * speed.ours_s:.1f} ms",
        plain=f"{1e3 * speed.reference_s:.1f} ms",
        **speed.ratios(),
        memory=None,
    )
