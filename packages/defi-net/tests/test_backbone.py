from __future__ import annotations

import pytest
import timm
import torch
from defi_net import backbone
from defi_net.backbone import HRNet, create_backbone
from papercommons.errors import DataError
from torch import nn


def timm_maps(network, images):
    """Section 3.1: timm's network as the authors use it."""
    network.conv1.stride = network.conv2.stride = (1, 1)
    network.stage3, network.stage4 = network.stage3[:1], network.stage4[:1]
    for module in network.modules():
        if isinstance(module, nn.Upsample):
            module.mode, module.align_corners = "bilinear", True
    x = network.act1(network.bn1(network.conv1(images)))
    return network.stages(network.act2(network.bn2(network.conv2(x))))


@pytest.fixture(scope="module")
def theirs():
    torch.manual_seed(0)
    return timm.create_model("hrnet_w18_small_v2").eval()


@torch.no_grad()
def test_it_is_timms_network_at_full_resolution(theirs):
    ours = HRNet().eval()
    weights = theirs.state_dict()
    assert len(ours.state_dict()) == 444
    ours.load_state_dict({name: weights[name] for name in ours.state_dict()})
    images = torch.randn(1, 3, 32, 48)
    maps = ours(images)
    for i, (a, b) in enumerate(zip(maps, timm_maps(theirs, images), strict=True)):
        assert a.shape == (1, 18 * 2**i, 32 // 2**i, 48 // 2**i)
        assert torch.equal(a, b)


def test_pretrained_weights_are_timms(theirs, monkeypatch):
    asked = []

    def create(name, **options):
        asked.append((name, options))
        return theirs

    monkeypatch.setattr(backbone.timm, "create_model", create)
    ours = create_backbone(pretrained=True)
    assert asked == [("hrnet_w18_small_v2", {"pretrained": True, "in_chans": 3})]
    assert torch.equal(ours.stage4[0].branches[3][1].conv2.weight, dict(theirs.named_parameters())[
        "stage4.0.branches.3.1.conv2.weight"
    ])  # fmt: skip


def test_without_a_network_pretrained_weights_are_a_clear_error(monkeypatch):
    def create(name, pretrained=False, **options):
        raise OSError("Temporary failure in name resolution")

    monkeypatch.setattr(backbone.timm, "create_model", create)
    with pytest.raises(DataError, match=r"cannot be fetched .*name resolution"):
        create_backbone(pretrained=True)


def test_momentum_is_the_papers():
    norms = [m for m in create_backbone().modules() if isinstance(m, nn.BatchNorm2d)]
    assert {norm.momentum for norm in norms} == {0.01}
    tiny = [m for m in create_backbone("hrnet_tiny").modules() if isinstance(m, nn.BatchNorm2d)]
    assert {norm.momentum for norm in tiny} == {0.1}


def test_the_tiny_one_is_that_of_the_small_experiment():
    tiny = create_backbone("hrnet_tiny")
    assert tiny.conv1.out_channels == tiny.conv2.out_channels == 16
    assert len(tiny.layer1) == 1
    assert tiny.layer1[0].conv3.out_channels == 32
    assert tiny.channels == (6, 12, 24, 48)


@pytest.mark.parametrize(
    ("name", "channels", "stride"),
    [("resnet18", (64, 64, 128, 256), 2), ("convnext_atto", (40, 80, 160, 320), 4)],
)
def test_other_networks_of_timm(name, channels, stride):
    network = create_backbone(name).eval()
    assert (network.channels, network.stride) == (channels, stride)
    with torch.no_grad():
        maps = network(torch.rand(1, 3, 64, 64))
    assert [x.shape[1] for x in maps] == list(channels)
    assert [64 // x.shape[-1] for x in maps] == [stride * 2**i for i in range(4)]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet81", {}, "no backbone resnet81; did you mean resnet"),
        ("hf-hub:someone/model", {}, "no backbone hf-hub:someone/model"),
        ("vit_tiny_patch16_224", {}, "must be .* and halve"),
        ("swin_tiny_patch4_window7_224", {}, "they are NHWC"),
        ("resnet18", {"stem_stride": 2}, "stem_stride and options are for"),
        ("hrnet_tiny", {"pretrained": True}, "pretrained weights are for hrnet_w18_small_v2"),
    ],
)
def test_bad_names(name, options, message):
    with pytest.raises(ValueError, match=message):
        create_backbone(name, **options)
