import pytest
import torch
from gits_sampling.unet import UNet, create_network


def shaken(network):
    """The network with weights that are not zero anywhere."""
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
    return network.eval()


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 4, 12), (1, 28, 28)])
def test_any_size_that_four_divides(shape):
    network = shaken(create_network("unet", shape, options={"width": 8, "blocks": 1}))
    x, noise = torch.randn(2, *shape), torch.tensor([-1.0, 0.5])
    output = network(x, noise)
    assert output.shape == x.shape
    for row in range(2):  # samples do not see each other
        alone = network(x[row : row + 1], noise[row : row + 1])[0]
        torch.testing.assert_close(output[row], alone, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(output, network(x, noise + 0.1), atol=1e-3)


def test_a_new_network_gives_zeros():
    assert not UNet(1, width=8)(torch.randn(2, 1, 8, 8), torch.zeros(2)).any()


@pytest.mark.parametrize("name", ["unet", "diffusers"])
def test_labels_count_and_minus_one_is_none(name):
    options = {"width": 8, "blocks": 1}
    if name == "diffusers":
        pytest.importorskip("diffusers")
        options = {"block_out_channels": (16, 16, 16)}
    network = shaken(create_network(name, (1, 8, 8), 3, options))
    x, noise = torch.randn(2, 1, 8, 8), torch.zeros(2)
    plain = network(x, noise)
    assert plain.shape == x.shape
    torch.testing.assert_close(network(x, noise, torch.tensor([-1, -1])), plain)
    mixed = network(x, noise, torch.tensor([-1, 2]))
    torch.testing.assert_close(mixed[0], plain[0])
    assert not torch.allclose(mixed[1], plain[1], atol=1e-3)
    with pytest.raises(ValueError, match="num_classes 0"):
        create_network(name, (1, 8, 8), options=options)(x, noise, torch.tensor([0, 1]))


def test_every_weight_is_trained():
    network = UNet(1, width=8, blocks=1, num_classes=2)
    for parameter in network.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape)
    network(torch.randn(2, 1, 8, 8), torch.zeros(2), torch.tensor([0, 1])).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in network.parameters())


@pytest.mark.parametrize(
    ("name", "shape", "options", "message"),
    [
        ("unett", (1, 8, 8), {}, "unet or diffusers"),
        ("unet", (1, 6, 8), {}, "multiples of 4"),
        ("unet", (8, 8), {}, "channels, height, width"),
        ("unet", (1, 8, 8), {"widht": 8}, "did you mean width"),
        ("unet", (1, 8, 8), {"width": 12}, "multiple of 8"),
        ("unet", (1, 8, 8), {"dropout": 1.0}, "dropout"),
        ("unet", (1, 8, 8), {"blocks": 0}, "blocks"),
        ("unet", (1, 8, 8), {"multipliers": ()}, "multipliers"),
    ],
)
def test_bad_networks_are_refused(name, shape, options, message):
    with pytest.raises(ValueError, match=message):
        create_network(name, shape, options=options)


def test_an_unknown_option_of_diffusers_is_named():
    pytest.importorskip("diffusers")
    with pytest.raises(ValueError, match="no option layers_per_blok; did you mean layers_per_blo"):
        create_network("diffusers", (1, 8, 8), options={"layers_per_blok": 1})


def test_images_of_another_size_are_refused():
    with pytest.raises(ValueError, match="multiples of 4"):
        UNet(1, width=8)(torch.zeros(1, 1, 10, 8), torch.zeros(1))
