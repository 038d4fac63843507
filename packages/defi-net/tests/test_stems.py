from __future__ import annotations

import pytest
import torch
from defi_net.stems import STEMS, BayarStem, SRMStem


def test_srm_is_the_published_one(parity):
    vectors = parity("filters")
    stem = SRMStem()
    torch.testing.assert_close(stem.weight, vectors["srm9_weight"])
    torch.testing.assert_close(stem(vectors["srm_in"]), vectors["srm_out"], atol=1e-4, rtol=1e-5)


def test_bayar_is_the_published_one(parity):
    vectors = parity("filters")
    stem = BayarStem()
    stem.load_state_dict({"taps": vectors["bayar_free"]})
    torch.testing.assert_close(stem.weight, vectors["bayar_weight"], atol=1e-6, rtol=1e-6)
    outputs = stem(vectors["srm_in"] / 255)
    torch.testing.assert_close(outputs, vectors["bayar_out_pad2"], atol=1e-5, rtol=1e-5)


def test_residual_stems_do_not_see_constant_colours():
    flat = torch.tensor([0.2, 0.5, 0.9]).view(1, 3, 1, 1).expand(1, 3, 16, 16)
    for name in ("srm", "bayar"):
        inner = STEMS[name]()(flat)[..., 2:-2, 2:-2]
        torch.testing.assert_close(inner, torch.zeros_like(inner), atol=1e-6, rtol=0)
    assert torch.equal(STEMS["rgb"]()(flat), flat)


@pytest.mark.parametrize("name", STEMS)
def test_channels_are_as_said(name):
    stem = STEMS[name]()
    assert stem(torch.rand(2, 3, 16, 18)).shape == (2, stem.channels, 16, 18)


def test_only_bayar_learns_and_keeps_its_rule():
    assert not list(SRMStem().parameters())
    assert not SRMStem().state_dict()
    stem = BayarStem()
    optimizer = torch.optim.SGD(stem.parameters(), lr=0.5)
    stem(torch.rand(1, 3, 16, 16)).square().mean().backward()
    before = stem.taps.clone()
    optimizer.step()
    assert not torch.equal(stem.taps, before)
    weight = stem.weight
    torch.testing.assert_close(weight.sum((2, 3)), torch.zeros(3, 3), atol=1e-5, rtol=0)
    assert (weight[..., 2, 2] == -1).all()
