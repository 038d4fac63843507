import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from ssl_hv.objectives.vae import (
    VAE,
    Decoder,
    DecoderBlock,
    gaussian_log_likelihood,
    kl_divergence,
    monte_carlo_kl,
    vae_loss,
)
from torch import nn
from torch.distributions import Normal
from torch.distributions import kl_divergence as torch_kl


def normal(*shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


class ConvEncoder(nn.Sequential):
    dim = 12

    def __init__(self, channels=1):
        super().__init__(nn.Conv2d(channels, 12, 4, 4), nn.ReLU(), nn.AdaptiveAvgPool2d(1))

    def forward(self, images):
        return super().forward(images).flatten(1)


def tiny(channels=1, **options):
    torch.manual_seed(0)
    sizes = {"image_size": 16, "latent": 5, "width": 2} | options
    return VAE(ConvEncoder(channels), in_channels=channels, **sizes)


def images(n=4, channels=1):
    return normal(n, channels, 16, 16).sigmoid()


def arguments(dtype=torch.float32):
    """Of vae_loss: images, reconstruction, z, mu, log_var, log_scale."""
    shapes = [(3, 1, 4, 4)] * 2 + [(3, 5)] * 3 + [()]
    return [normal(*shape, seed=i, dtype=dtype) for i, shape in enumerate(shapes)]


@given(seed=st.integers(0, 1000), log_scale=st.floats(-3, 3))
def test_likelihood_and_divergences_are_those_of_torch_distributions(seed, log_scale):
    x, mean = normal(2, 3, 4, 4, seed=seed), normal(2, 3, 4, 4, seed=seed + 1)
    z, mu, log_var = (normal(2, 5, seed=seed + i) for i in (2, 3, 4))
    log_scale = torch.tensor(log_scale)
    posterior, prior = Normal(mu, (log_var / 2).exp()), Normal(0.0, 1.0)
    likelihood = Normal(mean, log_scale.exp()).log_prob(x).sum((1, 2, 3))
    one_sample = (posterior.log_prob(z) - prior.log_prob(z)).sum(1)
    close = {"rtol": 1e-4, "atol": 1e-4}
    torch.testing.assert_close(gaussian_log_likelihood(x, mean, log_scale), likelihood, **close)
    torch.testing.assert_close(monte_carlo_kl(z, mu, log_var), one_sample, **close)
    exact = torch_kl(posterior, prior).sum(1)
    torch.testing.assert_close(kl_divergence(mu, log_var), exact, **close)


def test_the_divergence_of_a_standard_normal_is_zero():
    zero = torch.zeros(3, 5)
    assert torch.equal(kl_divergence(zero, zero), torch.zeros(3))
    assert monte_carlo_kl(normal(3, 5), zero, zero).abs().max() < 1e-6


@given(st.floats(-3, 3), st.floats(-4, 3))
def test_the_divergence_is_never_negative(mu, log_var):
    assert kl_divergence(torch.tensor([[mu]]), torch.tensor([[log_var]])) >= -1e-6


def test_both_divergences_agree_in_expectation():
    mu, log_var = normal(1, 6), normal(1, 6, seed=1)
    z = mu + (log_var / 2).exp() * normal(40_000, 6, seed=2)
    draws = monte_carlo_kl(z, mu, log_var)
    exact = kl_divergence(mu, log_var)
    standard_error = draws.std() / math.sqrt(len(draws))
    assert (draws.mean() - exact).abs() < 4 * standard_error
    assert standard_error < 0.02 * exact


def test_loss_is_divergence_minus_likelihood():
    x, decoded, z, mu, log_var, log_scale = arguments()
    likelihood = gaussian_log_likelihood(x, decoded, log_scale)
    one_sample = (monte_carlo_kl(z, mu, log_var) - likelihood).mean()
    exact = (kl_divergence(mu, log_var) - likelihood).mean()
    torch.testing.assert_close(vae_loss(*arguments()), one_sample)
    torch.testing.assert_close(vae_loss(*arguments(), closed_form=True), exact)


@pytest.mark.parametrize("closed_form", [True, False])
def test_loss_gradcheck(closed_form):
    inputs = [tensor.requires_grad_() for tensor in arguments(torch.float64)]
    assert torch.autograd.gradcheck(lambda *t: vae_loss(*t, closed_form=closed_form), inputs)


def test_loss_of_half_precision_is_float32():
    half = [tensor.bfloat16() for tensor in arguments()]
    loss = vae_loss(*half)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, vae_loss(*(tensor.float() for tensor in half)))


def test_loss_refuses_shapes_that_do_not_match():
    x, decoded, *rest = arguments()
    with pytest.raises(ValueError, match=r"\(N, C, H, W\).* got \(3, 1, 4, 4\), \(1, 4, 4\)"):
        vae_loss(x, decoded[0], *rest)


def test_sigma_of_the_pixels_has_its_optimum_at_the_error():
    """d loss / d log_scale is 0 where scale^2 is the mean squared error."""
    x, decoded, *codes, _ = arguments(torch.float64)
    best = (x - decoded).square().mean().log() / 2
    best.requires_grad_()
    (slope,) = torch.autograd.grad(vae_loss(x, decoded, *codes, best), best)
    assert abs(slope) < 1e-9


@pytest.mark.parametrize(("size", "first"), [(64, 8), (16, 2), (128, 16)])
def test_decoder_follows_the_table(size, first):
    """Table of section 3.4, with all widths divided by 16."""
    decoder, shapes = Decoder(6, 3, size, 4), []
    for layer in decoder:
        layer.register_forward_hook(lambda _m, _x, out: shapes.append(tuple(out.shape[1:])))
    assert decoder(normal(2, 6)).shape == (2, 3, size, size)
    widths = [16, 16, 8, 8, 4, 4, 4, 4]
    sides = [first * 2 ** min(i // 2 + 1, 3) for i in range(8)]
    expected = [(512,), (32, 4, 4), (32, first, first)]
    expected += [(w, s, s) for w, s in zip(widths, sides, strict=True)] + [(3, size, size)]
    assert shapes == expected


def test_decoder_block_has_no_more_than_its_layers():
    count = sum(p.numel() for p in DecoderBlock(8, 4, upsample=True).parameters())
    assert count == 9 * 8 * 8 + 2 * 8 + 9 * 8 * 4 + 2 * 4 + 8 * 4 + 2 * 4
    assert sum(p.numel() for p in DecoderBlock(8, 8).parameters()) == 2 * (9 * 8 * 8 + 2 * 8)


@pytest.mark.parametrize("closed_form", [True, False])
def test_parts_add_up(closed_form):
    model = tiny(closed_form=closed_form)
    parts = model([images(64)])
    assert not any(part.requires_grad for name, part in parts.items() if name != "loss")
    assert parts["scale"] == 1
    bound = parts["kl"] - parts["log_likelihood"]
    tolerance = 1e-4 if closed_form else 0.05 * parts["kl"] + 1
    assert (parts["loss"] - bound).abs() < tolerance


def test_codes_are_drawn_with_their_mean_and_variance():
    model, drawn = tiny(), []
    for layer, value in ((model.fc_mu, 3.0), (model.fc_var, math.log(4))):
        nn.init.zeros_(layer.weight)
        nn.init.constant_(layer.bias, value)
    model.decoder.register_forward_pre_hook(lambda _, inputs: drawn.extend(inputs))
    model([images(400)])
    assert abs(drawn[0].mean() - 3) < 0.2
    assert abs(drawn[0].std() - 2) < 0.2


@pytest.mark.parametrize("channels", [1, 3])
def test_learns_to_reconstruct(channels):
    model = tiny(channels, width=8)
    batch = images(8, channels)[..., :1, :1].round().repeat(1, 1, 16, 16)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(300):
        loss = model([batch])["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert all(parameter.grad is not None for parameter in model.parameters())
    error = (model.eval().reconstruct(batch) - batch).square().mean()
    assert error < 0.3 * (batch - batch.mean(0)).square().mean()


def test_samples_follow_the_seed():
    model = tiny(channels=3).eval()
    samples = model.sample(5, seed=1)
    assert samples.shape == (5, 3, 16, 16)
    assert torch.equal(samples, model.sample(5, seed=1))
    assert not torch.equal(samples, model.sample(5, seed=2))
    assert samples.min() >= 0
    assert samples.max() <= 1


def test_reconstruction_uses_the_mean():
    model, batch = tiny().eval(), images()
    expected = model.decoder(model.encode(batch)[0]).clamp(0, 1)
    assert torch.equal(model.reconstruct(batch), expected)


def test_compiles_without_a_break():
    model, batch = tiny().eval(), images()
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    torch.manual_seed(1)
    loss = compiled([batch])["loss"]
    torch.manual_seed(1)
    torch.testing.assert_close(loss, model([batch])["loss"])


def test_half_precision_stays_near(device):
    model, batch = tiny(closed_form=True).to(device), images().to(device)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        half = model([batch])
    assert half["loss"].dtype == torch.float32
    torch.testing.assert_close(half["loss"], model([batch])["loss"], rtol=0.2, atol=0.0)


@pytest.mark.parametrize("size", [0, 4, 20])
def test_bad_sizes_are_refused(size):
    with pytest.raises(ValueError, match=f"multiple of 8 pixels, got {size}"):
        tiny(image_size=size)


def test_images_of_another_size_are_refused():
    with pytest.raises(ValueError, match="images and reconstruction must be"):
        tiny()([normal(2, 1, 32, 32)])
