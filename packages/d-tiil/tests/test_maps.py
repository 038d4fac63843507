from __future__ import annotations

import math

import pytest
import torch
from d_tiil.maps import (
    channel_norm,
    even_timesteps,
    multistep_weights,
    noise_difference_map,
    sigmas_of,
    trajectory_maps,
)
from d_tiil.settings import MapSettings
from hypothesis import given as forall
from hypothesis import strategies as st

SINGLE, RUN = MapSettings(draws=5), MapSettings(kind="trajectory", draws=3, steps=4)


@pytest.fixture
def pair():
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(1, 4, 8, 8, generator=generator)
    return latents, *torch.randn(2, 1, 3, 5, generator=generator).unbind()


@pytest.fixture
def draw(toy, pair, alpha_bars):
    def make(settings, *, swap=False, same=False, **options):
        latents, first, second = pair
        second = first.clone() if same else second
        texts = (second, first) if swap else (first, second)
        empty = torch.zeros_like(first)
        return noise_difference_map(
            toy, latents, *texts, alpha_bars=alpha_bars, empty=empty, settings=settings, **options
        )

    return make


@pytest.mark.parametrize("how", [SINGLE, RUN], ids=["single", "trajectory"])
def test_identities(draw, how):
    found = draw(how)
    assert found.shape == (8, 8)
    assert found.min() > 0
    assert torch.equal(draw(how, same=True), torch.zeros(8, 8))
    torch.testing.assert_close(draw(how, swap=True), found)
    assert torch.equal(draw(how), found)
    torch.testing.assert_close(draw(how, max_rows=4), found)
    torch.testing.assert_close(draw(how, max_rows=1), found)
    if how is RUN:
        assert not torch.equal(draw(how, seed=1), found)


def test_a_single_map_is_the_mean_difference(draw, toy, pair):
    _, first, second = pair
    levels = torch.linspace(0.3 * 999, 0.7 * 999, 5).round().long()
    zeros = torch.zeros(5, 4, 8, 8)
    one, two = (toy(zeros, levels, text.expand(5, -1, -1)) for text in (first, second))
    torch.testing.assert_close(draw(SINGLE), (one - two).norm(dim=1).mean(0), rtol=1e-4, atol=1e-5)
    mean = draw(MapSettings(draws=5, norm="mean"))
    torch.testing.assert_close(mean, (one - two).abs().mean((0, 1)), rtol=1e-4, atol=1e-5)


def test_guidance_multiplies_one_step(draw):
    one = MapSettings(kind="trajectory", draws=2, steps=1, strength=1.0, guidance=1.0)
    plain = draw(one)
    guided = draw(MapSettings(kind="trajectory", draws=2, steps=1, strength=1.0, guidance=5.0))
    torch.testing.assert_close(guided, 5 * plain, rtol=1e-4, atol=1e-4)


def test_guidance_needs_the_empty_text(toy, pair, alpha_bars):
    with pytest.raises(ValueError, match="embedding of the empty text"):
        noise_difference_map(toy, *pair, alpha_bars=alpha_bars, settings=RUN)


def test_order_1_is_ddim(toy, pair, alpha_bars):
    """The state of the last step is that of DDIM's own formula."""
    latents, first, second = pair
    seen = []

    def watched(x, t, e):
        seen.append(x[:1])
        return toy(x, t, e)

    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    timesteps = even_timesteps(4, 1000)
    trajectory_maps(
        watched,
        latents,
        first,
        second,
        noise,
        timesteps,
        sigmas_of(alpha_bars[timesteps]),
        guidance=1.0,
        start=1,
    )
    levels = alpha_bars[timesteps]
    state = levels[1].sqrt() * latents + (1 - levels[1]).sqrt() * noise
    for k, state_seen in enumerate(seen, start=1):
        torch.testing.assert_close(state, state_seen, rtol=1e-4, atol=1e-4)
        if k + 1 < len(timesteps):
            eps = toy(state, timesteps[k : k + 1], first)
            clean = (state - (1 - levels[k]).sqrt() * eps) / levels[k].sqrt()
            state = levels[k + 1].sqrt() * clean + (1 - levels[k + 1]).sqrt() * eps
    assert len(seen) == 3


@forall(
    falls=st.lists(st.floats(0.05, 3.0), min_size=5, max_size=5),
    order=st.integers(1, 4),
    power=st.integers(0, 3),
)
def test_multistep_weights_integrate_polynomials(falls, order, power):
    sigmas = [sum(falls[k:]) for k in range(len(falls))]
    weights = multistep_weights(sigmas, 3, order)
    if power >= order:
        return
    found = sum(w * sigmas[3 - k] ** power for k, w in enumerate(weights))
    exact = (sigmas[4] ** (power + 1) - sigmas[3] ** (power + 1)) / (power + 1)
    assert math.isclose(found, exact, rel_tol=1e-6, abs_tol=1e-9)


def test_norms():
    difference = torch.tensor([3.0, -4.0]).view(1, 2, 1, 1)
    assert channel_norm(difference, "euclidean").item() == 5
    assert channel_norm(difference, "mean").item() == 3.5
