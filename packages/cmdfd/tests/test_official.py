from __future__ import annotations

import json

import pytest
import torch
from cmdfd.model import CMDFDNet
from cmdfd.official import load_official, student_weights
from cmdfd.saved import load_network, save_network
from papercommons.errors import DataError


def test_a_checkpoint_with_more_than_the_network(tmp_path):
    torch.manual_seed(0)
    net = CMDFDNet()
    plain = net.state_dict()
    weights = {n if n.startswith("lossAV.") else f"model.{n}": v for n, v in plain.items()}
    weights |= {"lossA.FC.weight": torch.zeros(2, 128), "asr.outputConv.bias": torch.zeros(40)}
    torch.save(weights, tmp_path / "official.model")
    found = load_official(tmp_path / "official.model", legacy_concat=True)
    assert found.config["legacy_concat"]
    assert not found.training
    for name, value in found.state_dict().items():
        assert torch.equal(value, plain[name]), name
    del weights["model.crossA2V.linear1.bias"]
    torch.save(weights, tmp_path / "less.model")
    with pytest.raises(DataError, match=r"missing 1 \(crossA2V.linear1.bias\)"):
        load_official(tmp_path / "less.model")
    assert student_weights({"lossV.FC.bias": torch.zeros(2)}, plain) == {}


def test_a_checkpoint_that_runs_code_is_refused(tmp_path):
    torch.save({"model": CMDFDNet}, tmp_path / "bad.model")
    with pytest.raises(DataError, match="could run code"):
        load_official(tmp_path / "bad.model")
    with pytest.raises(DataError, match="no such file"):
        load_official(tmp_path / "none.model")


@torch.no_grad()
def test_a_network_comes_back(tiny, tmp_path):
    folder = save_network(tiny, tmp_path / "export", size=16, made_by="a test")
    again, config = load_network(tmp_path)
    assert not again.training
    assert config["size"] == 16
    inputs = torch.randn(1, 20, 13), torch.randint(0, 256, (1, 5, 16, 16))
    assert torch.equal(again(*inputs).logits, tiny(*inputs).logits)
    card = (folder / "README.md").read_text()
    for words in ("32 dimensions", "16 pixels", "a test", "no proof"):
        assert words in card


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"package": "semforge"}, "expected cmdfd, got .semforge."),
        ({"model": {"dim": 30}}, "multiple of heads"),
        ({"model": {"depth": 3}}, "unexpected keyword"),
        ({"model": {"dim": 64, "heads": 4}}, "does not fit CMDFDNet"),
    ],
)
def test_a_broken_configuration_is_told_in_one_line(tiny, tmp_path, change, message):
    config = save_network(tiny, tmp_path) / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | change))
    with pytest.raises(DataError, match=message) as caught:
        load_network(tmp_path)
    assert "\n" not in str(caught.value)
