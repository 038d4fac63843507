"""The comparison networks: those of torchvision and MONAI behind the package's interface."""

from __future__ import annotations

import sys

import pytest
import torch
from nlran.covnet import COVNet
from nlran.densenet import DenseNet3d
from nlran.heatmaps import heat_maps
from nlran.resnet3d import ResNet3d, published_state
from papercommons.errors import DataError
from torchvision.models import get_model
from torchvision.models.video import R3D_18_Weights, r3d_18


def scans(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def shake_norms(network):
    """Give batch norms statistics as after training, so that no layer is the identity."""
    generator = torch.Generator().manual_seed(1)
    for part in network.modules():
        if isinstance(part, torch.nn.modules.batchnorm._BatchNorm):
            part.running_mean.normal_(0, 0.1, generator=generator)
            part.running_var.uniform_(0.8, 1.2, generator=generator)
    return network.eval()


@pytest.mark.parametrize(
    ("make", "parameters"),
    [
        (lambda: ResNet3d(18), 33_167_811),
        (lambda: COVNet(3), 23_514_179),
        (lambda: DenseNet3d(3), 11_245_699),
    ],
    ids=["resnet3d", "covnet", "densenet3d"],
)
def test_parameters(make, parameters):
    if make().__class__ is DenseNet3d:
        pytest.importorskip("monai")
    with torch.device("meta"):
        network = make()
    assert sum(p.numel() for p in network.parameters()) == parameters


@pytest.mark.parametrize("depth", [18, 34, 50])
def test_resnet3d_classifies_its_features(depth):
    network = shake_norms(ResNet3d(depth))
    x = scans(2, 1, 9, 17, 20)
    with torch.no_grad():
        last, stage1, *rest = network.features(x)[:5]
        torch.testing.assert_close(network(x), network.head(last.mean((2, 3, 4))))
    assert last.shape[1] == network.head.in_features
    assert last.shape[2:] == (2, 2, 2)
    assert stage1.shape[2:] == (9, 9, 10)
    assert rest == [None, None, None]


def test_resnet3d_is_torchvisions_on_normalised_grey_video():
    ours = shake_norms(ResNet3d(18))
    theirs = r3d_18(num_classes=3).eval()
    state = {k.replace("head.", "fc."): v for k, v in ours.state_dict().items()}
    theirs.load_state_dict(state)
    x = scans(1, 1, 8, 24, 24)
    preset = R3D_18_Weights.KINETICS400_V1.transforms()
    video = x.expand(1, 3, 8, 24, 24)
    mean, std = (torch.tensor(v).view(3, 1, 1, 1) for v in (preset.mean, preset.std))
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs((video - mean) / std))


def test_resnet3d_refuses_what_does_not_exist():
    with pytest.raises(ValueError, match="18, 34, 50, got 20"):
        ResNet3d(20)
    with pytest.raises(ValueError, match="depth 18 only"):
        ResNet3d(50, pretrained=True)


def test_a_failing_download_is_one_line(monkeypatch):
    def no_network(*args, **kwargs):
        raise OSError("no route\nto host")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", no_network)
    with pytest.raises(RuntimeError, match=r"R3D_18.*KINETICS400_V1.*\(no route\); connect"):
        published_state(R3D_18_Weights.KINETICS400_V1)


@pytest.fixture(scope="module")
def covnet():
    torch.manual_seed(0)
    return shake_norms(COVNet(3, backbone="resnet18", slice_chunk=4))


def test_covnet_is_the_maximum_over_a_resnets_slices(covnet):
    resnet = get_model("resnet18", weights=None, num_classes=3).eval()
    state = {k.removeprefix("backbone."): v for k, v in covnet.state_dict().items()}
    resnet.load_state_dict({k.replace("head.", "fc."): v for k, v in state.items()})
    classify, resnet.fc = resnet.fc, torch.nn.Identity()
    x = scans(1, 1, 6, 40, 33)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    images = (x[0, 0, :, None] - mean[:, None, None]) / std[:, None, None]
    with torch.no_grad():
        expected = classify(resnet(images).max(0, keepdim=True).values)
        torch.testing.assert_close(covnet(x), expected)


def test_covnet_treats_unequal_scans_as_one_at_a_time(covnet):
    slices = torch.tensor([3, 7, 1])
    x = scans(3, 1, 7, 32, 32)
    for scan, count in zip(x, slices, strict=True):
        scan[:, count:] = 1e3  # padding that would win every maximum
    with torch.no_grad():
        together = covnet(x, slices)
        alone = [covnet(scan[None, :, :n]) for scan, n in zip(x, slices, strict=True)]
        torch.testing.assert_close(together, torch.cat(alone))
        last = covnet.features(x, slices).last
        torch.testing.assert_close(covnet.classify(last), together)
        torch.testing.assert_close(last[0, :, :3], covnet.features(x[:1, :, :3]).last[0])
    assert last.shape == (3, 512, 7, 1, 1)
    assert (last[0, :, 3:] == 0).all()


def test_padding_changes_neither_gradients_nor_statistics():
    torch.manual_seed(0)
    network = COVNet(3, backbone="resnet18")
    begun = {name: value.clone() for name, value in network.state_dict().items()}
    slices = torch.tensor([2, 4])
    padded = scans(2, 1, 9, 32, 32)
    found = []
    for x in (padded, padded[:, :, :4]):
        network.load_state_dict(begun)
        network.zero_grad()
        network(x, slices).square().sum().backward()
        found.append((network.backbone.conv1.weight.grad.clone(), network.backbone.bn1.running_var))
    torch.testing.assert_close(found[0], found[1])


def test_chunks_of_slices_change_nothing_and_bound_the_memory(covnet):
    from papercommons.testing.timing import peak_memory

    x = scans(1, 1, 32, 32, 32)
    logits, peaks = [], []
    for chunk in (2, 32):
        covnet.slice_chunk = chunk
        with torch.no_grad():
            logits.append(covnet(x))
            peaks.append(peak_memory(lambda: covnet(x)))
    covnet.slice_chunk = 4
    torch.testing.assert_close(*logits)
    assert peaks[0] < peaks[1] / 4


def test_the_winning_slices_add_up_to_the_logit(covnet):
    x = scans(2, 1, 5, 64, 64)
    with torch.no_grad():
        last = covnet.features(x).last
        winner = last.mean((3, 4)).argmax(2)
        index = winner[:, :, None, None, None].expand(-1, -1, 1, *last.shape[3:])
        maps = torch.einsum("ck,bkshw->bchw", covnet.head.weight, last.gather(2, index))
        torch.testing.assert_close(maps.mean((2, 3)) + covnet.head.bias, covnet(x))


def test_covnets_cam_is_of_the_winning_slices_and_adds_up_to_the_logit(covnet):
    x = scans(2, 1, 5, 32, 32)
    logits, maps = heat_maps(covnet, x, ["cam"], target=torch.tensor([0, 2]))
    total = maps["cam"].values.mean((1, 2, 3)) + covnet.head.bias[[0, 2]]
    torch.testing.assert_close(total, logits[[0, 1], [0, 2]], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("slices", [[0, 3], [3, 5], [3]])
def test_covnet_checks_slice_counts(covnet, slices):
    with pytest.raises(ValueError, match="slices must be 2 numbers from 1 to 4"):
        covnet(scans(2, 1, 4, 32, 32), torch.tensor(slices))


def test_covnet_checks_the_rest(covnet):
    with pytest.raises(ValueError, match=r"\(B, 1, S, H, W\), got \(2, 3, 4, 32, 32\)"):
        covnet(scans(2, 3, 4, 32, 32))
    with pytest.raises(ValueError, match="resnet50, got vgg16"):
        COVNet(backbone="vgg16")
    with pytest.raises(ValueError, match="slice_chunk must be >= 1, got 0"):
        COVNet(slice_chunk=0)


@pytest.fixture(scope="module")
def densenets():
    """Our DenseNet and MONAI's with the same weights."""
    nets = pytest.importorskip("monai.networks.nets.densenet")
    torch.manual_seed(0)
    ours = shake_norms(DenseNet3d(3))
    theirs = nets.DenseNet121(spatial_dims=3, in_channels=1, out_channels=3).eval()
    theirs.features.load_state_dict(ours.trunk.state_dict())
    theirs.class_layers.out.load_state_dict(ours.head.state_dict())
    return ours, theirs


def test_densenet3d_is_monais(densenets):
    ours, theirs = densenets
    x = scans(1, 1, 29, 32, 33)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x))
        assert ours.features(x).stage1.shape == (1, 256, 8, 8, 9)


@pytest.mark.parametrize(
    ("ours_kind", "layer"),
    [("gradcam", "class_layers.relu"), ("gradcam-stage1", "features.denseblock1")],
)
def test_grad_cam_is_monais(densenets, ours_kind, layer):
    from monai.visualize.class_activation_maps import GradCAM

    ours, theirs = densenets
    x = scans(1, 1, 32, 64, 32)
    monai = GradCAM(theirs, layer)
    expected = torch.cat([monai.compute_map(x, class_idx=c)[:, 0] for c in range(3)])
    _, maps = heat_maps(ours, x.expand(3, -1, -1, -1, -1), [ours_kind], target=torch.arange(3))
    assert expected.max() > 0
    scale = expected.max()
    torch.testing.assert_close(maps[ours_kind].values / scale, expected / scale, rtol=0, atol=1e-4)


def test_densenet3d_needs_29_voxels():
    pytest.importorskip("monai")
    with torch.device("meta"):
        network = DenseNet3d(3)
        with pytest.raises(ValueError, match=r"29 voxels along each axis, got \(28, 32, 32\)"):
            network(torch.empty(1, 1, 28, 32, 32))


def test_densenet3d_without_monai_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "monai.networks.nets.densenet", None)
    with pytest.raises(DataError, match=r'pip install "nlran\[monai\]"'):
        DenseNet3d(3)
