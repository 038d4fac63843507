from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from gits_sampling.models import (
    EmpiricalDenoiser,
    GaussianMixtureDenoiser,
    digits_empirical,
    digits_gauss10,
    fingerprint,
)
from hypothesis import given
from hypothesis import strategies as st
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

DATA = Path(__file__).parent / "data"


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def parity_model():
    arrays = np.load(DATA / "model.npz")
    means, stds, weights, x, sigmas, denoised = (
        torch.from_numpy(arrays[name])
        for name in ("gmm_means", "gmm_stds", "gmm_weights", "x", "sigmas", "denoised")
    )
    model = GaussianMixtureDenoiser(means.unflatten(1, (3, 4, 4)), stds.square(), weights)
    return model, x, sigmas, denoised


def covariances(count, dimension, rank=None, seed=3):
    """Random covariances, and their eigenvectors and eigenvalues."""
    basis = torch.linalg.qr(randn(count, dimension, rank or dimension, seed=seed)).Q
    values = randn(count, basis.shape[2], seed=seed + 1).exp()
    return basis @ torch.diag_embed(values) @ basis.mT, (basis, values)


def log_density(x, sigma, means, covariance, weights):
    noisy = covariance + sigma**2 * torch.eye(means.shape[1], dtype=x.dtype)
    return MixtureSameFamily(Categorical(weights), MultivariateNormal(means, noisy)).log_prob(x)


# The mixture


def test_the_mixture_is_the_parity_sets():
    model, x, sigmas, denoised = parity_model()
    for noisy, sigma, expected in zip(x, sigmas, denoised, strict=True):
        torch.testing.assert_close(model(noisy, sigma), expected, rtol=1e-9, atol=1e-12)


def test_one_sigma_per_sample():
    model, x, sigmas, denoised = parity_model()
    found = model(x.flatten(0, 1), sigmas.repeat_interleave(4))
    torch.testing.assert_close(found, denoised.flatten(0, 1), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("sigma", [0.002, 0.7, 80.0])
def test_the_forms_of_a_covariance_agree(sigma):
    means, weights = randn(3, 5), torch.tensor([1.0, 2, 5])
    x = randn(8, 5, seed=1) * (1 + sigma)
    variances = torch.tensor([0.3, 1.0, 2.0], dtype=torch.float64)
    full = torch.diag_embed(variances[:, None].expand(3, 5))
    isotropic = GaussianMixtureDenoiser(means, variances, weights)(x, sigma)
    torch.testing.assert_close(GaussianMixtureDenoiser(means, full, weights)(x, sigma), isotropic)
    for rank in (2, 5):
        full, spectrum = covariances(3, 5, rank)
        expected = GaussianMixtureDenoiser(means, full, weights)(x, sigma)
        found = GaussianMixtureDenoiser(means, spectrum, weights)(x, sigma)
        torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("sigma", [0.1, 1.0, 20.0])
def test_the_score_of_the_mixture(sigma):
    means, (full, _) = randn(3, 4), covariances(3, 4)
    weights = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64)
    x = (means[[0, 1, 2, 0]] + sigma * randn(4, 4, seed=1)).requires_grad_()
    (score,) = torch.autograd.grad(log_density(x, sigma, means, full, weights).sum(), x)
    denoised = GaussianMixtureDenoiser(means, full, weights)(x, sigma)
    torch.testing.assert_close((denoised - x) / sigma**2, score, rtol=1e-8, atol=1e-8)


def test_the_mixture_does_not_depend_on_its_blocks():
    means, (full, _) = randn(3, 4), covariances(3, 4)
    x, sigma = randn(7, 4, seed=1), torch.linspace(0.1, 3, 7, dtype=torch.float64)
    found = GaussianMixtureDenoiser(means, full, chunk=25)(x, sigma)
    torch.testing.assert_close(found, GaussianMixtureDenoiser(means, full)(x, sigma))


# One Gaussian: the exact solution of the ODE


def one_gaussian(kind):
    full, spectrum = covariances(1, 4, 2 if kind == "low rank" else 4)
    given = {"isotropic": full.new_tensor([0.7]), "full": full, "low rank": spectrum}[kind]
    return GaussianMixtureDenoiser(randn(1, 2, 2), given)


@pytest.mark.parametrize("kind", ["isotropic", "full", "low rank"])
def test_the_solution_solves_the_ode(kind):
    model, start, t, h = one_gaussian(kind), 10 * randn(6, 2, 2, seed=2), 1.3, 1e-4
    before, x, after = (model.solution(start, 10.0, level) for level in (t - h, t, t + h))
    torch.testing.assert_close((after - before) / (2 * h), (x - model(x, t)) / t, rtol=0, atol=1e-7)
    # The denoising trajectory's speed is the curvature: x'' = -D' / t.
    speed = (model(after, t + h) - model(before, t - h)) / (2 * h)
    bend = (after - 2 * x + before) / h**2
    torch.testing.assert_close(bend, -speed / t, rtol=0, atol=1e-5)
    torch.testing.assert_close(model.solution(start, 10.0, 10.0), start)


def test_the_solution_ends_in_the_gaussian():
    model = one_gaussian("low rank")
    end = (model.solution(10 * randn(5, 2, 2), 10.0, 0.0) - model.means).flatten(1)
    inside = end @ model.basis[0] @ model.basis[0].T
    torch.testing.assert_close(inside, end)


def test_many_steps_find_the_solution():
    model, x = one_gaussian("full"), 5 * randn(4, 2, 2, seed=2)
    expected = model.solution(x, 5.0, 0.01)
    sigmas = torch.logspace(math.log10(5), -2, 200, dtype=torch.float64)
    for t, t_next in pairwise(sigmas):
        d = (x - model(x, t)) / t
        euler = x + (t_next - t) * d
        convex = t_next / t * x + (1 - t_next / t) * model(x, t)  # identity 1
        torch.testing.assert_close(euler, convex)
        x = x + (t_next - t) * (d + (euler - model(euler, t_next)) / t_next) / 2
    torch.testing.assert_close(x, expected, rtol=0, atol=2e-3)


# The empirical model


@given(
    count=st.integers(1, 9),
    chunk=st.integers(1, 10),
    sigma=st.floats(0.05, 80),
    seed=st.integers(0, 99),
)
def test_the_empirical_denoiser_is_the_softmax(count, chunk, sigma, seed):
    data, x = randn(count, 2, 3, seed=seed), 3 * randn(4, 2, 3, seed=seed + 1)
    distance = (x[:, None] - data).flatten(2).square().sum(2)
    p = (-distance / (2 * sigma**2)).softmax(1)
    expected = torch.einsum("bm,mij->bij", p, data)
    found = EmpiricalDenoiser(data, chunk=chunk)(x, sigma)
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-9)


@given(sigma=st.floats(0.05, 5), seed=st.integers(0, 99))
def test_a_mean_shift_step_climbs_the_density(sigma, seed):
    data, x = randn(9, 3, seed=seed), 2 * randn(4, 3, seed=seed + 1)

    def density(x):
        return (-torch.cdist(x, data).square() / (2 * sigma**2)).logsumexp(1)

    assert (density(EmpiricalDenoiser(data)(x, sigma)) >= density(x) - 1e-9).all()


@pytest.mark.parametrize("sigma", [0.002, 0.3, 80.0])
def test_the_empirical_denoiser_is_the_mixture_without_variance(sigma):
    data = randn(20, 6)
    x = data[:8] + sigma * randn(8, 6, seed=1)
    mixture = GaussianMixtureDenoiser(data, torch.zeros(20))
    torch.testing.assert_close(EmpiricalDenoiser(data, chunk=3)(x, sigma), mixture(x, sigma))


def test_little_noise_finds_the_sample_itself():
    data = randn(20, 6)
    found = EmpiricalDenoiser(data)(data + 0.001 * randn(20, 6, seed=1), 0.002)
    torch.testing.assert_close(found, data)


# Both


@pytest.mark.parametrize("kind", ["empirical", "full", "low rank"])
def test_gradients(kind):
    full, spectrum = covariances(3, 4, 2 if kind == "low rank" else None)
    given = full if kind == "full" else spectrum
    means = randn(3, 2, 2)
    model = (
        EmpiricalDenoiser(means, chunk=2)
        if kind == "empirical"
        else GaussianMixtureDenoiser(means, given)
    )
    x, sigma = randn(2, 2, 2, seed=5).requires_grad_(), torch.tensor([0.8, 1.5]).double()
    assert torch.autograd.gradcheck(model, (x, sigma.requires_grad_()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_outputs_have_the_dtype_of_x(dtype):
    for model in (
        EmpiricalDenoiser(randn(3, 4)),
        GaussianMixtureDenoiser(randn(3, 4), torch.ones(3)),
    ):
        x = randn(2, 4, seed=1)
        found = model(x.to(dtype), torch.tensor(0.5, dtype=torch.float64))
        assert found.dtype == dtype
        torch.testing.assert_close(found.double(), model(x, 0.5), rtol=0.02, atol=0.02)


# Digits


def test_the_digits_models():
    digits = pytest.importorskip("sklearn.datasets").load_digits()
    data = digits.images.reshape(-1, 64) / 8 - 1
    a, b = digits_empirical(), digits_gauss10()
    assert a.data.shape == (1797, 1, 8, 8)
    assert (a.data.min(), a.data.max()) == (-1, 1)
    counts = np.bincount(digits.target)
    np.testing.assert_allclose(b.log_weights.exp(), counts / 1797)
    three = np.cov(data[digits.target == 3].T)
    found = b.basis[3] @ torch.diag(b.variances[3]) @ b.basis[3].T
    np.testing.assert_allclose(found, three, atol=1e-12)
    np.testing.assert_allclose(b.means[3].flatten(), data[digits.target == 3].mean(0))
    x = torch.zeros(1, 1, 8, 8)
    for model in (a, b):  # all noise: the mean of the data
        mean = torch.from_numpy(data.mean(0)).float().reshape(x.shape)
        torch.testing.assert_close(model(x, 1e4), mean, rtol=0, atol=1e-4)


# Fingerprints


def test_a_fingerprint_tells_models_apart():
    sigmas = [0.5, 2.0]
    model, other = (EmpiricalDenoiser(randn(9, 4, seed=seed)) for seed in (0, 1))
    first = fingerprint(model, (4,), sigmas)
    assert len(first) == 16
    assert fingerprint(model, [4], torch.tensor(sigmas), dtype=torch.float64) == first
    assert fingerprint(lambda x, sigma: model(x, sigma) * (1 + 1e-7), (4,), sigmas) == first
    different = {
        first,
        fingerprint(other, (4,), sigmas),
        fingerprint(model, (4,), [0.5, 3.0]),
        fingerprint(lambda x, sigma: model(x, sigma) * 1.02, (4,), sigmas),
        fingerprint(lambda x, sigma: -model(x, sigma), (4,), sigmas),
        fingerprint(lambda x, sigma: model(x.flatten(1), sigma).reshape(x.shape), (2, 2), sigmas),
    }
    assert len(different) == 6


def test_a_fingerprint_needs_a_working_model():
    with pytest.raises(ValueError, match=r"not finite at sigma 2$"):
        fingerprint(lambda x, sigma: x if sigma < 1 else x / 0, (4,), [0.5, 2.0])
    with pytest.raises(ValueError, match="must keep the shape"):
        fingerprint(lambda x, _: x[:, :2], (4,), [0.5])
    for sigmas in ([], [0.0], [1.0, math.nan]):
        with pytest.raises(ValueError, match="sigmas must be finite values > 0"):
            fingerprint(lambda x, _: x, (4,), sigmas)


# Bad arguments


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: EmpiricalDenoiser(torch.zeros(0, 3)), r"got \(0, 3\)"),
        (lambda: EmpiricalDenoiser(torch.full((2, 3), math.nan)), "data must be finite"),
        (lambda: EmpiricalDenoiser(torch.zeros(2, 3, dtype=torch.int64)), "floating-point"),
        (lambda: EmpiricalDenoiser(torch.zeros(2, 3), chunk=0), "chunk must be >= 1, got 0"),
        (lambda: GaussianMixtureDenoiser(torch.zeros(3), torch.ones(3)), r"got \(3,\)"),
        (lambda: mixture(torch.ones(3)), r"covariances must be \(2,\), \(2, 3, 3\) or \(U, L\)"),
        (lambda: mixture(torch.tensor([1.0, -1])), "variances must be >= 0, got -1"),
        (lambda: mixture(torch.arange(18.0).reshape(2, 3, 3)), "symmetric"),
        (lambda: mixture(-torch.eye(3).expand(2, 3, 3)), "semi-definite, got eigenvalue -1"),
        (lambda: mixture((torch.eye(3), torch.ones(3))), r"\(U, L\) must be \(2, 3, r\)"),
        (lambda: mixture((torch.ones(2, 3, 1), torch.ones(2, 1))), "orthonormal"),
        (lambda: mixture(torch.ones(2), torch.tensor([1.0, 0])), "weights must be 2 finite"),
        (lambda: mixture(torch.ones(2))(torch.zeros(4, 2), 1.0), r"x must be \(B, 3\)"),
        (lambda: mixture(torch.ones(2))(torch.zeros(4, 3), torch.ones(5)), r"scalar or \(4,\)"),
        (lambda: mixture(torch.ones(2)).solution(torch.zeros(4, 3), 1, 0), "only one Gaussian"),
        (lambda: one_gaussian("full").solution(torch.zeros(1, 2, 2), 0, 0), "sigma_start > 0"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def mixture(given, weights=None):
    return GaussianMixtureDenoiser(torch.zeros(2, 3), given, weights)
