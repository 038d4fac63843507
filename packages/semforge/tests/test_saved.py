from __future__ import annotations

import json

import pytest
import torch
from papercommons.errors import DataError
from semforge.graph import LabelGraph
from semforge.model import SemForgeNet
from semforge.saved import load_network, save_network
from torch import nn


@pytest.fixture
def saved(tmp_path):
    torch.manual_seed(0)
    graph = LabelGraph.soft_or("fake", {"age": ["eye", "skin"], "pose": ["eye"]}, name="own")
    net = SemForgeNet("tiny", graph, image_size=48, root_prior="balanced", dropout=0.1)
    about = {"made_by": "a test", "data_hash": "abc", "crop": {"size": 48}}
    return net.eval(), save_network(net, tmp_path / "run" / "export", **about)


def test_a_network_comes_back(saved):
    net, folder = saved
    again, config = load_network(folder.parent)  # a run's folder does, too
    images = torch.rand(2, 3, 48, 48)
    assert not again.training
    assert torch.equal(again(images), net(images))
    assert again.graph == net.graph
    assert again.image_size == 48
    assert (config["crop"], config["data_hash"]) == ({"size": 48}, "abc")


def test_its_card_says_what_it_takes_gives_and_cannot(saved):
    card = (saved[1] / "README.md").read_text()
    for words in ("tiny", "graph own", "(N, 3, 48, 48)", "fake, age, pose, eye, skin", "a test"):
        assert words in card
    assert "no proof" in card


def test_it_must_be_made_for_the_graph_in_use(saved):
    net, folder = saved
    load_network(folder, graph=net.graph)
    strict = LabelGraph.soft_or(
        "fake", {"age": ["eye", "skin"], "pose": ["eye"]}, strict_root=True, name="strict"
    )
    for graph in (LabelGraph.ffsc(), strict):
        with pytest.raises(DataError, match=f"made for the graph own.*differ from.*{graph.name}"):
            load_network(folder, graph=graph)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"backbone": "tinny"}, "unknown backbone"),
        ({"backbone": 5}, "no attribute dim"),
        ({"backbone": "vit_giant_patch14_clip_224"}, "far larger than its file of weights"),
        ({"graph": "/etc/passwd"}, "graph: expected an object"),
        ({"graph": {"nodes": ["a"], "any_child": {"a": ["b"]}}}, "unknown node 'b'"),
        ({"graph": LabelGraph.ffsc().to_dict()}, "does not fit SemForgeNet"),
        ({"head": "tree"}, "graph, flat or binary"),
        ({"head": ["graph"]}, "graph, flat or binary"),
        ({"image_size": 10**9}, "image_size must be in"),
        ({"image_size": "x"}, "config.json"),
        ({"dropout": None, "head": "binary"}, "does not fit SemForgeNet"),
    ],
)
def test_a_broken_configuration_is_told_in_one_line(saved, change, message):
    config = saved[1] / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | change))
    with pytest.raises(DataError, match=message) as caught:
        load_network(saved[1])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"backbone": "tiny"}, "expected semforge, got None"),
        ({"package": "semforge", "backbone": "tiny"}, "no entry graph, head, "),
    ],
)
def test_a_foreign_configuration(saved, config, message):
    (saved[1] / "config.json").write_text(json.dumps(config))
    with pytest.raises(DataError, match=message):
        load_network(saved[1])


def test_own_modules_have_no_name(tmp_path):
    network = nn.Flatten()
    network.dim = 12
    with pytest.raises(ValueError, match="has no name to build it again"):
        save_network(SemForgeNet(network), tmp_path)
