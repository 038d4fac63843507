"""Schedules of noise levels: the reference's numbers, published ones, and what all must be."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from gits_sampling.sigmas import ays, discrete, log_snr, polynomial, time_uniform
from hypothesis import given
from hypothesis import strategies as st

DATA = Path(__file__).parent / "data"
BETAS = np.linspace(1e-4, 0.02, 1000)
DDPM = np.sqrt(1 / np.cumprod(1 - BETAS) - 1)
MAKERS = {
    "polynomial": polynomial,
    "logsnr": lambda n, low, high, rho: log_snr(n, low, high),
    "time_uniform": time_uniform,
}


def test_as_the_reference():
    with np.load(DATA / "schedules.npz") as file:
        arrays = dict(file)
    low, high = float(arrays.pop("sigma_min")), float(arrays.pop("sigma_max"))
    assert len(arrays) == 30
    for name, expected in arrays.items():
        kind, rho, n = name.rsplit("_", 2)
        ours = MAKERS[kind](int(n[1:]), low, high, float(rho[3:]))
        assert ours.dtype == torch.float64
        np.testing.assert_allclose(ours.numpy(), expected, rtol=1e-9, err_msg=name)


def test_published_schedule_is_on_the_teacher_grid():
    published = torch.tensor([80, 10.9836, 3.8811, 1.584, 0.5666, 0.1698, 0.002])
    on_grid = polynomial(61, 0.002, 80)[[0, 19, 27, 33, 39, 45, 60]]
    torch.testing.assert_close(on_grid.float(), published, rtol=1e-4, atol=5e-5)


@given(
    n=st.integers(2, 200),
    low=st.floats(1e-3, 0.03),
    ratio=st.floats(1.5, 4),
    rho=st.floats(1, 9),
    kind=st.sampled_from([*MAKERS, "ays", "discrete"]),
)
def test_ends_are_exact_and_sigmas_fall(n, low, ratio, rho, kind):
    high = 10**ratio * 0.03
    if kind == "discrete":
        low, high = max(low, DDPM[0]), min(high, DDPM[-1])
        sigmas = discrete(n, DDPM, sigma_min=low, sigma_max=high, rho=rho)
    elif kind == "ays":
        sigmas = ays(n, low, high)
    else:
        sigmas = MAKERS[kind](n, low, high, rho)
    assert sigmas.shape == (n,)
    assert sigmas.dtype == torch.float64
    assert sigmas[0] == high
    assert sigmas[-1] == low
    assert (sigmas.diff() < 0).all()


def test_time_uniform_is_uniform_in_the_time_of_ddpm():
    """The linear betas of DDPM are a variance-preserving process with quadratic log-mean."""
    tau = torch.linspace(1, 1e-3, 20, dtype=torch.float64)
    beta_min, slope = 0.1, 19.9
    sigmas = torch.expm1(slope / 2 * tau**2 + beta_min * tau).sqrt()
    torch.testing.assert_close(time_uniform(20, float(sigmas[-1]), float(sigmas[0])), sigmas)


def test_discrete_goes_through_the_training_steps():
    assert torch.equal(discrete(1000, DDPM, rounded=True), torch.from_numpy(DDPM[::-1].copy()))
    torch.testing.assert_close(discrete(1000, DDPM), torch.from_numpy(DDPM[::-1].copy()))
    half = discrete(1999, DDPM)[1::2]  # between two steps ln alpha is linear
    log_alpha = -0.5 * np.log1p(DDPM[::-1] ** 2)
    expected = (log_alpha[1:] + log_alpha[:-1]) / 2
    np.testing.assert_allclose(-0.5 * np.log1p(half.numpy() ** 2), expected, rtol=1e-9)


def test_discrete_rounded_takes_the_nearest_step():
    index = np.searchsorted(DDPM, discrete(7, DDPM, rounded=True).numpy())
    assert index.tolist() == [999, 832, 666, 500, 333, 166, 0]
    squared = discrete(4, DDPM, rho=2.0, rounded=True)
    roots = np.linspace(math.sqrt(1000), 1, 4)
    assert np.searchsorted(DDPM, squared.numpy()).tolist() == [round(r**2) - 1 for r in roots]


def test_ays_tables():
    sd = ays()
    rounded = [14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152]
    np.testing.assert_allclose(sd[:-1], rounded, atol=3.5e-3)  # of diffusers' time steps
    assert ays(model="svd")[0] == 700
    between = ays(21)
    torch.testing.assert_close(between[::2], sd)
    torch.testing.assert_close(between[1::2].log(), (sd.log()[1:] + sd.log()[:-1]) / 2)
    torch.testing.assert_close(ays(11, sd[-1].item() * 3, sd[0].item() * 3), 3 * sd)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: polynomial(1, 0.1, 1), "at least 2 points, got 1"),
        (lambda: polynomial(5, 0, 1), "0 < min < max, got 0 and 1"),
        (lambda: log_snr(5, 2, 1), "0 < min < max, got 2 and 1"),
        (lambda: log_snr(5, 1, math.inf), "0 < min < max"),
        (lambda: log_snr(5, math.nan, 1), "0 < min < max"),
        (lambda: polynomial(5, 0.1, 1, rho=0), "rho must be > 0, got 0"),
        (lambda: time_uniform(5, 1, 2), "no variance-preserving time between 1 and 2"),
        (lambda: polynomial(100, 1, 1 + 1e-15), "n must leave distinct sigmas"),
        (lambda: discrete(5, DDPM[::-1].copy()), r"increasing .* from 157.407 to 0.0100005"),
        (lambda: discrete(5, [[1.0]]), r"got shape \(1, 1\)"),
        (lambda: discrete(5, DDPM, sigma_max=200.0), "within the model's .* got 0.0100005 and 200"),
        (lambda: discrete(9, [1.0, 2, 3, 4], rounded=True), "got 9 points on 4"),
        (lambda: ays(model="flux"), "one of sd, sdxl, svd, got 'flux'"),
    ],
)
def test_bad_arguments(call, words):
    with pytest.raises(ValueError, match=words) as error:
        call()
    assert "\n" not in str(error.value)
