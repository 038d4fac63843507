import pytest
import torch
from gits_sampling.features import (
    RandomFeatures,
    feature_statistics,
    frechet_distance,
    gaussian_distance,
)


def covariance(size, rank, seed):
    factor = torch.randn(
        size, rank, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    return factor @ factor.T


def test_diagonal_gaussians_in_closed_form():
    a, b = torch.tensor([1.0, 4.0, 9.0]).double(), torch.tensor([4.0, 0.0, 1.0]).double()
    shift = torch.tensor([1.0, -2.0, 0.5]).double()
    expected = 5.25 + (1 - 2) ** 2 + (2 - 0) ** 2 + (3 - 1) ** 2
    found = gaussian_distance(shift, a.diag(), torch.zeros(3), b.diag())
    assert found.item() == pytest.approx(expected, abs=1e-12)


def test_commuting_covariances_in_closed_form():
    turn, _ = torch.linalg.qr(covariance(5, 5, 0))
    a, b = torch.rand(2, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    zero = torch.zeros(5)
    found = gaussian_distance(zero, turn * a @ turn.T, zero, turn * b @ turn.T)
    torch.testing.assert_close(found, (a.sqrt() - b.sqrt()).square().sum(), rtol=0, atol=1e-12)


def test_general_covariances_against_eigenvalues_of_the_product():
    a, b = covariance(6, 6, 0), covariance(6, 6, 1)
    root = torch.linalg.eigvals(a @ b).real.clamp(min=0).sqrt().sum()
    zero = torch.zeros(6)
    found = gaussian_distance(zero, a, zero, b)
    torch.testing.assert_close(found, a.trace() + b.trace() - 2 * root)
    torch.testing.assert_close(found, gaussian_distance(zero, b, zero, a))


def test_equal_gaussians_of_low_rank_have_no_distance():
    a = covariance(30, 3, 0)
    mean = torch.ones(30)
    assert gaussian_distance(mean, a, mean, a) < 1e-10


def test_sets_of_images_in_a_feature_space_of_the_user_s():
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(4000, 1, 2, 2, generator=generator, dtype=torch.float64)
    moved = 2 * images + 3

    def pixels(x):
        assert len(x) <= 100
        return x.flatten(1)

    mean, cov = feature_statistics(images, pixels, batch=100)
    torch.testing.assert_close(mean, images.flatten(1).mean(0))
    torch.testing.assert_close(cov, images.flatten(1).T.cov())
    # one map x -> 2 x + 3 for all: |2 m + 3 - m|^2 + tr C
    expected = (mean + 3).square().sum() + cov.trace()
    torch.testing.assert_close(frechet_distance(images, moved, pixels, batch=100), expected)


def test_random_features_follow_from_the_seed():
    images = torch.rand(5, 3, 9, 7, generator=torch.Generator().manual_seed(0)) * 2 - 1
    features = RandomFeatures(3)
    found = features(images)
    assert found.shape == (5, features.dim)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, RandomFeatures(3)(images), rtol=0, atol=0)
    torch.testing.assert_close(found[2:], features(images[2:]))
    assert not torch.allclose(found, RandomFeatures(3, seed=1)(images))
    assert found.std(0).min() > 0


def test_better_images_are_nearer():
    from sklearn.datasets import load_digits

    digits = torch.from_numpy(load_digits().images).float()[:, None] / 8 - 1
    first, second = digits[::2], digits[1::2]
    noise = torch.randn(second.shape, generator=torch.Generator().manual_seed(0))
    distances = [
        frechet_distance(first, image).item()
        for image in (first, second, second + 0.2 * noise, second + 0.5 * noise, second + noise)
    ]
    assert distances[0] < 1e-10
    assert distances == sorted(distances)
    assert distances[2] > 1.5 * distances[1]
    # where things are counts: digits upside down are other images
    assert frechet_distance(first, second.flip(2)) > 2 * distances[1]


def test_bad_arguments_are_refused():
    images = torch.zeros(4, 1, 4, 4)
    with pytest.raises(ValueError, match="2 or more images"):
        frechet_distance(images[:1], images)
    with pytest.raises(ValueError, match=r"\(4, F\)"):
        frechet_distance(images, images, lambda x: x)
    with pytest.raises(ValueError, match="finite"):
        frechet_distance(images, images, lambda x: x.flatten(1) / 0)
    with pytest.raises(ValueError, match=r"\(B, 1, H, W\)"):
        RandomFeatures(1)(torch.zeros(4, 3, 4, 4))
    with pytest.raises(ValueError, match="width"):
        RandomFeatures(1, width=0)
    with pytest.raises(ValueError, match=r"\(F, F\)"):
        gaussian_distance(torch.zeros(2), torch.eye(2), torch.zeros(2), torch.eye(3))
