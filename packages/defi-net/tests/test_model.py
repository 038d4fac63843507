from __future__ import annotations

import pytest
import torch
from defi_net.edges import edge_label
from defi_net.losses import boundary_loss, structure_loss
from defi_net.model import NORMALIZATIONS, DeFINet
from defi_net.pyramid import mixed
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F


def tiny(width=4, **options):
    torch.manual_seed(0)
    return DeFINet("hrnet_tiny", width, **options)


def count(module):
    return sum(p.numel() for p in module.parameters())


def test_parameters_of_the_paper():
    model = DeFINet()
    assert count(model.backbone) == 2_028_572
    assert count(model.neck.top_down) == 219_264
    assert count(model.neck.bottom_up) == 201_728
    assert count(model.neck.output) == 182_144
    assert count(model.head.ream) == 185_507
    assert count(model.head.saff) == 5_743
    assert count(model) == 2_822_958


@pytest.mark.parametrize(
    ("neck", "head", "parameters"),
    [
        ("dfpl", "ream-saff", 164_418),
        ("dfpl", "sum", 152_406),
        ("fpn", "sum", 136_206),
        ("unet", "sum", 148_830),
    ],
)
def test_parameters_of_the_small_experiment(neck, head, parameters):
    assert count(tiny(12, neck=neck, head=head)) == parameters


SIZES = st.tuples(st.integers(16, 41), st.integers(16, 41))
MODEL = tiny().eval()


@given(SIZES)
@torch.no_grad()
def test_results_have_the_size_of_the_image(size):
    probability = MODEL.probabilities(torch.rand(1, 3, *size))
    assert probability.shape == (1, 1, *size)
    assert probability.dtype == torch.float32
    assert 0 <= probability.min() <= probability.max() <= 1


@torch.no_grad()
def test_padding_is_by_reflection_and_cut_again():
    images = torch.randn(1, 3, 21, 30)
    by_hand = MODEL(F.pad(images, (0, 2, 0, 3), mode="reflect"))
    for ours, whole in zip(MODEL(images), by_hand, strict=True):
        assert torch.equal(ours, whole[..., :21, :30])


@torch.no_grad()
def test_images_do_not_see_each_other():
    images, order = torch.randn(3, 3, 24, 32), [2, 0, 1]
    for ours, theirs in zip(MODEL(images[order]), MODEL(images), strict=True):
        torch.testing.assert_close(ours, theirs[order], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("neck", ["dfpl", "fpn", "unet"])
@pytest.mark.parametrize("head", ["ream-saff", "sum"])
def test_every_parameter_learns(neck, head):
    model = tiny(neck=neck, head=head)
    masks = (torch.rand(2, 1, 32, 32) > 0.5).float()
    edge, mask = model(torch.randn(2, 3, 32, 32))
    (5 * structure_loss(mask, masks) + boundary_loss(edge, edge_label(masks))).backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None]


def without_gradient(model, logits):
    model.zero_grad(set_to_none=True)
    logits.square().mean().backward()
    return {name for name, p in model.named_parameters() if p.grad is None}


def test_each_loss_reaches_what_the_paper_lets_it_reach():
    model, images = tiny(), torch.randn(2, 3, 32, 32)
    names = {name for name, _ in model.named_parameters()}
    by_mask = without_gradient(model, model(images)[1])
    assert by_mask == {n for n in names if n.startswith(("head.ream.att", "head.ream.edge_head"))}
    by_edge = without_gradient(model, model(images)[0])
    unseen = ("head.saff", "neck.output.3", "neck.bottom_up.mix.3", "neck.bottom_up.smooth.3")
    assert by_edge == {n for n in names if n.startswith(unseen)}


@pytest.mark.parametrize("stride", [2, 4])
def test_a_coarser_stem(stride):
    model = tiny(stem_stride=stride).eval()
    assert model.multiple == 8 * stride
    images = torch.rand(1, 3, 33, 50)
    with torch.no_grad():
        assert model.backbone(torch.rand(1, 3, 64, 64))[0].shape[-1] == 64 // stride
        edge, mask = model(images)
    assert edge.shape == mask.shape == (1, 1, 33, 50)


@pytest.mark.parametrize("name", ["resnet18", "convnext_atto"])
def test_backbones_of_timm(name):
    model = DeFINet(name, 4).eval()
    with torch.no_grad():
        assert model.probabilities(torch.rand(1, 3, 40, 70)).shape == (1, 1, 40, 70)


@pytest.mark.parametrize("stem", ["srm", "bayar"])
def test_stems_stand_in_front(stem):
    model = tiny(stem=stem).eval()
    assert model.backbone.conv1.in_channels == model.stem.channels
    with torch.no_grad():
        flat, brighter = torch.full((1, 3, 32, 32), 0.2), torch.full((1, 3, 32, 32), 0.6)
        logits = [model(model.normalize(x))[1][..., 12:20, 12:20] for x in (flat, brighter)]
    assert torch.isfinite(logits[0]).all()


@torch.no_grad()
def test_the_fusion_starts_as_a_sum():
    high = torch.randn(2, 8, 4, 4)
    ones = tiny(8).head.saff.train().weights(high)
    assert ones.shape == (2, 2, 2, 32, 32)
    assert ones.mean() == pytest.approx(1, abs=1e-4)
    assert ones.std() == pytest.approx(0.1, abs=0.005)
    official = tiny(8, saff_init="official").head.saff.train().weights(high)
    assert official.mean() == pytest.approx(0, abs=1e-4)
    assert official.std() == pytest.approx(1, abs=0.05)


def test_reverse_attention_falls_where_attention_rises():
    ream = tiny().head.ream
    with torch.no_grad():
        ream.attention.weight.zero_()
        ream.attention.weight[:, :, 3, 3] = 1.0
        mid = torch.linspace(-3, 3, 16).view(1, 1, 4, 4).expand(1, 4, 4, 4)
        reverse = ream.reverse_attention(mid)
    torch.testing.assert_close(reverse, 1 - torch.sigmoid(2 * mid[:, :1]))


@given(st.integers(1, 3), st.integers(0, 2), st.integers(1, 4))
def test_mixing_is_a_convolution_of_the_concatenation(own, more, channels):
    maps = [torch.randn(2, channels, 8, 12, dtype=torch.float64) for _ in range(own)]
    coarser = [torch.randn(2, channels, 4, 6, dtype=torch.float64) for _ in range(more)]
    conv = nn.Conv2d((own + more) * channels, 3, 1).double()
    up = [F.interpolate(x, scale_factor=2, mode="bilinear") for x in coarser]
    torch.testing.assert_close(mixed(conv, maps, coarser), conv(torch.cat([*maps, *up], 1)))


def step(model, images):
    torch.manual_seed(1)
    edge, mask = model.train()(images)
    (edge.square().mean() + mask.square().mean()).backward()
    return mask.detach(), {n: p.grad for n, p in model.named_parameters()}, model.state_dict()


def test_checkpointing_gives_the_same_gradients_and_statistics():
    images = torch.randn(2, 3, 32, 32)
    plain, kept = (step(tiny(checkpointing=c), images) for c in (False, True))
    torch.testing.assert_close(kept[0], plain[0])
    torch.testing.assert_close(kept[1], plain[1], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(kept[2], plain[2])


def test_checkpointing_holds_less():
    def held(checkpointing):
        model, size = tiny(checkpointing=checkpointing).train(), 0

        def pack(x):
            nonlocal size
            size += x.nbytes
            return x

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            model(torch.randn(2, 3, 32, 32))
        return size

    assert held(True) < 0.5 * held(False)


@pytest.mark.parametrize("name", NORMALIZATIONS)
def test_normalization_centres(name):
    mean, std = (torch.tensor(v) for v in NORMALIZATIONS[name])
    model = tiny(normalization=name)
    images = torch.stack([mean, mean + std])[..., None, None].expand(2, 3, 16, 16)
    normal = model.normalize(images)
    torch.testing.assert_close(normal[0], torch.zeros(3, 16, 16), atol=1e-6, rtol=0)
    torch.testing.assert_close(normal[1], torch.ones(3, 16, 16))
    assert not {"mean", "std"} & set(model.state_dict())


def test_bfloat16_is_near(device):
    model = tiny().eval().to(device)
    images = torch.rand(1, 3, 32, 32, device=device)
    with torch.no_grad():
        exact = model.probabilities(images)
        with torch.autocast(device.type, torch.bfloat16):
            half = model.probabilities(images)
    assert half.dtype == torch.float32
    assert (half - exact).abs().max() < 0.05


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"neck": "bifpn"}, "neck must be one of dfpl, fpn, unet, got bifpn"),
        ({"head": "mlp"}, "head must be ream-saff or sum, got mlp"),
        ({"stem": "dct"}, "stem must be one of rgb, srm, bayar, got dct"),
        ({"saff_init": "zeros"}, "saff_init must be ones or official, got zeros"),
        ({"normalization": "none"}, "normalization must be one of imagenet"),
        ({"stem_stride": 3}, "stem_stride must be 1, 2 or 4, got 3"),
        ({"width": 0}, "width must be 1 to 1024, got 0"),
        ({"backbone_options": {"channels": (1, 2)}}, "widths and blocks must be 1 to 4096"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        DeFINet("hrnet_tiny", **{"width": 4, **options})


@pytest.mark.parametrize("shape", [(1, 3, 15, 40), (1, 1, 32, 32), (3, 32, 32)])
def test_bad_images(shape):
    with pytest.raises(ValueError, match=r"images must be \(N, 3, H, W\) with sides >= 16"):
        MODEL(torch.zeros(shape))


@pytest.mark.slow
@torch.no_grad()
def test_it_compiles_whole():
    images = torch.rand(1, 3, 30, 45)
    compiled = torch.compile(MODEL, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(images), MODEL(images))
