from __future__ import annotations

import json
import math
import pickle

import pytest
import torch
from papercommons.errors import DataError
from semforge.graph import LabelGraph, as_graph

SMALL = """
root: fake
global:
  age: [eye, skin]
  pose: [eye]
"""
RULES = """
name: birds
nodes: [animal, bird, owl, duck]
subsumption: [[animal, bird], [bird, owl], [bird, duck]]
exclusion: [[owl, duck]]
any_child: {bird: [owl, duck]}
levels: {top: [animal], kind: [bird], species: [owl, duck]}
"""


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "g.yaml"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    return write


def test_the_paper_s_graph():
    graph = LabelGraph.ffsc()
    assert graph.nodes[:3] == ("fake", "age", "expression")
    assert graph.nodes[6:] == ("eye", "eyebrow", "lip", "mouth", "nose", "skin")
    globals_on = graph.states[:, 1:6].sum(1)
    counts = [int((globals_on == k).sum()) for k in range(6)]
    assert counts == [2, 191, 516, 534, 253, 48]
    assert [len(level) for level in graph.levels.values()] == [1, 5, 6]
    strings = "000000000000 110000100001 101000001100 101000101111 120110111101 120010111111"
    labels = [[int(bit) for bit in string] for string in (strings + " 100001111111").split()]
    assert graph.is_legal(torch.tensor(labels)).all()
    illegal = torch.tensor([[0, 1] + [2] * 10, [1, 1] + [0] * 10, [1] + [0] * 10 + [1]])
    assert not graph.is_legal(illegal).any()


def test_the_follow_up_s_graph():
    graph = LabelGraph.ffpp()
    assert graph.states.shape == (251, 10)
    assert graph.any_child["physical inconsistency"] == ("eye", "lip", "mouth", "nose")
    strings = ["1010111111", "1100001100", "1001100000", "1011111111", "1101001100"]
    assert graph.is_legal(torch.tensor([[int(bit) for bit in s] for s in strings])).all()


def test_a_strict_root_forbids_only_fake_without_attribute():
    loose, strict = LabelGraph.ffsc().states, LabelGraph.ffsc(strict_root=True).states
    gone = set(map(tuple, loose.tolist())) - set(map(tuple, strict.tolist()))
    assert gone == {(1, *[0] * 11)}
    assert len(strict) == 1543


@pytest.mark.parametrize("graph", [LabelGraph.ffsc(), LabelGraph.ffpp(), LabelGraph(("a",))])
def test_the_balanced_prior_makes_one_half(graph):
    scores = torch.zeros(1, len(graph.nodes), dtype=torch.double)
    scores[0, 0] = graph.root_prior("balanced")
    assert graph.marginals(scores)[0, 0].item() == pytest.approx(0.5)
    assert graph.root_prior("none") == 0


def test_the_prior_of_the_specification():
    assert LabelGraph.ffsc().root_prior() == pytest.approx(-7.3414, abs=1e-4)
    zeros = torch.zeros(1, 12, dtype=torch.double)
    assert LabelGraph.ffsc().marginals(zeros)[0, 0].item() == pytest.approx(1543 / 1544)
    assert LabelGraph.ffpp().root_prior() == -math.log(250)
    with pytest.raises(ValueError, match="none or balanced, got some"):
        LabelGraph.ffsc().root_prior("some")
    with pytest.raises(ValueError, match="never let 'b' be 1"):
        LabelGraph(("b", "a"), exclusion=[("a", "b")], subsumption=[("a", "b")]).root_prior()


def test_texts_of_the_nodes():
    texts = LabelGraph.ffsc().texts()
    assert texts[0] == "A photo of a fake face"
    assert texts[1] == "A photo of a face with the global attribute of age altered"
    assert texts[6] == "A photo of a face with the local attribute of eye altered"
    own = LabelGraph.soft_or("fake", {"age": ["eye"]}, prompts={"eye": "new eyes"})
    assert own.texts()[2] == "new eyes"


def test_yaml_of_attributes(write):
    graph = LabelGraph.from_yaml(write(SMALL + "strict_root: true\nexclusion: [[age, pose]]"))
    assert graph.name == "g"
    assert graph.nodes == ("fake", "age", "pose", "eye", "skin")
    rows = ["00000", "10110", "11001", "11010", "11011"]
    assert ["".join(map(str, row)) for row in graph.states.tolist()] == rows


def test_yaml_of_rules(write):
    graph = LabelGraph.from_yaml(write(RULES))
    rows = ["0000", "1000", "1101", "1110"]
    assert ["".join(map(str, row)) for row in graph.states.tolist()] == rows
    assert graph.level_weights.tolist() == [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0.5, 0.5]]


@pytest.mark.parametrize("graph", [LabelGraph.ffsc(strict_root=True), LabelGraph.ffpp()])
def test_graphs_survive_json_and_pickle(graph):
    again = LabelGraph.from_dict(json.loads(json.dumps(graph.to_dict())))
    assert again == graph
    assert pickle.loads(pickle.dumps(graph)) == graph
    assert torch.equal(again.states, graph.states)
    assert as_graph(graph.to_dict()) == graph


def test_graphs_by_name(write):
    assert as_graph("ffsc") == LabelGraph.ffsc()
    assert as_graph("ffpp") == LabelGraph.ffpp()
    assert as_graph(str(write(SMALL))).nodes[1] == "age"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected entries"),
        ("- a", "expected entries"),
        ("a: [", r"not readable YAML \(line 1: "),
        ("root: 2001-99-99", "not readable YAML"),
        ("root: x\nglobal: &g {a: *g}", "not readable YAML"),
        (b"\xff\xfe\xff", "not readable YAML"),
        ("[" * 500, "not readable YAML"),
        ("!!python/object/apply:os.system [ls]", "not readable YAML"),
        ("x" * (1 << 21), "larger than 1 MiB"),
        ("root: fake", "no entry global"),
        ("global: {a: [b]}", "no entry root"),
        ("root: fake\nglobal: {}", "no attribute"),
        ("root: fake\nglobal: [a]", "expected names with lists"),
        ("root: fake\nglobal: {age: [eye], pose: []}", "'pose' has no nodes"),
        ("root: fake\nglobal: {age: }", "'age' has no nodes"),
        ("root: fake\nglobal: {age: eye}", "expected a list, got 'eye'"),
        ("root: fake\nglobal: {age: [eye, eye]}", "names a node twice"),
        ("root: fake\nglobal: {age: [eyes]}\nlocal: [eye]", "'eyes' is not listed.*mean eye"),
        ("root: fake\nglobal: {age: [eye]}\nlocal: [eye, lip]", "'lip' belongs to no global"),
        ("root: fake\nglobal: {age: [fake]}", "'fake' is named twice"),
        ("root: fake\nglobal: {age: [no]}", "name is text, got False.*quotes"),
        ("root: fake\nglobals: {age: [eye]}", "unknown entry 'globals'; did you mean global"),
        (SMALL + "strict_root: maybe", "strict_root: expected true or false"),
        (SMALL + "exclusion: [[age, eye, skin]]", "pairs of two nodes"),
        (SMALL + "exclusion: [[age, age]]", "pairs of two nodes"),
        (SMALL + "exclusion: [[age, pos]]", "unknown node 'pos'; did you mean pose"),
        (SMALL + "prompts: {skins: x}", "prompts: unknown node 'skins'"),
        (SMALL + "prompts: [x]", "expected nodes with texts"),
        ("nodes: [a, b]\nsubsumption: [[a, b], [b, a]]", "cycle: . -> . -> "),
        ("nodes: [a, b]\nany_parent: {a: [b]}\nany_child: {a: [b]}", "cycle"),
        ("nodes: [a, b]\nany_child: {a: [a]}", "cycle"),
        ("nodes: [a, b]\nlevels: {x: [a]}", "'b' is in 0, not in one"),
        ("nodes: [a, b]\nlevels: {x: [b], y: [a]}", "first must hold the root"),
        ("nodes: []", "1 to 20 nodes"),
        (f"nodes: [{', '.join(f'n{i}' for i in range(21))}]", "1 to 20 nodes, got 21"),
        ("nodes: {a: b}", "expected a list, got a dict"),
        ("nodes: [a]\nname: [x]", "name: a graph's name is text"),
    ],
)  # fmt: skip
def test_a_bad_file_is_told_in_one_line(write, text, message):
    path = write(text)
    with pytest.raises(DataError, match=message) as caught:
        LabelGraph.from_yaml(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < len(str(path)) + 250


def test_a_missing_file(tmp_path):
    with pytest.raises(DataError, match="no such file; give a graph"):
        as_graph(str(tmp_path / "none.yaml"))


def test_wrong_widths_name_the_graph():
    graph = LabelGraph.ffsc()
    for call in (graph.marginals, graph.map_state, graph.is_legal):
        with pytest.raises(ValueError, match=r"\(B, 12\), one column per node of ffsc, got \(2,"):
            call(torch.zeros(2, 10))
    with pytest.raises(ValueError, match="labels must be"):
        graph.log_likelihood(torch.zeros(2, 12), torch.zeros(12))
