import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from ssl_hv.vit import (
    Transformer,
    VisionTransformer,
    patchify,
    sincos_positions,
    unpatchify,
    vit_b32,
    vit_tiny,
)


def images(n=3, channels=1, size=64, seed=0):
    return torch.rand(n, channels, size, size, generator=torch.Generator().manual_seed(seed))


@given(patch=st.sampled_from([1, 2, 4]), side=st.integers(1, 4), channels=st.integers(1, 3))
def test_patches_are_put_together_again(patch, side, channels):
    batch = images(2, channels, patch * side)
    patches = patchify(batch, patch)
    assert patches.shape == (2, side**2, channels * patch**2)
    assert torch.equal(unpatchify(patches, patch), batch)


def test_patches_run_row_by_row():
    batch = images(1, 2, 12)
    patches = patchify(batch, 4)
    assert torch.equal(patches[0, 5].reshape(2, 4, 4), batch[0, :, 4:8, 8:12])


def test_positions_differ_and_depend_on_row_and_column_apart():
    positions = sincos_positions(7, 64)
    distance = torch.cdist(positions, positions) + torch.eye(49)
    assert distance.min() > 0.1
    grid = positions.reshape(7, 7, 64)
    assert torch.equal(grid[2, 1, :32], grid[2, 5, :32])
    assert torch.equal(grid[0, 3, 32:], grid[6, 3, 32:])
    angle = 3 * 10_000 ** (-5 / 16)
    torch.testing.assert_close(grid[3, 0, 5], torch.tensor(angle).sin())
    torch.testing.assert_close(grid[0, 3, 32 + 16 + 5], torch.tensor(angle).cos())


@pytest.mark.parametrize("channels", [1, 3])
def test_shapes_and_gradients(channels):
    network = vit_tiny(channels)
    representation = network(images(2, channels))
    assert representation.shape == (2, network.dim) == (2, 64)
    representation.square().sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_blocks_start_different():
    first, second = vit_tiny().transformer.blocks
    assert not torch.equal(first.linear1.weight, second.linear1.weight)


def test_training_and_evaluation_agree():
    """Evaluation takes torch's fused path; there is no dropout."""
    network = vit_tiny()
    train = network(images())
    with torch.no_grad():
        torch.testing.assert_close(network.eval()(images()), train, rtol=1e-4, atol=1e-5)


def test_the_place_of_a_stroke_matters():
    network = vit_tiny().eval()
    batch = torch.zeros(2, 1, 64, 64)
    batch[0, :, :8, :8] = batch[1, :, 8:16, 8:16] = 1
    assert (network(batch)[0] - network(batch)[1]).abs().max() > 1e-4


@pytest.mark.parametrize("training", [True, False])
def test_hidden_tokens_have_no_influence(training):
    transformer = Transformer(16, 2, 4).train(training)
    tokens = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(0))
    visible = torch.ones(2, 5, 5, dtype=torch.bool)
    visible[1, :4, 4] = False
    changed = tokens.clone()
    changed[:, 4] *= -1
    with torch.no_grad():
        difference = (transformer(changed, visible) - transformer(tokens, visible)).abs().amax(2)
    assert difference[1, :4].max() == 0
    assert difference[0, :4].min() > 1e-4


def test_the_large_one_is_vit_b32():
    """Parameters of ViT-B/32 without class token, positions and classifier."""
    with torch.device("meta"):
        network = vit_b32(in_channels=3)
    block = 12 * 768**2 + 13 * 768
    patches = 3 * 32**2 * 768 + 768
    assert sum(p.numel() for p in network.parameters()) == 12 * block + patches + 2 * 768
    assert (network.tokens, network.dim) == (49, 768)


def test_state_round_trip():
    one, other = vit_tiny(), vit_tiny()
    other.load_state_dict(one.state_dict())
    assert torch.equal(one(images()), other(images()))


def test_compiles_without_a_break():
    network = vit_tiny()
    compiled = torch.compile(network, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(images()), network(images()))


def test_half_precision_stays_near(device):
    network = vit_tiny().to(device)
    batch = images().to(device)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        half = network(batch)
    torch.testing.assert_close(half.float(), network(batch), rtol=0.1, atol=0.1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 60}, "image_size must be a multiple of 8 pixels, got 60"),
        ({"width": 66, "heads": 3}, "width must be a multiple of 4, got 66"),
        ({"heads": 5}, "width must be a multiple of heads, got 64 and 5"),
    ],
)
def test_bad_sizes_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        VisionTransformer(**options)


def test_images_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"\(N, 1, 64, 64\), got \(2, 3, 64, 64\)"):
        vit_tiny()(images(2, channels=3))
