import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from nlran.features import Features
from nlran.heatmaps import HEAT_MAPS, heat_maps, scale_maps, to_input_grid
from nlran.model import nlran_tiny
from nlran.networks import create_network
from torch import nn


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    network = nlran_tiny(4).eval()
    for part in network.modules():
        if isinstance(part, nn.BatchNorm3d):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias, std=0.3)
    return network


@pytest.fixture(scope="module")
def volumes():
    return torch.rand(2, 1, 32, 32, 48, generator=torch.Generator().manual_seed(0))


def test_mean_of_cam_plus_bias_is_the_logit(network, volumes):
    for target in range(4):
        of = torch.full((2,), target)
        logits, maps = heat_maps(network, volumes, ["cam"], target=of)
        total = maps["cam"].mean((1, 2, 3)) + network.head.bias[target]
        torch.testing.assert_close(total, logits[:, target], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("back", [[], ["gradcam-stage1"]])
def test_gradcam_is_the_positive_cam_over_the_number_of_positions(network, volumes, back):
    _, maps = heat_maps(network, volumes, ["cam", "gradcam", *back])
    expected = maps["cam"].relu() / maps["cam"][0].numel()
    torch.testing.assert_close(maps["gradcam"], expected, rtol=1e-5, atol=1e-8)


def test_maps_are_what_they_are_called(network, volumes):
    features = network.features(volumes)
    _, maps = heat_maps(network, volumes, HEAT_MAPS)
    torch.testing.assert_close(maps["mask"], features.mask.mean(1))
    torch.testing.assert_close(maps["trunk"], features.trunk.abs().mean(1))
    torch.testing.assert_close(maps["mask-trunk"], (features.mask * features.trunk).abs().mean(1))
    assert maps["nonlocal"].shape == (2, 8, 8, 12)
    torch.testing.assert_close(maps["nonlocal"].sum((1, 2, 3)), torch.ones(2))


def test_stage_one_gradcam_follows_the_logit_by_differences(network, volumes, monkeypatch):
    """alpha_k is how the logit moves when channel k of stage 1 moves everywhere."""
    network, one = network.double(), volumes[:1].double()
    logits, maps = heat_maps(network, one, ["gradcam-stage1"])
    stage1 = network.features(one).stage1[0].detach()
    module, shift = network.stages[0][1], torch.zeros(8, dtype=torch.double)
    merge = module.merge
    monkeypatch.setattr(module, "merge", lambda m, t: merge(m, t) + shift[:, None, None, None])

    def logit(channel, step):
        shift.zero_()[channel] = step
        return network(one)[0, logits.argmax()]

    with torch.no_grad():
        slopes = [(logit(k, 1e-7) - logit(k, -1e-7)) / 2e-7 for k in range(8)]
    network.float()
    alpha = torch.stack(slopes) / stage1[0].numel()
    expected = torch.einsum("k,k...->...", alpha, stage1).relu().float()
    near = {"rtol": 1e-3, "atol": 1e-4 * float(expected.max())}
    torch.testing.assert_close(maps["gradcam-stage1"][0], expected, **near)


def test_works_in_inference_mode_and_leaves_no_gradients(network, volumes):
    with torch.inference_mode():
        batch = volumes.clone()
        logits, _ = heat_maps(network, batch, HEAT_MAPS)
    torch.testing.assert_close(logits, network(volumes).detach(), rtol=1e-4, atol=1e-5)
    assert all(p.grad is None for p in network.parameters())
    assert not logits.requires_grad


def test_a_map_the_network_lacks_is_named():
    plain = create_network("plain3d", variant="tiny").eval()
    volumes = torch.rand(1, 1, 16, 16, 16)
    with pytest.raises(ValueError, match="no map mask; it has cam, gradcam, gradcam-stage1"):
        heat_maps(plain, volumes, ["mask"])


@pytest.mark.parametrize("stride", [2, 4, 8])
@pytest.mark.parametrize("size", [(32, 32, 48), (33, 40, 47)])
def test_a_centre_lands_on_the_voxel_it_saw(stride, size):
    """The i-th output of symmetric layers of stride s sees input s * i in its middle."""
    count = [-(-length // stride) for length in size]
    for place in ([0, 0, 0], [1, 2, 1], [c - 1 for c in count]):
        maps = torch.zeros(1, *count)
        maps[0, place[0], place[1], place[2]] = 1
        spread = to_input_grid(maps, size)[0]
        assert spread.shape == size
        assert spread[tuple(stride * i for i in place)] == 1


def test_the_network_sees_a_voxel_where_the_map_puts_it():
    """A lone bright voxel moves the first stage most at the map position of that voxel."""
    torch.manual_seed(0)
    stem = nlran_tiny(stem_pool=True).eval().stem
    for conv in stem.modules():
        if isinstance(conv, nn.Conv3d):
            conv.weight.data.abs_()
    volume = torch.zeros(1, 1, 32, 32, 32)
    volume[0, 0, 12, 20, 8] = 1
    moved = (stem(volume) - stem(volume * 0)).abs().mean(1)
    spread = to_input_grid(moved, (32, 32, 32))[0]
    assert spread.argmax() == (12 * 32 + 20) * 32 + 8


@given(
    low=st.floats(-100, 100),
    span=st.floats(0.01, 100),
    seed=st.integers(0, 100),
)
def test_scaled_maps_fill_zero_to_one(low, span, seed):
    maps = torch.rand(3, 2, 3, 4, generator=torch.Generator().manual_seed(seed))
    scaled = scale_maps(low + span * maps)
    assert scaled.amin((1, 2, 3)).tolist() == [0, 0, 0]
    torch.testing.assert_close(scaled.amax((1, 2, 3)), torch.ones(3))


def test_a_constant_map_becomes_zeros():
    assert scale_maps(torch.full((1, 2, 2, 2), 3.0)).abs().max() == 0


def test_features_default_to_none():
    assert Features(torch.zeros(1))[1:] == (None, None, None, None)
