import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from ssl_hv.objectives.bigan import BiGAN, BiGANEncoder, bigan_losses
from torch import nn
from torch.nn import functional as F


def normal(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def tiny(channels=1, **options):
    torch.manual_seed(0)
    encoder = BiGANEncoder(in_channels=channels, image_size=8, latent=4, hidden=(32, 16))
    return BiGAN(encoder, discriminator_width=16, **options)


def images(n=6, channels=1):
    return normal(n, channels, 8, 8).sigmoid()


def sides(model):
    """The parameters of generator and encoder, and of the discriminator."""
    ours = [*model.generator.parameters(), *model.encoder.parameters()]
    return ours, list(model.discriminator.parameters())


def gradients(loss, parameters):
    return torch.autograd.grad(loss, list(parameters), retain_graph=True, materialize_grads=True)


def largest(grads):
    return max(grad.abs().max() for grad in grads)


@given(seed=st.integers(0, 1000))
def test_losses_are_cross_entropies_with_opposite_labels(seed):
    encoded, generated = normal(5, seed=seed), normal(5, seed=seed + 1)
    one, zero = torch.ones(5), torch.zeros(5)
    entropy = F.binary_cross_entropy_with_logits
    fooling, telling = bigan_losses(encoded, generated)
    torch.testing.assert_close(telling, (entropy(encoded, one) + entropy(generated, zero)) / 2)
    torch.testing.assert_close(fooling, (entropy(encoded, zero) + entropy(generated, one)) / 2)


def test_losses_at_equality_and_at_a_perfect_discriminator():
    for loss in bigan_losses(torch.zeros(4), torch.zeros(4)):
        torch.testing.assert_close(loss, torch.tensor(math.log(2)))
    fooling, telling = bigan_losses(torch.full((4,), 200.0), torch.full((4,), -200.0))
    assert telling == 0
    assert fooling == 200


def test_losses_gradcheck():
    logits = [normal(3, seed=i, dtype=torch.float64).requires_grad_() for i in (0, 1)]
    assert torch.autograd.gradcheck(bigan_losses, logits)


def test_losses_of_half_precision_are_float32():
    assert all(x.dtype == torch.float32 for x in bigan_losses(normal(3).half(), normal(3).half()))


def test_losses_refuse_two_shapes():
    with pytest.raises(ValueError, match=r"one shape, got \(3,\) and \(4,\)"):
        bigan_losses(torch.zeros(3), torch.zeros(4))


def test_each_loss_moves_its_own_part_only():
    model = tiny()
    losses = model([images()])
    ours, theirs = sides(model)
    assert largest(gradients(losses["loss"], theirs)) == 0
    assert largest(gradients(losses["discriminator_loss"], ours)) == 0
    assert largest(gradients(losses["loss"], ours)) > 0
    assert largest(gradients(losses["discriminator_loss"], theirs)) > 0


def test_the_encoder_is_trained():
    """In the official script its parameters are in no optimizer."""
    model = tiny()
    grads = gradients(model([images()])["loss"], model.encoder.parameters())
    assert all(grad.abs().max() > 0 for grad in grads[-2:])


def test_both_losses_see_the_same_pairs():
    """Without dropout each loss is that of the plain formula on the same random codes."""
    model, batch = tiny(dropout=0.0), images()
    torch.manual_seed(1)
    losses = model([batch])
    torch.manual_seed(1)
    codes = 2 * torch.rand(len(batch), 4) - 1
    encoded = model.discriminator(2 * batch.flatten(1) - 1, model.encoder(batch))
    generated = model.discriminator(model.generator(codes), codes)
    fooling, telling = bigan_losses(encoded, generated)
    torch.testing.assert_close(losses["loss"], fooling)
    torch.testing.assert_close(losses["discriminator_loss"], telling)
    ours, _ = sides(model)
    for mine, plain in zip(gradients(losses["loss"], ours), gradients(fooling, ours), strict=True):
        torch.testing.assert_close(mine, plain)


def test_layers_are_those_of_the_specification():
    model = BiGAN(BiGANEncoder(in_channels=3))

    def widths(part):
        layers = [layer for layer in part.modules() if isinstance(layer, nn.Linear)]
        return [layers[0].in_features, *(layer.out_features for layer in layers)]

    assert widths(model.generator) == [100, 128, 256, 512, 1024, 12_288]
    assert widths(model.encoder) == [12_288, 1024, 512, 256, 128, 100]
    assert widths(model.discriminator) == [12_388, 512, 512, 512, 1]
    norms = [type(m) for m in model.generator if isinstance(m, nn.BatchNorm1d | nn.LeakyReLU)]
    assert norms == [nn.LeakyReLU, *3 * [nn.BatchNorm1d, nn.LeakyReLU]]
    assert model.encoder.dim == 100


@pytest.mark.parametrize("channels", [1, 3])
def test_learns_two_images(channels):
    """Images of one blank and one inked class: samples of both appear, codes tell them apart."""
    model = tiny(channels, dropout=0.0)
    batch = torch.zeros(16, channels, 8, 8)
    batch[8:] = 1
    ours, theirs = (torch.optim.Adam(side, 2e-3, betas=(0.5, 0.999)) for side in sides(model))
    for _ in range(150):
        losses = model([batch])
        ours.zero_grad()
        theirs.zero_grad()
        (losses["loss"] + losses["discriminator_loss"]).backward()
        ours.step()
        theirs.step()
    samples = model.sample(64).mean((1, 2, 3))
    assert (samples < 0.3).any()
    assert (samples > 0.7).any()
    codes = model.encoder(batch)
    assert (codes[0] - codes[8]).abs().max() > 0.3


def test_samples_and_reconstructions_are_images():
    model = tiny(channels=3).eval()
    samples = model.sample(5, seed=1)
    assert samples.shape == (5, 3, 8, 8)
    assert torch.equal(samples, model.sample(5, seed=1))
    assert not torch.equal(samples, model.sample(5, seed=2))
    painted = model.reconstruct(images(2, 3))
    assert painted.shape == (2, 3, 8, 8)
    assert min(samples.min(), painted.min()) >= 0
    assert max(samples.max(), painted.max()) <= 1


def test_codes_stay_in_the_range_of_the_prior():
    codes = tiny().encoder(images())
    assert codes.shape == (6, 4)
    assert codes.abs().max() <= 1


def test_half_precision(device):
    model, batch = tiny().to(device), images().to(device)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        losses = model([batch])
    assert all(loss.dtype == torch.float32 for loss in losses.values())
    sum(losses.values()).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_compiles_without_a_break():
    model, batch = tiny(dropout=0.0).eval(), images()
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    torch.manual_seed(1)
    losses = compiled([batch])
    torch.manual_seed(1)
    torch.testing.assert_close(losses, model([batch]))


def test_a_batch_of_one_is_refused_in_training_only():
    model = tiny()
    with pytest.raises(ValueError, match="at least 2 images per batch"):
        model([images(1)])
    assert model.eval()([images(1)])["loss"] > 0


def test_images_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"\(N, 1, 8, 8\), got \(6, 3, 8, 8\)"):
        tiny()([images(channels=3)])
