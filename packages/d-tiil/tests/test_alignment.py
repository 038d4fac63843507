from __future__ import annotations

import pytest
import torch
from d_tiil.alignment import align_embedding, alignment_gradient
from d_tiil.finetuning import finetune_copy
from d_tiil.noise import NoisePairs, add_noise, draw_pairs, fixed_pairs
from d_tiil.scores import denoising_errors
from d_tiil.settings import AlignmentSettings
from papercommons.errors import DataError
from torch import nn
from torch.nn import functional as F

SHAPE = (4, 8, 8)


@pytest.fixture
def given():
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(1, *SHAPE, generator=generator)
    return latents, torch.randn(1, 3, 5, generator=generator)


def test_gradient_is_that_of_full_autograd(unet, arrays, alpha_bars):
    values = arrays("embedding_alignment")
    latents, start = values["z0"], values["emb_init"]
    pairs = draw_pairs(3, latents.shape[1:], torch.Generator().manual_seed(0))
    whole = start.clone().requires_grad_()
    unet.requires_grad_(True)
    noised = add_noise(latents, pairs.noise, alpha_bars[pairs.timesteps])
    predicted = unet(noised, pairs.timesteps, whole.expand(3, -1, -1)).sample
    loss = F.mse_loss(predicted, pairs.noise)
    loss.backward()
    unet.zero_grad(set_to_none=True)
    for rows in (None, 2, 1):
        ours, gradient = alignment_gradient(
            lambda x, t, e: unet(x, t, e).sample,
            latents,
            start,
            pairs,
            alpha_bars=alpha_bars,
            max_rows=rows,
        )
        torch.testing.assert_close(ours, loss.detach())
        torch.testing.assert_close(gradient, whole.grad, rtol=1e-4, atol=1e-8)
        assert not ours.requires_grad
    assert all(weight.grad is None for weight in unet.parameters())


def test_gradient_is_the_slope_of_the_loss(toy, given, alpha_bars):
    latents, start = given
    pairs = draw_pairs(6, SHAPE, torch.Generator().manual_seed(0))

    def loss(embedding):
        return alignment_gradient(toy, latents, embedding, pairs, alpha_bars=alpha_bars)

    _, gradient = loss(start)
    for index in ((0, 0, 0), (0, 2, 4), (0, 1, 3)):
        step = torch.zeros_like(start)
        step[index] = 0.5  # the loss is quadratic: central differences are exact
        slope = loss(start + step)[0] - loss(start - step)[0]
        torch.testing.assert_close(slope, gradient[index], rtol=1e-3, atol=1e-4)


def test_alignment_lowers_the_error_and_keeps_the_start(toy, given, alpha_bars):
    latents, start = given
    before = start.clone()
    done = align_embedding(
        toy,
        latents,
        start,
        alpha_bars=alpha_bars,
        settings=AlignmentSettings(steps=60, lr=0.05, batch=8),
    )
    assert torch.equal(start, before)
    pairs = fixed_pairs(32, SHAPE, seed=5)
    errors = denoising_errors(
        toy, latents, torch.cat([start, done.embedding]), pairs, alpha_bars=alpha_bars
    ).mean(1)
    assert errors[1] < 0.9 * errors[0]
    assert min(done.checks) == done.checks[done.step // 10]
    assert not done.embedding.requires_grad


def test_the_seed_says_all_and_rows_at_once_nothing(toy, given, alpha_bars):
    how = AlignmentSettings(steps=5, lr=0.01, batch=6, check_every=2)
    runs = [
        align_embedding(toy, *given, alpha_bars=alpha_bars, settings=how, seed=seed, max_rows=rows)
        for seed, rows in ((3, None), (3, None), (3, 4), (4, None))
    ]
    assert torch.equal(runs[0].embedding, runs[1].embedding)
    assert torch.equal(runs[0].losses, runs[1].losses)
    torch.testing.assert_close(runs[2].embedding, runs[0].embedding, rtol=1e-4, atol=1e-5)
    assert not torch.equal(runs[3].embedding, runs[0].embedding)


def test_it_stops_where_nothing_is_gained(toy, given, alpha_bars):
    latents, start = given
    how = AlignmentSettings(steps=100, lr=1e-9, check_every=4, patience=2)
    done = align_embedding(toy, latents, start, alpha_bars=alpha_bars, settings=how)
    assert (len(done.losses), len(done.checks), done.stopped) == (8, 3, True)
    rising = AlignmentSettings(steps=40, lr=50.0, check_every=4, patience=2)
    kept = align_embedding(toy, latents, start, alpha_bars=alpha_bars, settings=rising)
    assert (kept.step, kept.stopped) == (0, True)
    assert torch.equal(kept.embedding, start)
    every = AlignmentSettings(steps=9, lr=1e-9, patience=0)
    assert (
        len(align_embedding(toy, latents, start, alpha_bars=alpha_bars, settings=every).losses) == 9
    )
    none = AlignmentSettings(steps=0, patience=0)
    assert torch.equal(
        align_embedding(toy, latents, start, alpha_bars=alpha_bars, settings=none).embedding, start
    )


def test_half_precision_networks_give_a_gradient(toy, given, alpha_bars):
    latents, start = given

    def half(x, t, e):
        return toy(x, t, e.to(torch.bfloat16).float()).to(torch.bfloat16).float()

    pairs = draw_pairs(4, SHAPE, torch.Generator().manual_seed(0))
    _, exact = alignment_gradient(toy, latents, start, pairs, alpha_bars=alpha_bars)
    _, rough = alignment_gradient(half, latents, start, pairs, alpha_bars=alpha_bars)
    assert rough.dtype == torch.float32
    torch.testing.assert_close(rough, exact, rtol=0.1, atol=0.02)


@pytest.mark.parametrize("patience", [0, 3])
def test_losses_that_are_not_finite_are_named(given, alpha_bars, patience):
    def broken(x, t, e):
        return x * float("nan") + e.mean()

    how = AlignmentSettings(steps=2, patience=patience)
    with pytest.raises(DataError, match=r"not finite at step [01]; lower the learning rate"):
        align_embedding(broken, *given, alpha_bars=alpha_bars, settings=how)


def test_wrong_shapes_are_named(toy, given, alpha_bars):
    latents, start = given
    with pytest.raises(ValueError, match=r"latents must be \(1, C, h, w\)"):
        align_embedding(toy, latents[0], start, alpha_bars=alpha_bars)
    few = NoisePairs(torch.zeros(3, dtype=torch.long), torch.zeros(3, *SHAPE))
    how = AlignmentSettings(steps=2, batch=2)
    with pytest.raises(ValueError, match=r"4 pairs are needed \(steps x batch\), got 3"):
        align_embedding(toy, latents, start, alpha_bars=alpha_bars, settings=how, pairs=few)


def test_pairs_are_stratified_and_reproducible():
    drawn = draw_pairs(10, SHAPE, torch.Generator().manual_seed(1), low=0.2, high=0.6)
    parts = (drawn.timesteps - 200) // 40
    assert sorted(parts.tolist()) == list(range(10))
    again = draw_pairs(10, SHAPE, torch.Generator().manual_seed(1), low=0.2, high=0.6)
    assert torch.equal(drawn.timesteps, again.timesteps)
    assert torch.equal(drawn.noise, again.noise)
    assert fixed_pairs(4, SHAPE, seed=0).timesteps.tolist() == [125, 375, 625, 875]
    with pytest.raises(ValueError, match="count must be >= 1"):
        draw_pairs(0, SHAPE, torch.Generator())


def test_finetuning_changes_only_a_copy(given, alpha_bars):
    latents, start = given
    torch.manual_seed(0)
    network = nn.Conv2d(4, 4, 1)
    before = [weight.clone() for weight in network.parameters()]
    tuned = finetune_copy(
        network,
        lambda layer: lambda x, t, e: layer(x),
        latents,
        start,
        alpha_bars=alpha_bars,
        steps=5,
        lr=1e-2,
    )
    assert all(torch.equal(*pair) for pair in zip(before, network.parameters(), strict=True))
    assert not torch.equal(tuned.weight, network.weight)
    assert not tuned.weight.requires_grad
    assert network.weight.requires_grad
