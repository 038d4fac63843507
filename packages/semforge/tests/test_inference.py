from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from semforge.graph import LabelGraph
from semforge.inference import (
    agreeing,
    log_likelihood,
    log_marginals,
    log_partition,
    map_state,
    marginals,
)
from semforge.states import enumerate_states

GENERIC = ("free3", "excl3", "chain3", "tree7", "dag5", "softor")


def close(actual, expected, atol=1e-12):
    torch.testing.assert_close(actual, expected, rtol=0, atol=atol)


@pytest.mark.parametrize(("name", "graph"), [("hex_ffsc", "ffsc"), ("hex_ffpp_fidelity", "ffpp")])
def test_parity_with_the_paper_and_with_brute_force(parity, name, graph):
    data, graph = parity(name), getattr(LabelGraph, graph)()
    scores, labels = data["scores"].double(), data["labels"]
    assert torch.equal(graph.states, data["legal_states"].byte())
    close(graph.marginals(scores), data["marginals"])
    close(graph.marginals(data["scores"]), data["ref_marginals"], 1e-7)
    close(log_partition(scores, graph.states), data["log_partition"])
    close(graph.log_likelihood(scores, labels), data["log_likelihood"])
    if "map_state" in data:
        assert torch.equal(graph.map_state(scores), data["map_state"].byte())


@pytest.mark.parametrize("name", GENERIC)
def test_parity_on_other_graphs(parity, name):
    data = {k.removeprefix(f"{name}_"): v for k, v in parity("hex_generic").items() if name in k}
    n = data["scores"].shape[1]
    if name == "softor":
        children = data["children"].tolist()
        states = enumerate_states(
            n,
            subsumption=[(0, g) for g in {g for g, _ in children}],
            any_child=[(g, [b for a, b in children if a == g]) for g, _ in children],
            any_parent=[(c, [a for a, b in children if b == c]) for _, c in children],
        )
    else:
        pairs = {"subsumption": data["hier"].tolist(), "exclusion": data["excl"].tolist()}
        states = enumerate_states(n, **pairs)
        assert torch.equal(map_state(data["scores"], states), data["map_state"].byte())
    assert torch.equal(states, data["legal"].byte())
    close(marginals(data["scores"], states), data["marginals"])
    close(log_partition(data["scores"], states), data["log_partition"])


def test_the_worked_example_of_the_specification():
    graph = LabelGraph.soft_or("root", {"g": ["a", "b"]})
    scores = torch.tensor([[1, 0.5, -1, 2]], dtype=torch.double)
    p = torch.tensor([[0.98026249, 0.92661037, 0.27299377, 0.89406872]], dtype=torch.double)
    close(graph.marginals(scores), p, 1e-8)
    z = log_partition(scores, graph.states).exp()
    close(z, torch.tensor([50.66494902], dtype=torch.double), 1e-8)
    both = torch.tensor([[1, 1, 1, 1], [0, 0, 0, 0]])
    expected = torch.tensor([-1.42523433, -3.92523433], dtype=torch.double)
    close(graph.log_likelihood(scores.expand(2, 4), both), expected, 1e-8)


scores_of = st.integers(0, 2**31).map(
    lambda seed: 3 * torch.randn(5, 6, dtype=torch.double, generator=_generator(seed))
)


def _generator(seed):
    return torch.Generator().manual_seed(seed)


def random_states(seed):
    """Any rules may give such states: all zeros, and about half of the rest."""
    rows = enumerate_states(6)
    keep = torch.rand(len(rows), generator=_generator(seed)) < 0.5
    return rows[keep.index_fill(0, torch.tensor(0), True)]


@given(scores_of, st.integers(0, 2**31))
def test_like_a_loop_over_samples_and_states(scores, seed):
    states = random_states(seed)
    labels = torch.randint(0, 3, (5, 6), generator=_generator(seed))
    for b, f in enumerate(scores.numpy()):
        weights = [float(np.exp(f @ y)) for y in states.numpy()]
        z = sum(weights)
        p = sum(w * y for w, y in zip(weights, states.numpy(), strict=True)) / z
        agree = [all(k in (2, v) for k, v in zip(labels[b].tolist(), y.tolist(), strict=True))
                 for y in states]  # fmt: skip
        assert agreeing(labels[b : b + 1], states).tolist() == [agree]
        close(marginals(scores, states)[b].numpy(), p)
        close(log_partition(scores, states)[b].item(), float(np.log(z)))
        likely = sum(w for w, a in zip(weights, agree, strict=True) if a) / z
        close(log_likelihood(scores, labels, states)[b].exp().item(), likely)
        assert torch.equal(map_state(scores, states)[b], states[int(np.argmax(weights))])


@given(scores_of)
def test_known_special_cases(scores):
    close(marginals(scores, enumerate_states(6)), scores.sigmoid())
    every_pair = [(a, b) for a in range(6) for b in range(a)]
    one = enumerate_states(6, exclusion=every_pair)
    close(marginals(scores, one), scores.exp() / (1 + scores.exp().sum(1, keepdim=True)))
    chain = enumerate_states(6, subsumption=[(i, i + 1) for i in range(5)])
    assert (marginals(scores, chain).diff(dim=1) <= 1e-12).all()


@given(scores_of, st.integers(0, 2**31), st.permutations(range(6)))
def test_identities_of_any_graph(scores, seed, order):
    states = random_states(seed)
    p = marginals(scores, states)
    leaf = scores.clone().requires_grad_()
    (slope,) = torch.autograd.grad(log_partition(leaf, states).sum(), leaf)
    close(slope, p)
    close(marginals(scores[:, order], states[:, order]), p[:, order])
    on, off = log_marginals(scores, states)
    close(on.exp() * states.any(0), p)
    close(on.exp() + off.exp(), torch.ones_like(p))
    dead = torch.cat([states, torch.zeros(len(states), 1, dtype=torch.uint8)], 1)
    longer = torch.cat([scores, scores[:, :1]], 1)
    close(marginals(longer, dead), torch.cat([p, torch.zeros(5, 1)], 1))


@given(st.integers(0, 2**31))
def test_bounds_of_the_paper_s_graph(seed):
    graph = LabelGraph.ffsc()
    p = graph.marginals(4 * torch.randn(8, 12, dtype=torch.double, generator=_generator(seed)))
    assert (p[:, :1] >= p[:, 1:6] - 1e-12).all()
    for local, parents in graph.any_parent.items():
        above = p[:, [graph.nodes.index(parent) for parent in parents]].sum(1)
        assert (above >= p[:, graph.nodes.index(local)] - 1e-12).all()


@pytest.mark.parametrize("size", [1e2, 1e3, 1e4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_large_scores_stay_finite(size, dtype):
    graph = LabelGraph.ffsc()
    scores = size * torch.randn(64, 12, generator=_generator(0)).to(dtype)
    scores = torch.cat([scores, size * torch.ones(1, 12), -size * torch.ones(1, 12)])
    scores = scores.to(dtype).requires_grad_()
    labels = graph.states[torch.arange(66) * 23]
    on, off = graph.log_marginals(scores)
    likelihood = graph.log_likelihood(scores, labels)
    partition = log_partition(scores, graph.states)
    for value in (graph.marginals(scores), on, off, partition, likelihood):
        (slope,) = torch.autograd.grad(value.sum() * 2.0**16, scores, retain_graph=True)
        assert value.dtype == dtype
        assert value.isfinite().all()
        assert slope.isfinite().all()


def test_log_marginals_are_exact_down_to_minus_600():
    states = enumerate_states(2, subsumption=[(0, 1)])
    scores = torch.tensor([[-600.0, 0.0], [600.0, 0.0]], dtype=torch.double, requires_grad=True)
    on, off = log_marginals(scores, states)
    expected = -600 + np.log(2)
    close(on[0, 0].item(), expected)
    close(off[1, 0].item(), -600 - np.log(2))
    (slope,) = torch.autograd.grad(on[0, 0] - off[1, 0], scores)
    close(slope[:, 0], torch.ones(2, dtype=torch.double))


def test_gradients():
    graph = LabelGraph.soft_or("r", {"a": ["x", "y"], "b": ["y", "z"]})
    scores = torch.randn(3, 6, dtype=torch.double, generator=_generator(0), requires_grad=True)
    labels = torch.tensor([[1, 1, 0, 1, 0, 0], [0, 0, 0, 0, 0, 0], [1, 2, 2, 2, 1, 2]])
    for function in (
        graph.marginals,
        graph.log_marginals,
        lambda f: log_partition(f, graph.states),
        lambda f: graph.log_likelihood(f, labels),
    ):
        assert torch.autograd.gradcheck(function, scores)
        assert torch.autograd.gradgradcheck(function, scores)


def test_unknown_labels_are_summed_out():
    graph = LabelGraph.ffsc()
    scores = torch.randn(1, 12, dtype=torch.double, generator=_generator(0))
    labels = torch.full((1, 12), 2)
    close(graph.log_likelihood(scores, labels), torch.zeros(1).double())
    labels[0, 3] = 1
    close(graph.log_likelihood(scores, labels), graph.log_marginals(scores).on[:, 3])
    labels[0, 0] = 0  # a real face with an altered attribute
    assert graph.log_likelihood(scores, labels).isneginf().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_and_autocast_change_nothing(device, dtype):
    states = LabelGraph.ffsc().states.to(device)
    scores = torch.randn(4, 12, generator=_generator(0)).to(device, dtype)
    expected = marginals(scores.double(), states).float()
    with torch.autocast(device.type, dtype=torch.bfloat16):
        p = marginals(scores, states)
        on, _ = log_marginals(scores.float(), states)
        z = log_partition(scores, states)
    assert p.dtype == on.dtype == z.dtype == torch.float32
    close(p, expected, 1e-7)
    close(on.exp(), expected, 1e-6)
    close(z, log_partition(scores.double(), states).float(), 1e-5)
