from __future__ import annotations

import json
import pickle

import pytest
import torch
from papercommons.errors import DataError
from ssl_hv.encoders import LayoutResNet
from ssl_hv.heads import CosineHead, LogisticHead
from ssl_hv.saved import save_encoder
from ssl_hv.verifier import SiameseVerifier, as_ink

TINY = {"width": 4, "dim": 8, "image_size": 32}
HEADS = {"pair": {"product": True}, "cosine": {"whiten": True}, "logistic": {}}
by_head = pytest.mark.parametrize("head", HEADS)


def make(head="pair"):
    torch.manual_seed(0)
    verifier = SiameseVerifier(
        "resnet-layout", head, encoder_options=TINY, head_options=HEADS[head]
    ).eval()
    x = torch.randn(40, 8)
    if isinstance(verifier.head, CosineHead):
        verifier.head.fit(x, torch.arange(40) % 4)
    if isinstance(verifier.head, LogisticHead):
        verifier.head.fit(x[:20], x[20:], torch.arange(20) % 2)
    for name, value in (("slope", 3.5), ("intercept", -1.25), ("threshold", 1 / 3)):
        getattr(verifier, name).fill_(value)
    return verifier


def images(seed=0, count=4):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 1, 32, 32), generator=generator, dtype=torch.uint8)


@by_head
def test_the_order_of_the_two_does_not_matter(head):
    verifier, a, b = make(head), images(0), images(1)
    scores = verifier(a, b)
    assert scores.shape == (4,)
    torch.testing.assert_close(scores, verifier(b, a), rtol=0, atol=1e-5)
    torch.testing.assert_close(
        scores, verifier.score(verifier.embed(a), verifier.embed(b)), rtol=1e-4, atol=1e-5
    )


def test_a_word_is_most_like_itself():
    verifier, a = make("cosine"), images(0, 8)
    own, others = verifier(a, a), verifier(a, a.roll(1, 0))
    torch.testing.assert_close(own, torch.ones(8))
    assert (others < own).all()


def test_bytes_are_dark_on_white_and_floats_are_ink():
    verifier, a = make(), images()
    assert as_ink(torch.tensor([0, 255], dtype=torch.uint8)).tolist() == [1, 0]
    ink = 1 - a.float() / 255
    assert as_ink(ink) is ink
    assert torch.equal(verifier.embed(a), verifier.embed(ink))


def test_likelihood_ratios_are_a_line_in_the_score():
    verifier = make()
    found = verifier.log_likelihood_ratio(torch.tensor([0.0, 2.0]))
    assert found.dtype == torch.float64
    assert found.tolist() == [-1.25, 5.75]
    assert verifier.is_calibrated
    assert not SiameseVerifier("bigan", "cosine").is_calibrated


def test_scores_are_float32_inside_autocast():
    verifier, a, b = make(), images(0), images(1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        scores = verifier(a, b)
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores, verifier(a, b), rtol=0.1, atol=0.1)


@by_head
def test_a_saved_verifier_comes_back_to_the_last_bit(head, tmp_path):
    verifier, a, b = make(head), images(0), images(1)
    folder = verifier.save_pretrained(tmp_path / "run" / "export", made_by="a test", data_hash="x")
    again = SiameseVerifier.from_pretrained(tmp_path / "run")
    assert not again.training
    assert torch.equal(again(a, b), verifier(a, b))
    for name, value in verifier.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
        assert again.state_dict()[name].dtype == value.dtype
    assert (again.channels, again.image_size) == (1, 32)
    card = (folder / "README.md").read_text()
    assert "a test" in card
    assert "no proof of authorship" in " ".join(card.split())
    config = json.loads((folder / "config.json").read_text())
    assert (config["made_by"], config["head"]) == ("a test", head)


@by_head
def test_it_travels_to_other_processes(head):
    verifier, a, b = make(head), images(0), images(1)
    assert torch.equal(pickle.loads(pickle.dumps(verifier))(a, b), verifier(a, b))


def test_an_encoder_alone_is_no_verifier(tmp_path):
    save_encoder(LayoutResNet(**TINY), tmp_path, name="resnet-layout", options=TINY)
    with pytest.raises(DataError, match="an encoder, no verifier; ssl-hv-train"):
        SiameseVerifier.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ('"resnet-layout"', '"resnet-layuot"', "did you mean resnet-layout"),
        ('"head": "pair"', '"head": "pairs"', "head must be one of pair, cosine, logistic"),
        ('"width": 4', '"width": 8', "does not fit SiameseVerifier"),
        ('"width": 4', '"widht": 4', "widht"),
        ('"product"', '"products"', "products"),
        ('"resnet-layout"', "null", r"config\.json"),
        ("{", "", r"config\.json"),
    ],
)
def test_a_broken_configuration_is_told_in_one_line(before, after, message, tmp_path):
    make().save_pretrained(tmp_path)
    config = tmp_path / "config.json"
    assert before in config.read_text()
    config.write_text(config.read_text().replace(before, after, 1))
    with pytest.raises(DataError, match=message) as caught:
        SiameseVerifier.from_pretrained(tmp_path)
    assert "\n" not in str(caught.value)


def test_broken_and_missing_weights_are_named(tmp_path):
    with pytest.raises(DataError, match="no saved network"):
        SiameseVerifier.from_pretrained(tmp_path)
    make().save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-9])
    with pytest.raises(DataError, match=r"model\.safetensors: not a readable checkpoint"):
        SiameseVerifier.from_pretrained(tmp_path)
    weights.unlink()
    with pytest.raises(DataError, match=r"model\.safetensors"):
        SiameseVerifier.from_pretrained(tmp_path)


def test_an_unknown_head_is_refused():
    with pytest.raises(ValueError, match="head must be one of pair, cosine, logistic, got cos"):
        SiameseVerifier("bigan", "cos")


def test_an_encoder_of_ones_own_can_be_put_in():
    class Own(torch.nn.Module):
        dim = 16

        def forward(self, ink):
            return torch.nn.functional.adaptive_avg_pool2d(ink, 4).flatten(1)

    verifier = SiameseVerifier(Own(), "cosine")
    assert verifier.encoder_name == "Own"
    assert verifier(images(0), images(0)).tolist() == pytest.approx([1] * 4)
