import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from ssl_hv.objectives.aim import (
    AIM,
    autoregressive_patch_loss,
    normalize_patches,
    prefix_visibility,
)
from ssl_hv.vit import VisionTransformer, patchify, unpatchify


def normal(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def tiny(channels=1, **options):
    torch.manual_seed(0)
    encoder = VisionTransformer(in_channels=channels, image_size=32, patch=8, width=16, heads=2)
    return AIM(encoder, **options)


def images(n=4, channels=1):
    return normal(n, channels, 32, 32).sigmoid()


PREFIX = torch.tensor([1, 3])


def test_the_loss_counts_what_lies_behind_the_prefix():
    prediction, patches = normal(2, 4, 3), normal(2, 5, 3, seed=1)
    target = normalize_patches(patches)
    errors = [(prediction[0, k - 1] - target[0, k]).square() for k in (1, 2, 3, 4)]
    errors += [(prediction[1, k - 1] - target[1, k]).square() for k in (3, 4)]
    loss = autoregressive_patch_loss(prediction, patches, PREFIX)
    torch.testing.assert_close(loss, torch.stack(errors).mean())


def test_loss_is_zero_at_the_target_and_one_at_zero():
    patches = normal(3, 6, 50)
    target = normalize_patches(patches)[:, 1:]
    prefix = torch.tensor([1, 2, 5])
    assert autoregressive_patch_loss(target, patches, prefix) == 0
    at_zero = autoregressive_patch_loss(torch.zeros_like(target), patches, prefix)
    torch.testing.assert_close(at_zero, torch.tensor(49 / 50), rtol=1e-3, atol=0)


def test_contrast_and_brightness_of_a_patch_do_not_matter():
    prediction, patches = normal(2, 4, 30), normal(2, 5, 30, seed=1)
    loss = autoregressive_patch_loss(prediction, patches, PREFIX)
    other = autoregressive_patch_loss(prediction, 3 * patches + 0.2, PREFIX)
    torch.testing.assert_close(loss, other, rtol=1e-4, atol=1e-5)


def test_normalized_patches_have_mean_0_and_variance_1_and_plain_ones_vanish():
    patches = normal(2, 4, 64)
    patches[0, 0] = 0.7
    result = normalize_patches(patches)
    assert result[0, 0].abs().max() < 1e-3
    torch.testing.assert_close(result[1].var(-1), torch.ones(4), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(result.mean(-1), torch.zeros(2, 4), rtol=0, atol=1e-3)


def test_loss_gradcheck():
    prediction = normal(2, 4, 3, dtype=torch.float64).requires_grad_()
    patches = normal(2, 5, 3, seed=1, dtype=torch.float64)
    assert torch.autograd.gradcheck(autoregressive_patch_loss, (prediction, patches, PREFIX))


def test_shapes_that_do_not_match_are_refused():
    with pytest.raises(ValueError, match=r"must be \(N, T, P\)"):
        autoregressive_patch_loss(normal(2, 5, 3), normal(2, 5, 3), PREFIX)


@given(tokens=st.integers(2, 7), data=st.data())
def test_visibility_is_that_of_a_loop(tokens, data):
    prefix = data.draw(st.lists(st.integers(1, tokens - 1), min_size=1, max_size=3))
    visible = prefix_visibility(torch.tensor(prefix), tokens)
    for i, length in enumerate(prefix):
        for row in range(tokens):
            for column in range(tokens):
                expected = column <= row or column < length
                assert visible[i, row, column] == expected


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("changed", [1, 6, 15])
def test_a_guess_sees_only_the_patches_before_it(training, changed):
    model, batch = tiny().train(training), images(2)
    prefix = torch.tensor([1, 4])
    patches = patchify(batch, 8).clone()
    patches[:, changed] = 1 - patches[:, changed]
    with torch.no_grad():
        before = model.predict(batch, prefix)
        after = model.predict(unpatchify(patches, 8), prefix)
    moved = (after - before).abs().amax(2) > 1e-6
    # guess k - 1 is of patch k: changing a patch behind the prefix moves later guesses only
    assert not moved[0, :changed].any()
    assert moved[0, changed:].all()
    if changed < 4:  # within its prefix every place sees it
        assert moved[1].all()
    else:
        assert not moved[1, :changed].any()


def test_the_representation_sees_the_whole_image():
    """Without a mask the first token depends on the last patch."""
    encoder = tiny().encoder.eval()
    batch = images(1)
    other = batch.clone()
    other[..., -8:, -8:] = 1
    first = encoder.transformer(encoder.embed(batch))[:, 0]
    assert (encoder.transformer(encoder.embed(other))[:, 0] - first).abs().max() > 1e-4


def test_prefixes_leave_something_to_guess(monkeypatch):
    model, seen = tiny(), []
    predict = model.predict
    monkeypatch.setattr(
        model, "predict", lambda batch, prefix: seen.append(prefix) or predict(batch, prefix)
    )
    for _ in range(40):
        model([images(8)])
    drawn = torch.cat(seen)
    assert set(drawn.tolist()) == set(range(1, 16))


@pytest.mark.parametrize("channels", [1, 3])
def test_learns_images_whose_rows_repeat(channels):
    model = tiny(channels)
    batch = images(4, channels).round()[..., :1, :8].repeat(1, 1, 32, 4)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    losses = []
    for _ in range(60):
        loss = model([batch])["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert torch.stack(losses[-5:]).mean() < 0.3 * losses[0]


def test_reconstruction_keeps_the_upper_half():
    model, batch = tiny().eval(), images()
    painted = model.reconstruct(batch)
    assert torch.equal(painted[..., :16, :], batch[..., :16, :])
    assert (patchify(painted, 8)[:, 8:] != patchify(batch, 8)[:, 8:]).any(2).all()
    assert painted.min() >= 0
    assert painted.max() <= 1


def test_a_perfect_guess_is_shown_as_the_image(monkeypatch):
    model, batch = tiny(), images()
    perfect = normalize_patches(patchify(batch, 8))[:, 1:]
    monkeypatch.setattr(model, "predict", lambda *_: perfect)
    torch.testing.assert_close(model.reconstruct(batch), batch, rtol=1e-3, atol=1e-3)


def test_compiles_without_a_break():
    model, batch, prefix = tiny(), images(2), torch.tensor([1, 4])
    compiled = torch.compile(model.predict, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(batch, prefix), model.predict(batch, prefix))
    assert torch.compile(model, fullgraph=True, backend="eager")([batch])["loss"] > 0


def test_half_precision(device):
    model, batch = tiny().to(device), images().to(device)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        loss = model([batch])["loss"]
    assert loss.dtype == torch.float32
    loss.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_one_patch_is_refused():
    with pytest.raises(ValueError, match="at least 2 patches"):
        AIM(VisionTransformer(image_size=8, width=16, heads=2))
