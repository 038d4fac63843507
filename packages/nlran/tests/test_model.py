import pytest
import torch
from nlran.attention import AttentionModule3d, CBAM3d, ResidualUnit3d
from nlran.model import NLRAN, nlran_base, nlran_large, nlran_tiny
from nlran.networks import create_network
from torch import nn


def scans(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def tiny():
    torch.manual_seed(0)
    network = nlran_tiny().eval()
    for part in network.modules():
        if isinstance(part, nn.BatchNorm3d):
            nn.init.normal_(part.running_mean, std=0.1)
            nn.init.normal_(part.bias, std=0.1)
    return network


class Constant(nn.Module):
    """Mask logits of one value everywhere."""

    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self, x):
        return torch.full_like(x, self.value)


@pytest.mark.parametrize(("logit", "factor"), [(-torch.inf, 1), (torch.inf, 2)])
def test_a_mask_of_zero_or_one_leaves_or_doubles_the_trunk(logit, factor):
    module = AttentionModule3d(8, 2).eval()
    module.head = Constant(logit)
    x = scans(2, 8, 5, 6, 7)
    trunk = module.trunk(module.first(x))
    torch.testing.assert_close(module(x), module.last(factor * trunk))


def test_naive_attention_learning_multiplies():
    module = AttentionModule3d(8, 1, residual=False).eval()
    x = scans(1, 8, 4, 4, 4)
    mask, trunk = module.branches(x)
    torch.testing.assert_close(module(x), module.last(mask * trunk))


def test_without_decoder_sums_only_the_skips_are_added():
    torch.manual_seed(0)
    module = AttentionModule3d(8, 2, decoder_sum=False).eval()
    x = scans(1, 8, 8, 8, 8)

    def pool(t):
        return nn.functional.max_pool3d(t, 3, 2, 1)

    def up(t, like):
        return nn.functional.interpolate(t, like.shape[2:], mode="trilinear", align_corners=True)

    first = module.first(x)
    d1 = module.down[0](pool(first))
    e1 = module.up[0](up(module.bottom(pool(d1)), d1) + module.skip[0](d1))
    mask = module.head(up(e1, first)).sigmoid()
    torch.testing.assert_close(module.branches(x)[0], mask)


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("size", [(17, 23, 29), (1, 2, 3), (8, 8, 8)])
def test_mask_of_any_size_is_between_zero_and_one(depth, size):
    module = AttentionModule3d(8, depth).eval()
    mask, trunk = module.branches(scans(1, 8, *size))
    assert mask.shape == trunk.shape == (1, 8, *size)
    assert mask.min() > 0
    assert mask.max() < 1


@pytest.mark.parametrize(("depth", "parameters"), [(3, 118_272), (2, 90_816), (1, 63_360)])
def test_parameters_of_the_attention_modules(depth, parameters):
    assert sum(p.numel() for p in AttentionModule3d(64, depth).parameters()) == parameters


def test_parameters_of_a_unit():
    assert sum(p.numel() for p in ResidualUnit3d(64).parameters()) == 9152


def test_shortcut_takes_the_activated_input():
    unit = ResidualUnit3d(8, in_channels=4, stride=2).eval()
    unit.conv3.weight.data.zero_()
    x = scans(1, 4, 6, 6, 6) - 0.5
    torch.testing.assert_close(unit(x), unit.shortcut(unit.bn1(x).relu()))


def test_base_has_the_shapes_of_the_table():
    features = nlran_base().eval().features(scans(1, 1, 64, 128, 128))
    assert features.mask.shape == features.trunk.shape == (1, 64, 16, 32, 32)
    assert features.stage1.shape == (1, 64, 16, 32, 32)
    assert features.non_local.shape == (1, 128, 8, 16, 16)
    assert features.last.shape == (1, 512, 2, 4, 4)


def test_large_is_the_pattern_of_attention_92():
    kinds = [part.depth for part in nlran_large().modules() if isinstance(part, AttentionModule3d)]
    assert kinds == [3, 2, 2, 1, 1, 1]


def test_logits_do_not_depend_on_batch_mates(tiny):
    x = scans(4, 1, 16, 20, 24)
    alone = torch.cat([tiny(one[None]) for one in x])
    torch.testing.assert_close(tiny(x), alone, rtol=1e-4, atol=1e-5)


def test_features_and_classify_are_the_forward_pass(tiny):
    x = scans(2, 1, 16, 16, 16)
    torch.testing.assert_close(tiny.classify(tiny.features(x).last), tiny(x))


@pytest.mark.parametrize("size", [(16, 16, 16), (17, 23, 29), (16, 40, 18)])
@pytest.mark.parametrize("norm", ["batch", "group"])
def test_any_size_trains(size, norm):
    network = nlran_tiny(norm=norm)
    loss = network(scans(2, 1, *size)).square().sum()
    loss.backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in network.parameters())


def test_group_norm_allows_one_scan_and_does_not_mix_scans():
    network = nlran_tiny(norm="group")
    assert not any(isinstance(part, nn.BatchNorm3d) for part in network.modules())
    x = scans(2, 1, 16, 16, 16)
    torch.testing.assert_close(network(x)[:1], network(x[:1]), rtol=1e-4, atol=1e-5)


def test_the_new_non_local_block_changes_nothing():
    torch.manual_seed(3)
    with_block = nlran_tiny().eval()
    without = nlran_tiny(non_local_after=()).eval()
    weights = {k: v for k, v in with_block.state_dict().items() if k in without.state_dict()}
    without.load_state_dict(weights)
    x = scans(1, 1, 16, 16, 16)
    assert torch.equal(with_block(x), without(x))


@pytest.mark.parametrize("name", ["nlran", "ran3d", "nlresnet3d", "plain3d", "cbam3d"])
def test_ablations_by_name(name):
    network = create_network(name, 4, variant="tiny").eval()
    parts = [type(part) for part in network.modules()]
    assert (AttentionModule3d in parts) == (name in ("nlran", "ran3d"))
    assert any(p.__name__ == "NonLocalBlock3d" for p in parts) == (name in ("nlran", "nlresnet3d"))
    assert (CBAM3d in parts) == (name == "cbam3d")
    assert network(scans(2, 1, 16, 16, 16)).shape == (2, 4)


def test_an_ablation_without_attention_is_the_module_with_a_zero_mask():
    torch.manual_seed(0)
    module = AttentionModule3d(8, 1).eval()
    module.head = Constant(-torch.inf)
    plain = nn.Sequential(module.first, *module.trunk, module.last)
    x = scans(1, 8, 4, 4, 4)
    torch.testing.assert_close(module(x), plain(x))


def test_config_builds_the_same_network(tiny):
    again = NLRAN(**tiny.config).eval()
    again.load_state_dict(tiny.state_dict())
    x = scans(1, 1, 16, 16, 16)
    assert torch.equal(again(x), tiny(x))


def test_an_attention_module_compiles_without_a_break():
    module = AttentionModule3d(4, 1).eval()
    x = scans(1, 4, 4, 4, 4)
    compiled = torch.compile(module, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x), module(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes": 0}, "num_classes"),
        ({"depths": ((3,),)}, "depths"),
        ({"widths": (6, 16, 32, 64)}, "multiple of 4"),
        ({"non_local_after": (5,)}, "non_local_after"),
        ({"attention": "x"}, "attention"),
        ({"norm": "x"}, "norm"),
        ({"depths": ((0,), (1,), ())}, "depth"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        NLRAN(**options)


def test_wrong_input_and_wrong_names_are_one_line(tiny):
    with pytest.raises(ValueError, match=r"\(B, 1, D, H, W\), got \(2, 3, 16, 16, 16\)"):
        tiny(scans(2, 3, 16, 16, 16))
    with pytest.raises(ValueError, match="did you mean nlran"):
        create_network("nlrann")
    with pytest.raises(ValueError, match="variant"):
        create_network("nlran", variant="huge")
    with pytest.raises(ValueError, match="reduction"):
        CBAM3d(8, reduction=16)
    with pytest.raises(ValueError, match="odd"):
        CBAM3d(16, kernel=4)
