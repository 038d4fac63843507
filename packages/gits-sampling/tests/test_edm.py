import math

import pytest
import torch
from gits_sampling.adapters import EDMDenoiser
from gits_sampling.edm import draw_sigmas, edm_loss, ema_decay


def test_the_loss_is_the_formula():
    y = torch.tensor([[1.0, 2.0], [0.0, -1.0]])
    n = torch.tensor([[0.5, -0.5], [1.0, 2.0]])
    sigma = torch.tensor([0.5, 2.0])
    loss = edm_loss(lambda x, s: 0.5 * x, y, sigma, n, sigma_data=0.5)
    total = 0.0
    for i in range(2):
        s = float(sigma[i])
        weight = (s**2 + 0.25) / (s * 0.5) ** 2
        for j in range(2):
            total += weight * (0.5 * float(y[i, j] + s * n[i, j]) - float(y[i, j])) ** 2
    assert loss.item() == pytest.approx(total / 4, rel=1e-6)


def test_the_loss_is_the_network_s_error_at_any_noise_level():
    """w = 1 / c_out^2: what is left is |F - F*|^2, F* = (y - c_skip x) / c_out."""
    generator = torch.Generator().manual_seed(0)
    y, n = torch.randn(2, 6, 5, generator=generator, dtype=torch.float64)
    sigma, sd = torch.logspace(-2, 2, 6, dtype=torch.float64), 0.7
    denoiser = EDMDenoiser(lambda x, noise: x.sin() + noise[:, None], sigma_data=sd)
    loss = edm_loss(denoiser, y, sigma, n, sigma_data=sd)
    level = sigma[:, None]
    energy = level**2 + sd**2
    x = y + level * n
    target = (y - sd**2 / energy * x) / (level * sd / energy.sqrt())
    output = (x / energy.sqrt()).sin() + sigma[:, None].log() / 4
    torch.testing.assert_close(loss, (output - target).square().mean())


def test_a_silent_network_has_a_loss_of_one():
    generator = torch.Generator().manual_seed(0)
    y = 0.5 * torch.randn(20000, 4, generator=generator)
    n = torch.randn(20000, 4, generator=generator)
    sigma = draw_sigmas(20000, generator=generator)
    silent = EDMDenoiser(lambda x, noise: torch.zeros_like(x))
    assert edm_loss(silent, y, sigma, n).item() == pytest.approx(1.0, abs=0.02)


def test_noise_levels_are_log_normal():
    log = draw_sigmas(100_000, generator=torch.Generator().manual_seed(0)).log()
    assert log.mean().item() == pytest.approx(-1.2, abs=0.02)
    assert log.std().item() == pytest.approx(1.2, abs=0.02)


def test_decay():
    assert ema_decay(100, 10**9) == pytest.approx(0.5 ** (100 / 500_000))
    assert ema_decay(100, 0) == 0.0
    assert ema_decay(10, 1000) == pytest.approx(0.5 ** (10 / 50))
    assert ema_decay(10, 0, half_life=10, ramp=None) == pytest.approx(0.5)
    kept = math.prod(ema_decay(100, 10**9) for _ in range(5000))
    assert kept == pytest.approx(0.5)  # after 500,000 images


def test_bad_arguments_are_refused():
    y = torch.zeros(2, 3)
    with pytest.raises(ValueError, match=r"sigma \(2,\)"):
        edm_loss(lambda x, s: x, y, torch.ones(3), y)
    with pytest.raises(ValueError, match="noise must be"):
        edm_loss(lambda x, s: x, y, torch.ones(2), y[:1])
    with pytest.raises(ValueError, match="sigma_data"):
        edm_loss(lambda x, s: x, y, torch.ones(2), y, sigma_data=0.0)
