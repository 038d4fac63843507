import pytest
import torch
from ssl_hv.objectives.mae import MAE, masked_patch_loss
from ssl_hv.vit import VisionTransformer, patchify


def normal(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def tiny(channels=1, **options):
    torch.manual_seed(0)
    encoder = VisionTransformer(in_channels=channels, image_size=32, patch=8, width=16, heads=2)
    return MAE(encoder, decoder_width=16, decoder_heads=2, **options)


def images(n=4, channels=1):
    return normal(n, channels, 32, 32).sigmoid()


def some_mask():
    mask = torch.zeros(2, 5, dtype=torch.bool)
    mask[0, 1] = mask[1, 3] = mask[1, 4] = True
    return mask


def test_the_loss_counts_the_masked_pixels():
    prediction, target, mask = normal(2, 5, 3), normal(2, 5, 3, seed=1), some_mask()
    expected = (prediction[mask] - target[mask]).square().mean()
    torch.testing.assert_close(masked_patch_loss(prediction, target, mask), expected)


def test_an_unmasked_target_has_no_effect():
    prediction, target, mask = normal(2, 5, 3), normal(2, 5, 3, seed=1), some_mask()
    changed = torch.where(mask[..., None], target, target + 7)
    loss = masked_patch_loss(prediction, target, mask)
    assert torch.equal(masked_patch_loss(prediction, changed, mask), loss)
    assert masked_patch_loss(prediction, target + 7, mask) != loss


def test_loss_gradcheck():
    prediction = normal(2, 5, 3, dtype=torch.float64).requires_grad_()
    target = normal(2, 5, 3, seed=1, dtype=torch.float64)
    assert torch.autograd.gradcheck(masked_patch_loss, (prediction, target, some_mask()))


def test_loss_of_half_precision_is_float32():
    prediction, target = normal(2, 5, 3).bfloat16(), normal(2, 5, 3, seed=1).bfloat16()
    loss = masked_patch_loss(prediction, target, some_mask())
    expected = masked_patch_loss(prediction.float(), target.float(), some_mask())
    assert loss.dtype == torch.float32
    assert torch.equal(loss, expected)


def test_shapes_that_do_not_match_are_refused():
    with pytest.raises(ValueError, match=r"\(N, T, P\) and mask \(N, T\), got"):
        masked_patch_loss(normal(2, 5, 3), normal(2, 5, 3), some_mask()[:, :4])


def test_the_prediction_never_sees_a_masked_patch():
    model, batch = tiny().eval(), images()
    order = model.random_order(batch)
    before, mask = model.paint(batch, order)
    patches = patchify(batch, 8)
    assert (mask.sum(1) == model.masked).all()
    other = torch.where(mask[..., None], 1 - patches, patches)
    other = torch.nn.functional.pixel_shuffle(other.transpose(1, 2).unflatten(2, (4, 4)), 8)
    after, _ = model.paint(other, order)
    assert torch.equal(before, after)
    seen = torch.where(mask[..., None], patches, 1 - patches)
    seen = torch.nn.functional.pixel_shuffle(seen.transpose(1, 2).unflatten(2, (4, 4)), 8)
    assert not torch.allclose(before, model.paint(seen, order)[0])


def test_the_order_among_the_seen_does_not_matter():
    model, batch = tiny().eval(), images()
    order = model.random_order(batch)
    other = torch.cat([order[:, : model.masked], order[:, model.masked :].flip(1)], 1)
    one, mask = model.paint(batch, order)
    two, same = model.paint(batch, other)
    assert torch.equal(mask, same)
    torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)


def test_masked_patches_are_painted_by_their_place():
    model, batch = tiny(mask_ratio=0.5).eval(), images(1)
    prediction, mask = model.paint(batch, model.random_order(batch))
    distance = torch.cdist(prediction[mask], prediction[mask]) + torch.eye(8)
    assert distance.min() > 1e-4


def test_paper_sizes():
    """A fifth of 49 patches is 10; every image has its own mask."""
    encoder = VisionTransformer(image_size=56, width=16, heads=2)
    model = MAE(encoder)
    assert model.masked == 10
    _, mask = model.paint(torch.rand(8, 1, 56, 56), model.random_order(torch.rand(8, 1, 56, 56)))
    assert len(mask.unique(dim=0)) == 8
    assert (model.decoder.norm.normalized_shape, len(model.decoder.blocks)) == ((512,), 1)


@pytest.mark.parametrize("channels", [1, 3])
def test_learns_to_paint(channels):
    model, batch = tiny(channels), images(4, channels).round()[:, :1].repeat(1, channels, 1, 1)
    batch = batch[..., :1, :].expand_as(batch).contiguous()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    losses = []
    for _ in range(60):
        loss = model([batch])["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert torch.stack(losses[-10:]).mean() < 0.6 * torch.stack(losses[:3]).mean()


def test_reconstruction_changes_masked_patches_only():
    model, batch = tiny().eval(), images()
    painted = model.reconstruct(batch, seed=3)
    assert torch.equal(painted, model.reconstruct(batch, seed=3))
    changed = (patchify(painted, 8) != patchify(batch, 8)).any(2)
    assert (changed.sum(1) == model.masked).all()
    assert painted.min() >= 0
    assert painted.max() <= 1


def test_compiles_without_a_break():
    model, batch = tiny(), images()
    order = model.random_order(batch)
    compiled = torch.compile(model.paint, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(batch, order)[0], model.paint(batch, order)[0])
    forward = torch.compile(model, fullgraph=True, backend="eager")
    assert forward([batch])["loss"] > 0


def test_half_precision(device):
    model, batch = tiny().to(device), images().to(device)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        loss = model([batch])["loss"]
    assert loss.dtype == torch.float32
    loss.backward()
    assert model.mask_token.grad.isfinite().all()


@pytest.mark.parametrize("ratio", [0.0, 0.01, 0.99, 1.0, -0.2])
def test_a_mask_of_nothing_or_all_is_refused(ratio):
    with pytest.raises(ValueError, match="at least one of 16 patches"):
        tiny(mask_ratio=ratio)
