from __future__ import annotations

import pytest
import torch
from gits_sampling.adapters import EDMDenoiser, EpsDenoiser, FlowDenoiser, Guided, VDenoiser

SIGMAS = torch.tensor([0.05, 0.7, 3.0, 14.0], dtype=torch.float64)
VARIANCE = 0.3  # of data N(0, VARIANCE), whose denoiser is known


def table():
    return (1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)).cumprod(0)


def exact(x, sigma):
    level = sigma.reshape(-1, *[1] * (x.ndim - 1))
    return VARIANCE / (VARIANCE + level**2) * x


@pytest.fixture
def x():
    return torch.randn(4, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def eps_network(denoiser):
    """The network that predicts the noise of Gaussian data, through the adapter's own time."""

    def network(scaled, time):
        sigma = torch.exp(
            torch.lerp(
                denoiser.sigmas.log()[time.long()],
                denoiser.sigmas.log()[(time.long() + 1).clamp(max=999)],
                time - time.long(),
            )
        )
        level = sigma[:, None, None]
        x = scaled * (1 + level**2).sqrt()
        return (x - exact(x, sigma)) / level

    return network


def test_noise_prediction(x):
    denoiser = EpsDenoiser(None, table())
    denoiser.network = eps_network(denoiser)
    torch.testing.assert_close(denoiser(x, SIGMAS), exact(x, SIGMAS), rtol=1e-9, atol=1e-9)
    for k, sigma in enumerate(SIGMAS):
        torch.testing.assert_close(
            denoiser(x[k : k + 1], sigma), exact(x[k : k + 1], sigma), rtol=1e-9, atol=1e-9
        )


def test_v_prediction(x):
    denoiser = VDenoiser(None, table())
    noise = eps_network(denoiser)

    def network(scaled, time):
        eps = noise(scaled, time)
        sigma = denoiser.sigmas  # v = sqrt(abar) eps - sqrt(1 - abar) x0
        level = torch.exp(
            torch.lerp(
                sigma.log()[time.long()],
                sigma.log()[(time.long() + 1).clamp(max=999)],
                time - time.long(),
            )
        )[:, None, None]
        clean = scaled * (1 + level**2).sqrt() - level * eps
        return (eps - level * clean) / (1 + level**2).sqrt()

    denoiser.network = network
    torch.testing.assert_close(denoiser(x, SIGMAS), exact(x, SIGMAS), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("scale", [1.0, 1000.0])
def test_edm(x, scale):
    def network(scaled, noise):
        sigma = torch.exp(4 * noise / scale)
        level = sigma[:, None, None]
        energy = level**2 + 0.25
        state = scaled * energy.sqrt()
        return (exact(state, sigma) - 0.25 / energy * state) * energy.sqrt() / (level * 0.5)

    denoiser = EDMDenoiser(network, time_scale=scale)
    torch.testing.assert_close(denoiser(x, SIGMAS), exact(x, SIGMAS), rtol=1e-9, atol=1e-9)


def test_flow(x):
    def network(state, time):
        t = (time / 1000)[:, None, None]
        sigma = (time / 1000) / (1 - time / 1000)
        clean = exact(state / (1 - t), sigma)
        return (state - (1 - t) * clean) / t - clean

    denoiser = FlowDenoiser(network, time_scale=1000)
    torch.testing.assert_close(denoiser(x, SIGMAS), exact(x, SIGMAS), rtol=1e-9, atol=1e-9)


def test_time_of_a_sigma():
    denoiser = EpsDenoiser(None, table())
    index = torch.tensor([0.0, 1.0, 500.0, 999.0], dtype=torch.float64)
    torch.testing.assert_close(denoiser.timestep(denoiser.sigmas[index.long()]), index)
    half = (denoiser.sigmas[10] * denoiser.sigmas[11]).sqrt()
    torch.testing.assert_close(denoiser.timestep(half), torch.tensor(10.5, dtype=torch.float64))
    outside = torch.tensor([1e-5, 1e5], dtype=torch.float64)
    assert denoiser.timestep(outside).tolist() == [0, 999]
    nearest = EpsDenoiser(None, table(), nearest=True)
    assert nearest.timestep(half * 1.0001).item() in (10, 11)
    assert nearest.sigma_min == pytest.approx(0.0100005, rel=1e-4)
    assert nearest.sigma_max == pytest.approx(157.407, rel=1e-4)


def test_guidance_counts_its_calls(x):
    calls = []

    def denoiser(name, factor):
        def denoise(x, sigma):
            calls.append(name)
            return factor * x

        return denoise

    for scale, expected in ((0, ["u"]), (1, ["c"]), (7.5, ["u", "c"])):
        calls.clear()
        guided = Guided(denoiser("c", 2.0), denoiser("u", 1.0), scale)
        torch.testing.assert_close(guided(x, SIGMAS), (1 + scale) * x)
        assert calls == expected
        assert guided.network_calls == len(expected)


@pytest.mark.parametrize(
    "bad", [torch.tensor([0.5]), torch.tensor([0.5, 0.9]), torch.tensor([1.5, 0.5])]
)
def test_a_table_that_is_none(bad):
    with pytest.raises(ValueError, match="alphas_cumprod must"):
        EpsDenoiser(None, bad)
