from __future__ import annotations

import numpy as np
import pytest
import torch
from papercommons.handwriting.gsc import FIXED_THRESHOLDS, gsc_batch, gsc_bits
from papercommons.handwriting.hog import hog_features
from ssl_hv.encoders import DESCRIPTORS, NETWORKS, LayoutResNet, create_encoder
from ssl_hv.verifier import as_ink
from torchvision.models import resnet18

SMALL = {
    "resnet18": {},
    "resnet-layout": {"width": 4},
    "vit-tiny": {},
    "bigan": {"hidden": (32,), "latent": 10},
    "flow": {"checkerboard": 2, "channel": 2, "width": 4, "depth": 1},
}
DIMS = {"resnet18": 512, "resnet-layout": 256, "vit-tiny": 64, "bigan": 10, "flow": 256}


def pictures(count=3, channels=1):
    """Dark bars on white, uint8."""
    images = torch.full((count, 1, 64, 64), 255, dtype=torch.uint8)
    for k in range(count):
        images[k, :, 20 : 40 + k, 10 + 4 * k : 14 + 5 * k] = 30
        images[k, :, 30:33, 8 : 40 + 3 * k] = 90
    return images.expand(-1, channels, -1, -1)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", SMALL)
def test_networks_give_one_vector_per_image(name, channels):
    torch.manual_seed(0)
    encoder = create_encoder(name, in_channels=channels, **SMALL[name])
    features = encoder(as_ink(pictures(channels=channels)))
    dim = DIMS[name] * (channels if name == "flow" else 1)
    assert features.shape == (3, encoder.dim) == (3, dim)
    assert torch.isfinite(features).all()
    features.square().sum().backward()
    grown = [p.grad.abs().sum() > 0 for p in encoder.parameters() if p.grad is not None]
    assert any(grown)


@pytest.mark.parametrize("name", SMALL)
def test_a_vector_does_not_depend_on_its_batch(name):
    torch.manual_seed(0)
    encoder = create_encoder(name, **SMALL[name]).eval()
    images = as_ink(pictures())
    with torch.no_grad():
        torch.testing.assert_close(encoder(images)[1:2], encoder(images[1:2]), rtol=1e-4, atol=1e-5)


def test_the_papers_transformer_has_its_sizes():
    with torch.device("meta"):
        encoder = create_encoder("vit-b32", image_size=224, in_channels=3)
        assert encoder(torch.rand(2, 3, 224, 224)).shape == (2, 768)
    assert 80e6 < sum(p.numel() for p in encoder.parameters()) < 90e6


def test_resnet18_is_torchvisions_without_its_classifier():
    torch.manual_seed(0)
    encoder, reference = create_encoder("resnet18", in_channels=3).eval(), resnet18().eval()
    reference.fc = torch.nn.Identity()
    reference.load_state_dict(encoder.network.state_dict())
    images = as_ink(pictures(2, 3))
    with torch.no_grad():
        torch.testing.assert_close(encoder(images), reference(images))


@pytest.mark.parametrize(("stem", "side"), [("imagenet", 2), ("small", 8)])
def test_the_stem_decides_how_fine_the_last_map_is(stem, side):
    encoder, seen = create_encoder("resnet18", stem=stem).eval(), []
    encoder.network.layer4.register_forward_hook(lambda *a: seen.append(a[2].shape[-1]))
    encoder(as_ink(pictures(1)))
    assert seen == [side]


def test_resnet_layout_sees_where_a_feature_lies():
    torch.manual_seed(0)
    encoder = LayoutResNet(width=4).eval()
    features = encoder.features(as_ink(pictures()))
    assert features.shape == (3, 32, 4, 4)
    with torch.no_grad():
        moved = encoder.embedding(features.roll(1, dims=3))
        assert (moved - encoder.embedding(features)).norm() > 0.1 * moved.norm()


def test_resnet_layout_grows_as_told():
    deep = LayoutResNet(width=4, blocks=2, dim=8, image_size=32)
    assert deep(torch.rand(2, 1, 32, 32)).shape == (2, 8)
    count = len([m for m in LayoutResNet(width=4).modules() if isinstance(m, torch.nn.Conv2d)])
    assert len([m for m in deep.modules() if isinstance(m, torch.nn.Conv2d)]) == count + 8


def test_descriptors_are_those_of_papercommons():
    images = pictures()
    grey = images[:, 0].numpy()
    raw, hog, gsc, bits = (create_encoder(name) for name in DESCRIPTORS)
    ink = as_ink(images)
    torch.testing.assert_close(raw(ink), ink.flatten(1))
    np.testing.assert_array_equal(hog(ink).numpy(), hog_features(grey))
    np.testing.assert_array_equal(gsc(ink).numpy(), gsc_batch(grey))
    np.testing.assert_array_equal(bits(ink).numpy(), gsc_bits(gsc_batch(grey), FIXED_THRESHOLDS))
    assert [d.dim for d in (raw, hog, gsc, bits)] == [4096, 1764, 512, 512]
    assert not [p for d in (raw, hog, gsc, bits) for p in d.parameters()]


def test_three_equal_channels_are_described_as_one():
    for name in DESCRIPTORS:
        one, three = (create_encoder(name)(as_ink(pictures(2, c))) for c in (1, 3))
        torch.testing.assert_close(one, three)


def test_thresholds_of_the_bits_are_medians_of_training_words():
    images, encoder = pictures(5), create_encoder("gsc-bits")
    encoder.fit(as_ink(images))
    densities = gsc_batch(images[:, 0].numpy())
    thresholds = np.median(densities, axis=0)
    np.testing.assert_allclose(encoder.thresholds.numpy(), thresholds, atol=1e-7)
    found = encoder(as_ink(images)).numpy()
    np.testing.assert_array_equal(found, gsc_bits(densities, thresholds))
    again = create_encoder("gsc-bits")
    again.load_state_dict(encoder.state_dict())
    np.testing.assert_array_equal(again(as_ink(images)).numpy(), found)


def test_descriptors_know_other_sizes():
    ink = as_ink(pictures())[..., 8:56, 8:56]
    for name in ("raw", "gsc", "gsc-bits"):
        encoder = create_encoder(name, image_size=48)
        assert encoder(ink).shape == (3, encoder.dim)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet19", {}, "no encoder resnet19; did you mean resnet18"),
        ("resnet18", {"stem": "tiny"}, "stem must be imagenet or small"),
        ("resnet-layout", {"image_size": 60}, "multiple of 16, got 60"),
        ("hog", {"image_size": 48}, "hog takes images of 64 x 64, got 48; pass --resize 64"),
    ],
)
def test_bad_options_are_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        create_encoder(name, **options)


def test_every_name_is_known():
    assert set(SMALL) | {"vit-b32"} == set(NETWORKS)
    with pytest.raises(TypeError, match="depth"):
        create_encoder("resnet-layout", depth=3)
