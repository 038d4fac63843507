from __future__ import annotations

import json

import pytest
import torch
from papercommons.errors import DataError
from ssl_hv.encoders import LayoutResNet, create_encoder
from ssl_hv.saved import load_encoder, save_encoder
from ssl_hv.verifier import SiameseVerifier

TINY = {"in_channels": 3, "width": 4, "dim": 8, "image_size": 32}


@pytest.fixture
def saved(tmp_path):
    torch.manual_seed(0)
    encoder = LayoutResNet(**TINY).eval()
    about = {"method": "vicreg", "made_by": "a test", "data_hash": "abc"}
    return encoder, save_encoder(
        encoder, tmp_path / "x", name="resnet-layout", options=TINY, **about
    )


def test_a_saved_encoder_comes_back(saved):
    encoder, folder = saved
    again, config = load_encoder(folder)
    assert not again.training
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(again(images), encoder(images))
    assert (config["kind"], config["method"], config["data_hash"]) == ("encoder", "vicreg", "abc")


def test_its_card_says_what_it_takes_and_gives(saved):
    card = (saved[1] / "README.md").read_text()
    assert "(N, 3, 32, 32)" in card
    assert "(N, 8)" in card
    assert "pre-trained with vicreg" in card
    assert "no verdicts" in card


def test_the_encoder_of_a_verifier_can_be_taken(tmp_path):
    verifier = SiameseVerifier("resnet-layout", "cosine", encoder_options=TINY).eval()
    verifier.save_pretrained(tmp_path)
    encoder, _ = load_encoder(tmp_path)
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(encoder(images), verifier.embed(images))


def test_thresholds_of_bits_are_kept(tmp_path):
    encoder = create_encoder("gsc-bits")
    encoder.thresholds.copy_(torch.rand(512))
    save_encoder(encoder, tmp_path, name="gsc-bits", options={})
    assert torch.equal(load_encoder(tmp_path)[0].thresholds, encoder.thresholds)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoder": "resnet19"}, "no encoder resnet19"),
        ({"encoder_options": {"depth": 3}}, "depth"),
        ({"encoder_options": TINY | {"width": 8}}, "does not fit LayoutResNet"),
        ({"encoder": None}, "config.json"),
        ({"encoder_options": TINY | {"width": 10**9}}, "config.json"),
        ({"encoder_options": TINY | {"width": 20_000}}, "far larger than its file"),
        ({"encoder_options": TINY | {"image_size": 10**6}}, "image_size must be at most 4,096"),
        ({"encoder_options": TINY | {"blocks": 10**9}}, "blocks must be at most 100"),
    ],
)
def test_a_broken_configuration_is_told_in_one_line(saved, change, message):
    config = saved[1] / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | change))
    with pytest.raises(DataError, match=message) as caught:
        load_encoder(saved[1])
    assert "\n" not in str(caught.value)


def test_other_peoples_configurations_are_told_apart(saved):
    config = saved[1] / "config.json"
    config.write_text('{"model": "bert"}')
    with pytest.raises(DataError, match="entry package: expected ssl-hv, got None"):
        load_encoder(saved[1])
