from __future__ import annotations

import numpy as np
import pytest
import torch
from defi_net.localizer import Localizer
from defi_net.model import DeFINet

PHOTO = np.random.default_rng(0).integers(0, 256, (75, 90, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return DeFINet("hrnet_tiny", width=8).eval()


@torch.no_grad()
def directly(network, photo):
    images = torch.from_numpy(photo).permute(2, 0, 1)[None].float() / 255
    return torch.cat(network.edge_and_probability(images), dim=1)[0].numpy()


def test_whole_is_the_network_itself(network):
    found = Localizer(network, way="whole").maps(PHOTO)
    assert found.shape == (2, 75, 90)
    np.testing.assert_allclose(found, directly(network, PHOTO), atol=1e-5)
    np.testing.assert_array_equal(Localizer(network, way="whole")(PHOTO), found[1])


def test_one_tile_is_whole_and_several_are_near(network):
    whole = directly(network, PHOTO)
    np.testing.assert_allclose(Localizer(network).maps(PHOTO), whole, atol=1e-5)
    tiles = Localizer(network, size=64, overlap=32).maps(PHOTO)
    assert tiles.shape == whole.shape
    assert np.abs(tiles - whole).mean() < 0.05
    assert (tiles != whole).any()


def test_through_a_square(network):
    found = Localizer(network, way="resize", size=32).maps(PHOTO)
    assert found.shape == (2, 75, 90)
    square = np.random.default_rng(1).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    same = Localizer(network, way="resize", size=32).maps(square)
    np.testing.assert_allclose(same, directly(network, square), atol=1e-5)


def test_evaluation_mode_device_and_precision(network, device):
    network.train()
    localizer = Localizer(network, way="whole", device=device, precision="bf16-mixed")
    assert not network.training
    found = localizer.maps(PHOTO)
    assert found.dtype == np.float32
    exact = Localizer(network, way="whole").maps(PHOTO)
    assert 0 < np.abs(found - exact).max() < 0.1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"way": "tile"}, "way must be one of tiles, resize, whole, got 'tile'"),
        ({"precision": "fp8"}, "precision must be one of 32-true, bf16-mixed, 16-mixed"),
        ({"size": 100}, "divisible by 8, got 100; try 96"),
    ],
)
def test_what_is_refused(network, options, message):
    with pytest.raises(ValueError, match=message):
        Localizer(network, **options).maps(PHOTO)
