import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from nlran.features import Features, Place
from nlran.heatmaps import HEAT_MAPS, Map, heat_maps, scale_maps, to_input_grid
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
        total = maps["cam"].values.mean((1, 2, 3)) + network.head.bias[target]
        torch.testing.assert_close(total, logits[:, target], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("back", [[], ["gradcam-stage1"]])
def test_gradcam_is_the_positive_cam_over_the_number_of_positions(network, volumes, back):
    _, maps = heat_maps(network, volumes, ["cam", "gradcam", *back])
    cam = maps["cam"].values
    expected = cam.relu() / cam[0].numel()
    torch.testing.assert_close(maps["gradcam"].values, expected, rtol=1e-5, atol=1e-8)


def test_maps_are_what_they_are_called(network, volumes):
    features = network.features(volumes)
    _, maps = heat_maps(network, volumes, HEAT_MAPS)
    torch.testing.assert_close(maps["mask"].values, features.mask.mean(1))
    torch.testing.assert_close(maps["trunk"].values, features.trunk.abs().mean(1))
    torch.testing.assert_close(
        maps["mask-trunk"].values, (features.mask * features.trunk).abs().mean(1)
    )
    assert maps["nonlocal"].values.shape == (2, 8, 8, 12)
    torch.testing.assert_close(maps["nonlocal"].values.sum((1, 2, 3)), torch.ones(2))


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
    torch.testing.assert_close(maps["gradcam-stage1"].values[0], expected, **near)


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


@pytest.mark.parametrize("stride", [1.0, 2.0, 3.0, 4.0, 8.0])
@pytest.mark.parametrize("size", [(32, 32, 48), (33, 40, 47)])
def test_a_value_stands_on_the_voxel_it_saw(stride, size):
    count = [-(-length // int(stride)) for length in size]
    for at in ([0, 0, 0], [1, 2, 1], [c - 1 for c in count]):
        values = torch.zeros(1, *count)
        values[0, at[0], at[1], at[2]] = 1
        spread = to_input_grid(Map(values, Place((stride,) * 3)), size)[0]
        assert spread.shape == size
        assert spread[tuple(int(stride) * i for i in at)] == 1


def centre_of_sight(network, part, index, size):
    """Where in the input the gradient of one value of a feature map has its centre of mass."""
    x = torch.rand(1, 1, *size, generator=torch.Generator().manual_seed(0)).requires_grad_()
    sight = torch.zeros(size)
    for seed in range(4):
        for layer in network.modules():
            if hasattr(layer, "reset_parameters"):
                torch.manual_seed(seed)
                layer.reset_parameters()
        value = getattr(network.features(x), part)[(0, slice(None), *index)].sum()
        sight += torch.autograd.grad(value, x)[0][0, 0].abs()
    axes = [sight.sum([a for a in range(3) if a != axis]) for axis in range(3)]
    return [float((m * torch.arange(len(m))).sum() / m.sum()) for m in axes]


@pytest.mark.parametrize(
    ("name", "part", "options", "size", "index"),
    [
        ("nlran", "trunk", {"variant": "tiny"}, (48, 48, 48), (12, 11, 10)),
        (
            "nlran",
            "trunk",
            {"variant": "tiny", "stem_stride": (3, 1, 2)},
            (48, 32, 48),
            (8, 15, 12),
        ),
        ("plain3d", "stage1", {"variant": "tiny"}, (48, 48, 48), (12, 11, 10)),
        ("plain3d", "last", {"variant": "tiny"}, (96, 96, 96), (3, 3, 2)),
        ("resnet3d", "stage1", {}, (16, 32, 32), (8, 7, 6)),
    ],
)
def test_a_network_sees_what_its_place_says(name, part, options, size, index):
    network = create_network(name, **options).eval()
    places = network.features(torch.zeros(1, 1, *size))
    stride, first = places.last_place if part == "last" else places.stage1_place
    expected = [f + s * i for f, s, i in zip(first, stride, index, strict=True)]
    seen = centre_of_sight(network, part, index, size)
    assert seen == pytest.approx(expected, abs=max(0.6, 0.15 * max(stride)))


def test_densenets_last_cells_lie_between_its_pairs():
    pytest.importorskip("monai")
    network = create_network("densenet121").eval()
    place = network.features(torch.zeros(1, 1, 32, 32, 32)).last_place
    x = torch.rand(1, 1, 96, 32, 32).requires_grad_()
    last = network.features(x).last[0, :, 1].sum()
    sight = torch.autograd.grad(last, x)[0].abs().sum((0, 1, 3, 4))
    centre = float((sight * torch.arange(96)).sum() / sight.sum())
    assert centre == pytest.approx(place.first[0] + place.stride[0], abs=4)


def test_subsampled_keys_lie_between_their_pairs():
    network = nlran_tiny(subsample=True).eval()
    features = network.features(torch.zeros(1, 1, 32, 32, 32))
    assert features.non_local_place == Place((4.0, 8.0, 8.0), (0.0, 2.0, 2.0))
    _, maps = heat_maps(network, torch.rand(1, 1, 32, 32, 32), ["nonlocal"])
    assert maps["nonlocal"].values.shape == (1, 8, 4, 4)


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
    assert Features(torch.zeros(1))[1:5] == (None, None, None, None)
