from __future__ import annotations

import pytest
import torch
from semforge.graph import LabelGraph
from semforge.model import SemForgeNet
from torch import nn
from torch.nn import functional as F


class Clip(nn.Module):
    """Both towers, as open_clip's networks offer them, and hardly more."""

    def __init__(self):
        super().__init__()
        self.visual = nn.Module()
        self.visual.image_size = 32
        self.image, self.text = nn.Linear(3, 8), nn.Embedding(256, 8)
        self.logit_scale = nn.Parameter(torch.tensor(100.0).log())

    def encode_image(self, images):
        return self.image(images.mean((2, 3)))

    def encode_text(self, tokens):
        return self.text(tokens).mean(1)


def tokenize(texts):
    return torch.tensor([list(text.encode().ljust(80))[:80] for text in texts])


@pytest.fixture(scope="module")
def images():
    return torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("head", "count"), [("graph", 12), ("flat", 12), ("binary", 1)])
def test_heads_on_the_tiny_network(images, head, count):
    net = SemForgeNet("tiny", "ffsc", head).eval()
    scores = net(net.normalised(images))
    p = net.probabilities(scores)
    assert scores.shape == p.shape == net.decode(scores).shape == (4, count)
    torch.testing.assert_close(net.log_probabilities(scores).on.exp(), p)
    assert net.nodes == LabelGraph.ffsc().nodes[:count]
    if head == "graph":
        torch.testing.assert_close(p, net.graph.marginals(scores))


def test_images_are_normalised_as_the_backbone_wants():
    net = SemForgeNet("tiny")
    assert net.normalised(torch.tensor([0.0, 0.5, 1.0]).expand(1, 3, 1, 3)).tolist() == [
        [[[-1, 0, 1]]] * 3
    ]
    net = SemForgeNet(Clip(), embedding="joint", tokenize=tokenize)
    black = net.normalised(torch.zeros(1, 3, 1, 1)).flatten()
    torch.testing.assert_close(black, torch.tensor([-1.79226, -1.75210, -1.48022]))


@pytest.mark.parametrize("head", ["graph", "flat"])
def test_the_prior_moves_the_root_of_a_graph_alone(head):
    nets = []
    for prior in ("none", "balanced"):
        torch.manual_seed(0)
        nets.append(SemForgeNet("tiny", "ffpp", head, root_prior=prior).scorer.classifier.bias)
    moved = -5.5215 if head == "graph" else 0.0
    expected = torch.zeros(10).index_fill(0, torch.tensor(0), moved)
    torch.testing.assert_close(nets[1] - nets[0], expected, rtol=0, atol=1e-4)


def test_dropout_of_the_paper_s_xception():
    with torch.device("meta"):
        assert SemForgeNet("legacy_xception").scorer.dropout.p == 0.5
        assert SemForgeNet("legacy_xception", dropout=0.1).scorer.dropout.p == 0.1
    assert SemForgeNet("tiny").scorer.dropout.p == 0


@pytest.mark.parametrize(("head", "count"), [("graph", 12), ("binary", 1)])
def test_joint_embedding_is_a_scaled_cosine_with_the_texts(images, head, count):
    clip = Clip()
    net = SemForgeNet(clip, "ffsc", head, embedding="joint", tokenize=tokenize)
    tokens = tokenize(list(LabelGraph.ffsc().texts()))[:count]
    cosine = F.cosine_similarity(
        clip.encode_image(images)[:, None], clip.encode_text(tokens)[None], dim=2
    )
    torch.testing.assert_close(net(images), 100 * cosine)
    net(images).sum().backward()
    assert all(p.grad is not None for p in net.parameters())
    assert net.scorer.bias is None
    balanced = SemForgeNet(clip, embedding="joint", tokenize=tokenize, root_prior="balanced")
    assert balanced.scorer.bias[0].item() == pytest.approx(-7.3414, abs=1e-4)


def test_a_module_of_one_s_own(images):
    network = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten())
    with pytest.raises(ValueError, match="Sequential has no attribute dim"):
        SemForgeNet(network)
    network.dim = 12
    net = SemForgeNet(network, LabelGraph.ffpp())
    assert (net.image_size, net.config) == (224, None)
    assert net(images).shape == (4, 10)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("tiny", "ffsc", "tree"), {}, "graph, flat or binary"),
        (("tiny",), {"embedding": "text"}, "linear or joint, got text"),
        (
            ("tiny",),
            {"embedding": "joint"},
            "needs both towers of CLIP, open_clip:NAME, got 'tiny'",
        ),
        (("tiny",), {"dropout": 1.0}, r"dropout must be in \[0, 1\), got 1.0"),
        (("tiny",), {"root_prior": "half"}, "none or balanced, got half"),
        ((Clip(),), {"embedding": "joint"}, "needs tokenize"),
    ],
)
def test_bad_arguments(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        SemForgeNet(*arguments, **options)
