from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
import torch
from papercommons.errors import DataError
from safetensors.torch import save_file
from semforge.backbones import CLIP_MEAN, create_backbone
from torch import nn


def test_tiny_on_any_size():
    backbone = create_backbone("tiny")
    assert (backbone.dim, backbone.image_size, backbone.mean) == (128, 64, (0.5, 0.5, 0.5))
    assert backbone(torch.rand(2, 3, 64, 64)).shape == (2, 128)
    assert create_backbone("tiny", image_size=48)(torch.rand(2, 3, 48, 48)).shape == (2, 128)


@pytest.mark.parametrize(
    ("name", "dim", "size", "mean"),
    [
        ("legacy_xception", 2048, 299, (0.5, 0.5, 0.5)),
        ("vit_base_patch32_clip_224", 512, 224, CLIP_MEAN),
        ("vit_base_patch32_clip_quickgelu_224.openai", 512, 224, CLIP_MEAN),
        ("mobilenetv3_small_050", 1024, 224, (0.485, 0.456, 0.406)),
    ],
)
def test_networks_of_timm_say_what_they_take_and_give(name, dim, size, mean):
    backbone = create_backbone(name).eval()
    with torch.inference_mode():
        features = backbone(torch.rand(2, 3, size, size))
    assert features.shape == (2, dim)
    assert (backbone.dim, backbone.image_size) == (dim, size)
    assert backbone.mean == pytest.approx(mean)


def test_another_size():
    vit = create_backbone("vit_base_patch32_clip_224", image_size=64)
    assert vit(torch.rand(1, 3, 64, 64)).shape == (1, 512)
    assert create_backbone("legacy_xception", image_size=96).image_size == 96


def test_weights_files_with_and_without_classifier(tmp_path):
    torch.manual_seed(0)
    source = create_backbone("resnet10t").network
    weights = dict(source.state_dict())
    with_fc = tmp_path / "fc.safetensors"
    save_file({**weights, "fc.weight": torch.zeros(7, 512), "fc.bias": torch.zeros(7)}, with_fc)
    loaded = create_backbone("resnet10t", pretrained=str(with_fc)).network
    assert all(torch.equal(loaded.state_dict()[k], v) for k, v in weights.items())
    other = tmp_path / "other.safetensors"
    save_file({"a": torch.zeros(1)}, other)
    with pytest.raises(DataError, match="does not fit"):
        create_backbone("tiny", pretrained=str(other))
    with pytest.raises(DataError, match="no such file"):
        create_backbone("tiny", pretrained=str(tmp_path / "none.pth"))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("legacy_xceptoin", {}, "unknown backbone.*did you mean legacy_xception"),
        ("tinny", {}, "did you mean tiny"),
        ("resnet18.nowhere", {}, "timm has no weights 'resnet18.nowhere'"),
        ("hf-hub:someone/something", {}, "unknown backbone"),
        ("local-dir:/tmp", {}, "unknown backbone"),
        ("tiny", {"pretrained": True}, "tiny has no published weights"),
        ("tiny", {"image_size": 8}, r"image_size must be in \[32, 1024\], got 8"),
    ],
)
def test_bad_names(name, options, message):
    with pytest.raises(ValueError, match=message):
        create_backbone(name, **options)


def test_weights_that_cannot_be_loaded(monkeypatch):
    import timm

    def fail(*_, **__):
        raise OSError("no route to host\nmore")

    monkeypatch.setattr(timm, "create_model", fail)
    with pytest.raises(RuntimeError, match=r"resnet18 could not be loaded \(no route to host\)"):
        create_backbone("resnet18", pretrained=True)


def test_open_clip_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(DataError, match=r'pip install "semforge\[open-clip\]"'):
        create_backbone("open_clip:ViT-B-32-quickgelu")


class Tower(nn.Module):
    output_dim, image_size = 8, (32, 32)
    image_mean, image_std = (0.1, 0.2, 0.3), (1.0, 1.0, 1.0)

    def __init__(self):
        super().__init__()
        self.projection = nn.Linear(3, 8)

    def forward(self, images):
        return self.projection(images.mean((2, 3)))


@pytest.fixture
def open_clip(monkeypatch):
    """A stand-in with the names of open_clip that are used."""

    def create_model(arch, pretrained=None, force_image_size=None):
        if pretrained:
            raise OSError("offline")
        clip = nn.Module()
        clip.visual = Tower()
        return clip

    module = SimpleNamespace(
        create_model=create_model, list_models=lambda: ["ViT-B-32", "ViT-B-32-quickgelu"]
    )
    monkeypatch.setitem(sys.modules, "open_clip", module)


def test_image_towers_of_open_clip(open_clip):
    backbone = create_backbone("open_clip:ViT-B-32")
    assert (backbone.dim, backbone.image_size, backbone.mean) == (8, 32, (0.1, 0.2, 0.3))
    assert backbone(torch.rand(2, 3, 32, 32)).shape == (2, 8)
    with pytest.raises(
        ValueError, match="open_clip has no model 'ViT-B-23'; did you mean ViT-B-32"
    ):
        create_backbone("open_clip:ViT-B-23")
    with pytest.raises(RuntimeError, match=r"could not be loaded \(offline\)"):
        create_backbone("open_clip:ViT-B-32", pretrained=True)


def test_the_installed_open_clip():
    pytest.importorskip("open_clip")
    backbone = create_backbone("open_clip:ViT-B-32-quickgelu")
    assert (backbone.dim, backbone.image_size) == (512, 224)
    assert backbone.mean == pytest.approx(CLIP_MEAN)
