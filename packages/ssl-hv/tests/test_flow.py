import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ssl_hv.objectives.flow import (
    AffineCoupling,
    Flow,
    FlowEncoder,
    bits_per_dimension,
    dequantize,
    quantize,
)
from torch import nn


def normal(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def tiny(channels=1, size=8, *, live=True, **options):
    """A small flow; a live one has no layer of zeros."""
    torch.manual_seed(0)
    sizes = {"checkerboard": 2, "channel": 2, "width": 8, "depth": 1, "pool": 1} | options
    model = Flow(FlowEncoder(in_channels=channels, image_size=size, **sizes))
    for coupling in (m for m in model.modules() if isinstance(m, AffineCoupling) and live):
        nn.init.normal_(coupling.network[-1].weight, std=0.1)
        nn.init.normal_(coupling.network[-1].bias, std=0.1)
        nn.init.normal_(coupling.log_bound, std=0.3)
    return model


def images(n=4, channels=1, size=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, channels, size, size), generator=generator) / 255


def noise(like, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(like.shape, generator=generator, dtype=like.dtype)


def test_uniform_grey_values_cost_8_bits():
    bits = bits_per_dimension(torch.tensor([-math.log(256) * 12, 0.0]), 12)
    torch.testing.assert_close(bits, torch.tensor([8.0, 0.0]))


@given(seed=st.integers(0, 1000))
@settings(deadline=None)
def test_every_grey_value_survives_any_noise(seed):
    levels = torch.arange(256).double().reshape(1, 1, 16, 16) / 255
    real, _ = dequantize(levels, noise(levels, seed))
    torch.testing.assert_close(quantize(real), levels, rtol=0, atol=1e-12)


def test_dequantized_values_are_finite_at_black_and_white():
    edges = torch.tensor([0.0, 1.0]).reshape(1, 1, 1, 2)
    for at in (0.0, 1 - 2**-24):
        real, log_det = dequantize(edges, torch.full_like(edges, at))
        assert real.isfinite().all()
        assert log_det.isfinite().all()


def test_log_determinant_of_dequantization_is_that_of_autograd():
    """Counted per grey level: the step of one level is 1."""
    levels = images(1, size=2).double()
    at = noise(levels)
    jacobian = torch.autograd.functional.jacobian(
        lambda n: dequantize(levels, n)[0].flatten(), at
    ).reshape(4, 4)
    _, log_det = dequantize(levels, at)
    torch.testing.assert_close(log_det[0], jacobian.slogdet().logabsdet)


@pytest.mark.parametrize("channels", [1, 3])
def test_log_determinant_of_four_pixels_is_that_of_autograd(channels):
    encoder = tiny(channels, size=2).encoder.double()
    x = normal(1, channels, 2, 2, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda t: encoder.transform(t)[0].flatten(), x)
    _, log_det = encoder.transform(x)
    expected = jacobian.reshape(4 * channels, 4 * channels).slogdet().logabsdet
    assert expected.abs() > 1e-3
    torch.testing.assert_close(log_det[0], expected)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [2, 8, 12])
def test_the_inverse_is_exact(channels, size):
    encoder = tiny(channels, size).encoder
    real, _ = dequantize(images(3, channels, size), noise(images(3, channels, size)))
    z, _ = encoder.transform(real)
    assert z.shape == (3, 4 * channels, size // 2, size // 2)
    assert (z - nn.functional.pixel_unshuffle(real, 2)).abs().max() > 0.01
    assert (encoder.inverse(z) - real).abs().max() < 1e-4


def test_images_come_back_from_the_default_flow():
    flow, batch = Flow(), images(2, size=64)
    assert len(flow.encoder.before) == len(flow.encoder.after) == 4
    for coupling in (*flow.encoder.before, *flow.encoder.after):
        nn.init.normal_(coupling.network[-1].weight, std=0.02)
    with torch.no_grad():
        z, _ = flow.encoder.transform(dequantize(batch, torch.full_like(batch, 0.5))[0])
        torch.testing.assert_close(quantize(flow.encoder.inverse(z)), batch)


def test_a_new_flow_is_the_identity():
    encoder = tiny(live=False).encoder
    x = normal(2, 1, 8, 8)
    z, log_det = encoder.transform(x)
    assert torch.equal(nn.functional.pixel_shuffle(z, 2), x)
    assert torch.equal(log_det, torch.zeros(2))


def test_every_pixel_is_transformed_and_none_at_once():
    """Two couplings of a kind change all places; one leaves those that it reads."""
    coupling = tiny().encoder.before[0]
    x = normal(2, 1, 8, 8)
    kept = coupling.mask.bool().expand_as(x)
    assert torch.equal(coupling(x)[0][kept], x[kept])
    assert (coupling(x)[0] != x)[~kept].all()
    for couplings in (tiny().encoder.before, tiny().encoder.after):
        assert torch.equal(
            couplings[0].mask + couplings[1].mask, torch.ones_like(couplings[0].mask)
        )


def test_scales_are_bounded():
    coupling = tiny().encoder.before[0]
    nn.init.constant_(coupling.network[-1].bias, 1e4)
    _, log_det = coupling(normal(1, 1, 8, 8))
    assert log_det[0] <= 32 * coupling.log_bound.exp().max() * (1 + 1e-5)


def test_the_density_integrates_to_one():
    """Its mean over uniform grey values and noise, times the 256^4 values of four pixels."""
    model, batch = tiny(size=2), images(40_000, size=2)
    with torch.no_grad():
        density = (model.log_prob(batch, noise(batch)) + 4 * math.log(256)).exp()
    standard_error = density.std() / 200
    assert standard_error < 0.02
    assert (density.mean() - 1).abs() < 4 * standard_error


def test_log_prob_of_a_new_flow_is_that_of_logistic_noise():
    model, batch = tiny(live=False), images()
    x, log_det = dequantize(batch, noise(batch))
    expected = torch.distributions.Normal(0.0, 1.0).log_prob(x).sum((1, 2, 3)) + log_det
    torch.testing.assert_close(model.log_prob(batch, noise(batch)), expected)


def test_loss_is_bits_per_dimension():
    model, batch = tiny(), images()
    torch.manual_seed(3)
    loss = model([batch])["loss"]
    torch.manual_seed(3)
    expected = -model.log_prob(batch, torch.rand_like(batch)).mean() / 64 / math.log(2)
    torch.testing.assert_close(loss, expected)


def test_log_prob_gradcheck():
    model = tiny(size=4).double()
    batch = images(2, size=4).double().clamp(0.1, 0.9).requires_grad_()
    at = torch.full_like(batch, 0.3)
    assert torch.autograd.gradcheck(lambda x: model.log_prob(x, at), (batch,))


@pytest.mark.parametrize("channels", [1, 3])
def test_learns_blank_images(channels):
    model = tiny(channels, live=False)
    batch = (images(16, channels) > 0.9).float()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    first = model([batch])["loss"].detach()
    for _ in range(60):
        loss = model([batch])["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert loss < first - 2  # bits per pixel


def test_representation_is_the_pooled_latent():
    encoder = tiny(3, pool=2).encoder
    batch = images(2, 3)
    z, _ = encoder.transform(dequantize(batch, torch.full_like(batch, 0.5))[0])
    representation = encoder(batch)
    assert representation.shape == (2, encoder.dim) == (2, 48)
    torch.testing.assert_close(representation[1, 5], z[1, 1, :2, 2:].mean())


def test_samples_are_8_bit_images_and_follow_the_seed():
    model = tiny(channels=3)
    samples = model.sample(5, seed=1)
    assert samples.shape == (5, 3, 8, 8)
    assert torch.equal(samples, model.sample(5, seed=1))
    assert not torch.equal(samples, model.sample(5, seed=2))
    torch.testing.assert_close((samples * 255).round() / 255, samples)
    assert samples.min() >= 0
    assert samples.max() <= 1


def test_compiles_without_a_break():
    model, batch = tiny(), images()
    compiled = torch.compile(model.log_prob, fullgraph=True, backend="eager")
    at = noise(batch)
    torch.testing.assert_close(compiled(batch, at), model.log_prob(batch, at))


def test_half_precision_stays_near(device):
    model, batch = tiny().to(device), images().to(device)
    at = torch.full_like(batch, 0.5)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        half = model.log_prob(batch, at)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, model.log_prob(batch, at), rtol=0.05, atol=0.0)


@pytest.mark.parametrize("options", [{"image_size": 9}, {"image_size": 8, "pool": 8}])
def test_bad_sizes_are_refused(options):
    with pytest.raises(ValueError, match="image_size must be even and >= "):
        FlowEncoder(**options)


def test_images_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"\(N, 1, 8, 8\), got \(4, 3, 8, 8\)"):
        tiny()([images(channels=3)])
