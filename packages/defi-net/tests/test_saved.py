from __future__ import annotations

import json

import pytest
import torch
from defi_net.model import DeFINet
from defi_net.official import OUR_NAMES, load_official, our_names
from defi_net.saved import load_network
from papercommons.errors import DataError
from safetensors.torch import save_file

SMALL = {"width": 4, "backbone_options": {"channels": (2, 4, 6, 8), "planes": 4, "stem_width": 8}}


def network(**options):
    torch.manual_seed(0)
    return DeFINet("hrnet_tiny", **{"width": 4, **options}).eval()


@pytest.fixture
def saved(tmp_path):
    model = network(stem="bayar", stem_stride=2, normalization="official-train")
    return model, model.save_pretrained(tmp_path / "run/export", made_by="a test", size=64)


def test_a_saved_network_comes_back(saved):
    model, folder = saved
    for path in (folder, folder.parent):
        again, config = load_network(path)
        assert again.config == model.config
        assert not again.training
        images = torch.rand(1, 3, 40, 33)
        assert torch.equal(again.probabilities(images), model.probabilities(images))
        assert (config["made_by"], config["size"], config["package"]) == ("a test", 64, "defi-net")
    assert isinstance(DeFINet.from_pretrained(folder), DeFINet)


def test_options_of_the_backbone_are_kept(tmp_path):
    model = DeFINet(**SMALL)
    again, _ = load_network(model.save_pretrained(tmp_path))
    assert again.backbone.channels == (2, 4, 6, 8)


def test_its_card_says_what_it_takes_and_where_it_ends(saved):
    card = (saved[1] / "README.md").read_text()
    assert "sides >= 16" in card
    assert "official-train" in card
    assert "no proof" in card


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"package": "semforge"}, "expected defi-net, got 'semforge'"),
        ({"model": None}, "config.json: "),
        ({"model": {"backbone": "hrnet_tiny", "width": 8}}, "does not fit DeFINet"),
        ({"model": {"backbone": "resnet81"}}, "no backbone resnet81"),
        ({"model": {"backbone": ["a"]}}, "config.json: "),
        ({"model": {"depth": 3}}, "depth"),
        ({"model": {"width": "4"}}, "config.json: "),
        ({"model": {"width": 10**9}}, "width must be 1 to 1024"),
        ({"model": {"backbone_options": {"planes": 10**6}}}, "must be 1 to 4096"),
        ({"model": {"backbone_options": {"planes": 4096, "channels": [4096] * 4}}}, "far larger"),
        ({"size": 10**9}, r"size must be in \[16, 4096\], got 1000000000"),
        ({"size": "x"}, "size must be in"),
    ],
)
def test_a_broken_configuration_is_told_in_one_line(saved, change, message):
    config = saved[1] / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | change))
    with pytest.raises(DataError, match=message) as caught:
        load_network(saved[1])
    assert "\n" not in str(caught.value)


def test_a_configuration_cannot_make_it_fetch_weights(saved, monkeypatch):
    def refuse(*args, **options):
        raise AssertionError("fetched")

    monkeypatch.setattr("defi_net.backbone._fetch", refuse)
    config = saved[1] / "config.json"
    content = json.loads(config.read_text())
    content["model"]["pretrained"] = True
    config.write_text(json.dumps(content))
    load_network(saved[1])


def official_names(weights):
    """Our weights as the authors' code would save them, from DataParallel."""
    theirs = {ours: name for name, ours in OUR_NAMES.items()}
    renamed = {}
    for name, value in weights.items():
        prefix = next(p for p in theirs if name.startswith(p))
        renamed[f"module.{theirs[prefix]}{name.removeprefix(prefix)}"] = value
    return renamed


@pytest.mark.parametrize("kind", ["pth", "safetensors", "wrapped"])
def test_published_checkpoints_load(tmp_path, kind):
    model = DeFINet(**SMALL).eval()
    weights = official_names(model.state_dict())
    assert "module.gfpn.td_fusion.conv1x1_dict.101.weight" in weights
    path = tmp_path / f"weights.{'safetensors' if kind == 'safetensors' else 'pth'}"
    if kind == "safetensors":
        save_file({k: v.contiguous() for k, v in weights.items()}, path)
    else:
        torch.save({"state_dict": weights} if kind == "wrapped" else weights, path)
    again = load_official(path, **SMALL)
    assert again.config["normalization"] == "official-test"
    images = torch.randn(1, 3, 24, 24)
    with torch.no_grad():
        for ours, theirs in zip(again(images), model(images), strict=True):
            assert torch.equal(ours, theirs)


def test_every_weight_has_its_own_name():
    model = DeFINet(**SMALL)
    weights = model.state_dict()
    back = our_names({k.removeprefix("module."): v for k, v in official_names(weights).items()})
    assert back.keys() == weights.keys()
    assert len(set(OUR_NAMES.values())) == len(OUR_NAMES)
    assert "dff.other" in our_names({"dff.other": torch.zeros(1)})


def test_other_checkpoints_are_refused(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(official_names(DeFINet(**SMALL).state_dict()), path)
    with pytest.raises(DataError, match=r"does not fit DeFINet: .*backbone\.conv1\.weight"):
        load_network(path)
    torch.save({"layer.weight": torch.zeros(2)}, path)
    with pytest.raises(DataError, match="no published checkpoint of DeFI-Net"):
        load_network(path)
    path.write_bytes(b"\x80\x04not torch")
    with pytest.raises(DataError, match=r"weights\.pth"):
        load_network(path)
    with pytest.raises(DataError, match="no saved network"):
        load_network(tmp_path / "absent")
