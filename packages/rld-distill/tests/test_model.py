"""The 26 CIFAR networks against the public ones, and networks by name."""

from __future__ import annotations

import gzip
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from rld_distill import models
from rld_distill.zoo import create_model, input_normalization, list_models, published_classes
from torch.nn import functional as F

DATA = Path(__file__).parent / "data"

PARAMETERS = {
    "resnet8": 83_892,
    "resnet14": 181_108,
    "resnet20": 278_324,
    "resnet32": 472_756,
    "resnet44": 667_188,
    "resnet56": 861_620,
    "resnet110": 1_736_564,
    "resnet8x4": 1_233_540,
    "resnet32x4": 7_433_860,
    "wrn_16_1": 180_916,
    "wrn_16_2": 703_284,
    "wrn_16_4": 2_772_020,
    "wrn_28_2": 1_479_220,
    "wrn_28_4": 5_872_180,
    "wrn_40_1": 569_780,
    "wrn_40_2": 2_255_156,
    "vgg8": 3_965_028,
    "vgg11": 9_277_284,
    "vgg13": 9_462_180,
    "vgg16": 14_774_436,
    "vgg19": 20_086_692,
    "MobileNetV2": 812_836,
    "ShuffleV1": 949_258,
    "ShuffleV2": 1_355_528,
    "ResNet18": 11_220_132,
    "ResNet50": 23_705_252,
}
FAMILIES = [
    "resnet8x4",
    "wrn_16_2",
    "vgg8",
    "MobileNetV2",
    "ShuffleV1",
    "ShuffleV2",
    "ResNet18",
]
PARITY = np.load(DATA / "models.npz")
KEYS = json.loads(gzip.decompress((DATA / "state_dict_keys.json.gz").read_bytes()))


def images(batch=2, size=32, seed=0):
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(seed))


def test_lists_the_26_networks():
    assert list_models() == list(PARAMETERS)
    assert set(list_models()) == set(KEYS)


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_and_state_dict_are_those_of_the_public_checkpoints(name):
    with torch.device("meta"):
        network = create_model(name, 100)
    assert sum(p.numel() for p in network.parameters()) == PARAMETERS[name]
    assert {k: list(v.shape) for k, v in network.state_dict().items()} == KEYS[name]


@pytest.mark.parametrize("name", PARITY["names"].tolist())
def test_outputs_equal_the_reference(name, fill_weights, device):
    network = create_model(name, int(PARITY["num_classes"])).double().eval()
    fill_weights(network, int(PARITY["seed"]))
    network.to(device)
    x = torch.from_numpy(PARITY["input"]).to(device)
    expected = PARITY[f"{name}/logits"]
    scale = np.abs(expected).max()
    with torch.no_grad(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        features = network.forward_features(x.double())
        logits = network(x.double())
        logits_32 = network.float()(x)
    np.testing.assert_allclose(logits.cpu(), expected, rtol=0, atol=1e-8 * scale)
    np.testing.assert_allclose(logits_32.cpu(), expected, rtol=0, atol=1e-4 * scale)
    np.testing.assert_allclose(features.cpu(), PARITY[f"{name}/pooled"], rtol=1e-6, atol=1e-6)


def test_committed_vectors_are_the_full_ones(shared_files):
    parity = shared_files / "parity/rld-distill"
    assert json.loads((parity / "state_dict_keys.json").read_text()) == KEYS
    with np.load(parity / "models.npz") as full:
        assert sorted(full) == sorted(PARITY)
        for key in full:
            np.testing.assert_array_equal(full[key], PARITY[key])


@pytest.mark.parametrize("name", ["resnet8", "ShuffleV2"])
def test_a_checkpoint_laid_out_as_the_public_ones_loads(name, fill_weights):
    saved, loaded = create_model(name, 100), create_model(name, 100)
    fill_weights(saved, 1)
    file = io.BytesIO()
    torch.save({"model": saved.state_dict(), "epoch": 240}, file)
    file.seek(0)
    loaded.load_state_dict(torch.load(file, weights_only=True)["model"])
    torch.testing.assert_close(loaded.eval()(images()), saved.eval()(images()), rtol=0, atol=0)


@pytest.mark.parametrize("name", ["resnet8", "vgg8", "ShuffleV1"])
def test_the_seed_decides_the_weights(name):
    def logits(seed):
        torch.manual_seed(seed)
        return create_model(name, 10).eval()(images())

    assert torch.equal(logits(3), logits(3))
    assert not torch.equal(logits(3), logits(4))


@pytest.mark.parametrize("name", ["resnet8", "wrn_16_2", "vgg8", "MobileNetV2", "ResNet18"])
def test_convolutions_start_with_fan_out_variance(name):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = create_model(name, 10)
    for layer in network.modules():
        if isinstance(layer, torch.nn.Conv2d) and layer.weight.numel() > 10_000:
            k = layer.kernel_size[0]
            expected = (2 / (k * k * layer.out_channels)) ** 0.5
            assert layer.weight.std().item() == pytest.approx(expected, rel=0.05)
            assert layer.bias is None or not layer.bias.any()


def test_vgg_and_mobilenet_start_with_a_small_last_layer():
    for name in ("vgg8", "MobileNetV2"):
        last = list(create_model(name, 100).modules())[-1]
        assert last.weight.std().item() == pytest.approx(0.01, rel=0.05)
        assert not last.bias.any()


@pytest.mark.parametrize("name", FAMILIES)
def test_channels_last_gives_the_same_logits(name, fill_weights, device):
    network = create_model(name, 10)
    fill_weights(network, 2)
    network.eval().to(device)
    x = images().to(device)
    with torch.no_grad(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        expected = network(x)
        network.to(memory_format=torch.channels_last)
        actual = network(x.to(memory_format=torch.channels_last))
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())


@pytest.mark.parametrize("name", FAMILIES)
def test_every_parameter_gets_a_gradient(name, device):
    torch.manual_seed(0)
    network = create_model(name, 10).to(device).train()
    F.cross_entropy(network(images(8).to(device)), torch.arange(8, device=device)).backward()
    for key, p in network.named_parameters():
        assert p.grad is not None, key
        assert p.grad.isfinite().all(), key
        if p.ndim > 1:  # a bias in front of BN has gradient 0
            assert p.grad.any(), key


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("size", [28, 64])
def test_other_image_sizes(name, size, device):
    network = create_model(name, 5).to(device).eval()
    x = images(size=size).to(device)
    with torch.no_grad():
        logits = network(x)
        features = network.forward_features(x)
    assert logits.shape == (2, 5)
    assert features.shape == (2, KEYS[name][list(KEYS[name])[-2]][1])
    assert logits.isfinite().all()


@pytest.mark.parametrize(("size", "inside"), [(28, 3), (32, 4), (64, 4)])
def test_vgg_pools_once_more_for_large_images(size, inside):
    network = create_model("vgg8", 5).eval()
    seen = []
    network.block4.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[-2:]))
    network(images(size=size))
    assert seen == [(inside, inside)]


@pytest.mark.parametrize("name", ["wrn_16_1", "ShuffleV2"])
def test_compiles_to_one_graph(name):
    network = create_model(name, 5).eval()
    compiled = torch.compile(network, backend="eager", fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(images()), network(images()))


@pytest.mark.parametrize("name", ["resnet8", "ShuffleV1"])
def test_runs_in_bfloat16(name, device):
    network = create_model(name, 5).to(device)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        logits = network(images().to(device))
    assert logits.dtype == torch.bfloat16
    logits.float().sum().backward()
    assert all(p.grad.isfinite().all() for p in network.parameters())


def test_wrong_depths_are_refused():
    with pytest.raises(ValueError, match=r"depth must be 6n [+] 2 .* got 18"):
        models.CifarResNet(18, num_classes=10)
    with pytest.raises(ValueError, match=r"depth must be 6n [+] 4 .* got 20"):
        models.WideResNet(20, 2, num_classes=10)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("resnet32X4", "resnet32x4"),
        ("mobilenetv2", "MobileNetV2"),
        ("resnet18", "ResNet18"),
        ("wrn-40-2", "wrn_40_2"),
        ("shuffle_v1", "ShuffleV1"),
        ("timm:resnet181", "resnet18"),
        ("torchvision:resnet_18", "resnet18"),
    ],
)
def test_unknown_names_come_with_the_nearest(name, meant):
    with pytest.raises(ValueError, match=f"did you mean .*{meant}"):
        create_model(name, 10)
    with pytest.raises(ValueError, match=meant):
        input_normalization(name)


def test_errors_name_what_is_wrong():
    with pytest.raises(ValueError, match="unknown source in 'hub:resnet8'"):
        create_model("hub:resnet8", 10)
    with pytest.raises(ValueError, match="Invalid pretrained tag"):
        create_model("timm:resnet18.nonsense", 10)
    with pytest.raises(ValueError, match="num_classes must be >= 2, got 1"):
        create_model("resnet8", 1)
    with pytest.raises(ValueError, match="resnet8 has no weights to download"):
        create_model("resnet8", 10, pretrained=True)
    with pytest.raises(AttributeError, match="LeNet"):
        models.LeNet  # noqa: B018


@pytest.mark.parametrize(
    "name", ["timm:resnet10t", "timm:resnet18.a1_in1k", "torchvision:squeezenet1_1"]
)
def test_other_libraries_networks(name, device):
    network = create_model(name, 7).to(device).eval()
    assert network(images(size=64).to(device)).shape == (2, 7)


def test_side_heads_are_left_out():
    network = create_model("torchvision:googlenet", 7).train()
    assert network(images(size=64)).shape == (2, 7)


def test_published_classes():
    assert published_classes("torchvision:resnet18") == 1000
    assert published_classes("timm:resnet18") == 1000
    assert published_classes("resnet8") is None


def test_input_normalization():
    imagenet = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert input_normalization("resnet8") is None
    assert input_normalization("timm:resnet18") == imagenet
    assert input_normalization("torchvision:resnet18") == imagenet
    assert input_normalization("timm:vit_tiny_patch16_224") == ((0.5,) * 3, (0.5,) * 3)


def test_published_torchvision_weights_fill_all_but_the_head(monkeypatch):
    torchvision = pytest.importorskip("torchvision")
    published = torchvision.models.get_model("squeezenet1_1").state_dict()
    monkeypatch.setattr(
        torchvision.models.SqueezeNet1_1_Weights, "get_state_dict", lambda *_, **__: published
    )
    loaded = create_model("torchvision:squeezenet1_1", 7, pretrained=True).state_dict()
    new = [key for key in loaded if not torch.equal(loaded[key], published[key])]
    assert new == ["classifier.1.weight", "classifier.1.bias"]


@pytest.mark.parametrize("name", ["timm:resnet10t", "torchvision:resnet18"])
def test_weights_that_cannot_be_had_are_one_clear_error(name, monkeypatch):
    def offline(*_, **__):
        raise OSError("no\nnetwork")

    monkeypatch.setattr("timm.create_model", offline)
    monkeypatch.setattr("torchvision.models.ResNet18_Weights.get_state_dict", offline)
    with pytest.raises(RuntimeError, match=rf"weights of {name} could not .* \(no network\)"):
        create_model(name, 10, pretrained=True)


def test_imports_stay_light():
    code = (
        "import sys, rld_distill.zoo as zoo, rld_distill.models\n"
        "assert len(zoo.list_models()) == 26 and 'torch' not in sys.modules\n"
        "zoo.create_model('resnet8', 10)\n"
        "assert not {'timm', 'torchvision'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
