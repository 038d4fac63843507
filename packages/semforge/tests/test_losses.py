from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from semforge.graph import LabelGraph
from semforge.heads import BinaryHead, FlatHead, GraphHead, create_head
from semforge.inference import LogProbabilities
from semforge.losses import node_bce, node_bce_reference, node_fidelity, task_losses
from torch.nn import functional as F

UNSATURATED = [0, 1, 2, 3, 4, 6]


@pytest.fixture(scope="module")
def head():
    return GraphHead(LabelGraph.ffsc())


def labels_and_scores(seed, rows=7):
    chance = torch.Generator().manual_seed(seed)
    states = LabelGraph.ffsc().states
    labels = states[torch.randint(0, len(states), (rows,), generator=chance)].to(torch.int8)
    labels[torch.rand(labels.shape, generator=chance) < 0.3] = 2
    return labels, 2 * torch.randn(rows, 12, dtype=torch.double, generator=chance)


def test_parity_with_the_paper_s_code_saturation_included(parity, head):
    data = parity("hex_ffsc")
    assert torch.equal(data["mask"].bool(), data["labels"] != 2)
    scores = data["scores"].requires_grad_()
    of_nodes = node_bce_reference(head.probabilities(scores), data["labels"])
    torch.testing.assert_close(of_nodes.double(), data["ref_node_bce"], rtol=0, atol=1e-5)
    losses = task_losses(head, scores, data["labels"], reference=True)
    torch.testing.assert_close(losses.double(), data["ref_level_loss"], rtol=0, atol=1e-5)
    (slope,) = torch.autograd.grad(losses.sum(), scores)
    expected = data["ref_grad_of_sum_level_loss"]
    torch.testing.assert_close(slope[UNSATURATED], expected[UNSATURATED], rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(slope, expected, rtol=1e-5, atol=1e-4)  # 1/(p(1-p)) of noise


def test_exact_losses_where_the_paper_s_code_saturates(parity, head):
    data = parity("hex_ffsc")
    scores = data["scores"].requires_grad_()
    losses = task_losses(head, scores, data["labels"])
    expected = torch.tensor([11.86, 3.54, 3.07])
    torch.testing.assert_close(losses, expected, rtol=0, atol=0.006)
    (slope,) = torch.autograd.grad(losses.sum(), scores)
    torch.testing.assert_close(
        slope[UNSATURATED], data["ref_grad_of_sum_level_loss"][UNSATURATED], rtol=1e-5, atol=1e-6
    )
    rows, labels = data["scores"][UNSATURATED], data["labels"][UNSATURATED]
    of_nodes = node_bce(head.log_probabilities(rows), labels)
    by_reference = node_bce_reference(head.probabilities(rows), labels)
    torch.testing.assert_close(of_nodes, by_reference, rtol=1e-5, atol=1e-6)


def test_parity_with_the_follow_up_s_fidelity(parity):
    data, head = parity("hex_ffpp_fidelity"), GraphHead(LabelGraph.ffpp())
    scores = data["scores"].requires_grad_()
    losses = task_losses(head, scores, data["labels"], loss="fidelity")
    torch.testing.assert_close(losses.double(), data["ref_level_fidelity"], rtol=0, atol=1e-5)
    (slope,) = torch.autograd.grad(losses.sum(), scores)
    expected = data["ref_grad_of_sum_level_fidelity"]
    torch.testing.assert_close(slope, expected, rtol=0, atol=1e-5)


def test_fidelity_as_its_formula_reads():
    labels, scores = labels_and_scores(0)
    p, y = scores.sigmoid(), (labels == 1).double()
    plain = 1 - (p * y + 1e-8).sqrt() - ((1 - p) * (1 - y) + 1e-8).sqrt()
    plain = (plain * (labels != 2)).sum(0) / len(labels)
    logs = LogProbabilities(F.logsigmoid(scores), F.logsigmoid(-scores))
    torch.testing.assert_close(node_fidelity(logs, labels), plain)
    agreeing = LogProbabilities(torch.zeros(1, 1), torch.full((1, 1), -50.0))
    assert -3e-4 < node_fidelity(agreeing, torch.ones(1, 1)).item() < 0


@given(st.integers(0, 2**31), st.sampled_from(["bce", "fidelity", "nll"]))
def test_unknown_labels_have_no_say(seed, loss):
    head = GraphHead(LabelGraph.ffsc())
    labels, scores = labels_and_scores(seed)
    unknown = torch.full_like(labels, 2)
    silent = task_losses(head, scores, unknown, loss=loss)
    torch.testing.assert_close(silent, torch.zeros_like(silent))
    half = torch.cat([labels, unknown])
    twice = task_losses(head, scores.repeat(2, 1), half, loss=loss)  # divides by all rows
    torch.testing.assert_close(twice, task_losses(head, scores, labels, loss=loss) / 2)


@given(st.integers(0, 2**31))
def test_nll_of_what_is_known_of_one_node_is_its_bce(seed):
    head = GraphHead(LabelGraph.ffsc())
    labels, scores = labels_and_scores(seed)
    labels[:, 1:] = 2
    nll = task_losses(head, scores, labels, loss="nll")
    torch.testing.assert_close(nll, task_losses(head, scores, labels)[:1])


@pytest.mark.parametrize("loss", ["bce", "fidelity", "nll"])
@pytest.mark.parametrize("name", ["graph", "flat", "binary"])
def test_gradients(name, loss):
    head = create_head(name, LabelGraph.ffpp())
    scores = torch.randn(3, len(head.nodes), dtype=torch.double, requires_grad=True)
    labels = torch.tensor([[1, 0, 1] + [1] * 6 + [2], [0] * 10, [1] + [2] * 9])
    assert torch.autograd.gradcheck(lambda f: task_losses(head, f, labels, loss=loss), scores)


def test_flat_heads_are_sigmoids():
    head = FlatHead(LabelGraph.ffsc())
    labels, scores = labels_and_scores(1)
    plain = F.binary_cross_entropy_with_logits(
        scores, (labels == 1).double(), weight=(labels != 2).double(), reduction="none"
    )
    expected = torch.stack([plain[:, 0].mean(), plain[:, 1:6].mean(), plain[:, 6:].mean()])
    torch.testing.assert_close(task_losses(head, scores, labels), expected)
    nll = task_losses(head, scores, labels, loss="nll")
    torch.testing.assert_close(nll, plain.sum(1).mean(0, keepdim=True))
    assert torch.equal(head.decode(scores), (head.probabilities(scores) > 0.5).byte())
    large = torch.tensor([[1e4, -1e4] * 6])
    assert task_losses(head, large, 1 - (large > 0).long()).isfinite().all()


def test_binary_heads_see_the_root_alone():
    head = BinaryHead(LabelGraph.ffsc())
    labels, scores = labels_and_scores(2)
    assert (head.nodes, head.levels) == (("fake",), ("root",))
    losses = task_losses(head, scores[:, :1], labels)
    torch.testing.assert_close(losses, task_losses(FlatHead(LabelGraph.ffsc()), scores, labels)[:1])


def test_decoded_labels_are_legal(head):
    scores = 3 * torch.randn(64, 12)
    assert LabelGraph.ffsc().is_legal(head.decode(scores)).all()


def test_half_scores_make_float32_losses_under_autocast(device):
    head = GraphHead(LabelGraph.ffsc()).to(device, torch.bfloat16)  # as bf16-true does
    labels, scores = labels_and_scores(3)
    labels, scores = labels.to(device), scores.to(device)
    for loss, reference in (("bce", False), ("bce", True), ("fidelity", False), ("nll", False)):
        expected = task_losses(head, scores, labels, loss=loss, reference=reference)
        with torch.autocast(device.type, dtype=torch.bfloat16):
            losses = task_losses(head, scores.bfloat16(), labels, loss=loss, reference=reference)
        assert losses.dtype == torch.float32
        torch.testing.assert_close(losses.double(), expected.double(), rtol=0.02, atol=0.02)


@pytest.mark.slow  # the compiler's import
def test_losses_compile(head):
    labels, scores = labels_and_scores(4)
    compiled = torch.compile(
        lambda f: task_losses(head, f, labels), backend="aot_eager", fullgraph=True
    )
    torch.testing.assert_close(compiled(scores), task_losses(head, scores, labels))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scores": torch.zeros(2, 10)}, r"scores must be \(B, 12\).*got \(2, 10\)"),
        ({"labels": torch.zeros(3, 12)}, r"got \(2, 12\) and \(3, 12\)"),
        ({"loss": "focal"}, "bce, fidelity or nll, got focal"),
        ({"loss": "nll", "reference": True}, "reference is a form of bce, not of nll"),
    ],
)
def test_bad_arguments(head, change, message):
    given = {"scores": torch.zeros(2, 12), "labels": torch.zeros(2, 12)} | change
    with pytest.raises(ValueError, match=message):
        task_losses(head, **given)


def test_unknown_heads():
    with pytest.raises(ValueError, match="graph, flat or binary, got tree"):
        create_head("tree", LabelGraph.ffsc())
