from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from ssl_hv.heads import HEADS, SHRINKAGE, CosineHead, LogisticHead, PairHead
from torch.nn import functional as F

DIM = 6


def embeddings(rows=60, seed=0):
    """Six writers, each around a place of its own, words vary most along the first dimension."""
    generator = torch.Generator().manual_seed(seed)
    writers = torch.arange(rows) % 6
    centres = torch.randn(6, DIM, generator=generator)
    noise = torch.randn(rows, DIM, generator=generator) * torch.tensor([2.0, 1, 0.5, 0.3, 0.3, 0.3])
    return 3 + centres[writers] + noise, writers


def make(name):
    torch.manual_seed(0)
    x, writers = embeddings()
    if name.startswith("pair"):
        return PairHead(DIM, product=name == "pair-product")
    if name == "logistic":
        head = LogisticHead(DIM)
        head.fit(x[:30], x[30:], (torch.rand(30) < 0.5).long())
        return head
    head = CosineHead(DIM, whiten=name == "whitened")
    head.fit(x, writers)
    return head


@pytest.mark.parametrize("name", ["pair", "pair-product", "cosine", "whitened", "logistic"])
def test_every_head_is_symmetric(name):
    head, (a, _), (b, _) = make(name), embeddings(seed=1), embeddings(seed=2)
    scores = head(a, b)
    assert scores.shape == (60,)
    assert scores.std() > 0
    torch.testing.assert_close(scores, head(b, a), rtol=0, atol=1e-6)


def test_the_published_signed_difference_is_not():
    torch.manual_seed(0)
    head, (a, _), (b, _) = PairHead(DIM, signed=True), embeddings(seed=1), embeddings(seed=2)
    assert (head(a, b) - head(b, a)).abs().min() > 1e-4


def test_the_pair_head_is_that_of_the_paper():
    head, a, b = PairHead(512), torch.randn(3, 512), torch.randn(3, 512)
    assert [layer.weight.shape for layer in (head.projection, head.mlp[0], head.mlp[2])] == [
        (64, 512),
        (32, 64),
        (1, 32),
    ]
    u = (a @ head.projection.weight.T - b @ head.projection.weight.T).abs()
    hidden = (u @ head.mlp[0].weight.T + head.mlp[0].bias).clamp(min=0)
    expected = hidden @ head.mlp[2].weight[0] + head.mlp[2].bias
    torch.testing.assert_close(head(a, b), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["cosine", "whitened"])
def test_a_word_is_most_like_itself(name):
    head, (x, _) = make(name), embeddings(seed=1)
    torch.testing.assert_close(head(x, x), torch.ones(60))
    others = head(x.repeat_interleave(60, 0), x.repeat(60, 1)).view(60, 60)
    assert (others.argmax(1) == torch.arange(60)).all()
    assert others.abs().max() <= 1 + 1e-6


def test_the_mean_of_the_training_words_is_taken_off():
    head, (x, _) = CosineHead(DIM), embeddings()
    a, b = x[:5], x[5:10]
    torch.testing.assert_close(head(a, b), F.cosine_similarity(a, b))  # before it is fitted
    head.fit(x)
    expected = F.cosine_similarity(a - x.mean(0), b - x.mean(0))
    torch.testing.assert_close(head(a, b), expected)
    assert (expected - F.cosine_similarity(a, b)).abs().max() > 0.1


def within_covariance(unit, writers):
    """Of unit rows about the mean of their writer, by numpy's own formula, float64."""
    centred = [unit[writers == k] - unit[writers == k].mean(0) for k in range(6)]
    return sum(c.T @ c for c in centred) / len(unit)


def test_whitening_leaves_the_words_of_a_writer_round():
    (x, writers), head = embeddings(), make("whitened")
    unit = F.normalize(x - x.mean(0)).double().numpy()
    before = within_covariance(unit, writers.numpy())
    before += SHRINKAGE * np.diag(before).mean() * np.eye(DIM)
    transform = head.transform.double().numpy()
    after = transform.T @ before @ transform
    np.testing.assert_allclose(after, np.diag(before).mean() * np.eye(DIM), atol=1e-6)
    assert np.ptp(np.linalg.eigvalsh(before)) > 0.05  # it was not round before
    white = unit @ np.linalg.inv(np.linalg.cholesky(before)).T
    white /= np.linalg.norm(white, axis=1, keepdims=True)
    np.testing.assert_allclose(head(x[:9], x[9:18]), (white[:9] * white[9:18]).sum(1), atol=1e-5)


def test_writers_may_have_gaps_in_their_numbers():
    (x, writers), head, gaps = embeddings(), make("whitened"), CosineHead(DIM, whiten=True)
    gaps.fit(x, writers * 3 + 2)
    torch.testing.assert_close(gaps.transform, head.transform)


@pytest.mark.parametrize("penalty", [0.01, 1.0])
def test_the_logistic_head_is_scikit_learns_regression(penalty):
    (a, _), (b, _) = embeddings(seed=1), embeddings(seed=2)
    b = b[torch.randperm(60, generator=torch.Generator().manual_seed(0))]
    a, b, same = torch.cat([a, a]), torch.cat([a + 0.1 * b, b]), torch.arange(120) < 60
    head = LogisticHead(DIM, penalty=penalty)
    head.fit(a, b, same.long())
    difference = (a - b).abs().numpy()
    standard = (difference - difference.mean(0)) / difference.std(0)
    model = LogisticRegression(C=penalty, max_iter=1000).fit(standard, same.numpy())
    expected = model.decision_function(standard)
    np.testing.assert_allclose(head(a, b).numpy(), expected, rtol=1e-4, atol=1e-4)
    assert expected[:60].mean() > expected[60:].mean() + 0.1


def test_a_number_that_never_varies_does_no_harm():
    (x, _), head = embeddings(), LogisticHead(DIM)
    x[:, 0] = 7
    head.fit(x[:30], x[30:], torch.arange(30) % 2)
    assert torch.isfinite(head(x[:30], x[30:])).all()


@pytest.mark.parametrize("name", HEADS)
def test_what_was_fitted_is_saved(name):
    head, again = make(name), HEADS[name](DIM)
    again.load_state_dict(head.state_dict())
    (a, _), (b, _) = embeddings(seed=1), embeddings(seed=2)
    assert torch.equal(again(a, b), head(a, b))
