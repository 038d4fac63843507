from __future__ import annotations

import math

import pytest
import torch
from cmdfd.losses import (
    contrastive_loss,
    correlation,
    correlation_distillation_loss,
    correlation_target,
    distillation_loss,
    frame_cross_entropy,
    jeffreys_divergence,
    jensen_shannon,
)
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F


@pytest.fixture
def example(parity):
    """Reference values, with time in the second place as everywhere here."""
    found = parity("losses")
    for name in ("audio_posterior", "video_posterior"):
        found[name] = found.pop(f"{name}_TBC").transpose(0, 1)
    return found


def inputs(example):
    return [example[f"{k}_posterior"] for k in ("audio", "video")]


def test_divergences_are_the_references(example):
    p, q = inputs(example)
    expected = example["correlation_target_divergence"]
    torch.testing.assert_close(jeffreys_divergence(p, q), expected, rtol=0, atol=1e-6)
    exact = jensen_shannon(p.double(), q.double(), unit="nats")
    torch.testing.assert_close(exact, example["true_js_divergence_nats"], rtol=0, atol=1e-7)
    torch.testing.assert_close(
        jensen_shannon(p, q).double(), exact / math.log(2), rtol=0, atol=1e-6
    )


def test_losses_and_gradients_are_the_references(example):
    a, v = (example[f"{k}_embed"].requires_grad_() for k in ("audio", "visual"))
    s = correlation(a, v)
    torch.testing.assert_close(s, example["cosine_scaled"], rtol=0, atol=1e-6)
    r = correlation_target(*inputs(example), target="jeffreys")
    dist = distillation_loss(s, r, example["label"])
    con = contrastive_loss(s, r, example["label"], over_time="sum")
    assert dist.item() == pytest.approx(example["distill_loss"].item(), abs=1e-5)
    assert con.item() == pytest.approx(example["contrastive_loss"].item(), abs=1e-5)
    total = correlation_distillation_loss(
        a, v, *inputs(example), example["label"], target="jeffreys", over_time="sum"
    )
    torch.testing.assert_close(total, dist + con)
    for name, got in zip(("audio", "visual"), torch.autograd.grad(total, [a, v]), strict=True):
        torch.testing.assert_close(got, example[f"grad_{name}_embed"], rtol=0, atol=1e-6)


def test_cross_entropy_is_the_references(example):
    features = example["av_features"].requires_grad_()
    logits = F.linear(features, example["head_weight"], example["head_bias"])
    loss = frame_cross_entropy(logits, example["label"])
    assert loss.item() == pytest.approx(example["ce_loss"].item(), abs=1e-5)
    right = (logits.argmax(2) == example["label"][:, None]).sum()
    assert right.item() == example["correct_frames"].item()
    (gradient,) = torch.autograd.grad(loss, features)
    torch.testing.assert_close(gradient, example["grad_av_features"], rtol=0, atol=1e-6)
    total = loss + example["distill_loss"] + example["contrastive_loss"]
    assert total.item() == pytest.approx(example["total_loss"].item(), abs=1e-5)


def distributions(seed, sharpness, shape=(3, 6)):
    chance = torch.Generator().manual_seed(seed)
    return [(sharpness * torch.randn(shape, generator=chance)).softmax(-1) for _ in range(2)]


@given(seed=st.integers(0, 999), sharpness=st.floats(0, 300))
def test_js_is_symmetric_and_in_bounds(seed, sharpness):
    p, q = distributions(seed, sharpness)
    js = jensen_shannon(p, q)
    assert ((js >= 0) & (js <= 1)).all()
    assert torch.equal(js, jensen_shannon(q, p))
    assert torch.equal(jensen_shannon(p, p), torch.zeros(3))
    p, q = p.double(), q.double()
    m = ((p + q) / 2).clamp(min=1e-300)
    brute = torch.special.xlogy(p, p / m).sum(-1) + torch.special.xlogy(q, q / m).sum(-1)
    torch.testing.assert_close(js.double(), brute / 2 / math.log(2), rtol=0, atol=2e-6)


@given(seed=st.integers(0, 999), sharpness=st.floats(0, 300))
def test_agreement_is_in_bounds_and_symmetric_for_both_targets(seed, sharpness):
    p, q = distributions(seed, sharpness)
    for target in ("js", "jeffreys"):
        r = correlation_target(p, q, target=target)
        assert ((r >= 0) & (r <= 1)).all()
        torch.testing.assert_close(r, correlation_target(q, p, target=target))
        torch.testing.assert_close(correlation_target(p, p, target=target), torch.ones(3))


@pytest.mark.parametrize("target", ["js", "jeffreys"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("p", "q"),
    [
        ([0.5, 0.5], [0.5, 0.5]),
        ([1.0, 0.0], [1.0, 0.0]),
        ([1.0, 0.0], [0.0, 1.0]),
        ([1.0, 1e-42], [1e-38, 1.0]),
    ],
)
def test_gradients_are_finite_where_posteriors_are_equal_or_underflow(p, q, dtype, target):
    p, q = (torch.tensor([[x]], dtype=dtype, requires_grad=True) for x in (p, q))
    a, v = (torch.ones(1, 1, 4, dtype=dtype, requires_grad=True) for _ in range(2))
    for label in (0, 1):
        loss = correlation_distillation_loss(a, v, p, q, torch.tensor([label]), target=target)
        assert torch.isfinite(loss)
        for gradient in torch.autograd.grad(loss, [a, v, p, q]):
            assert torch.isfinite(gradient).all()
    divergence = jensen_shannon(p, q) if target == "js" else jeffreys_divergence(p, q)
    for gradient in torch.autograd.grad(divergence.sum(), [p, q]):
        assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("target", ["js", "jeffreys"])
@pytest.mark.parametrize("over_time", ["mean", "sum"])
@pytest.mark.parametrize("distill", ["all", "real"])
def test_gradients_are_those_of_the_formulas(target, over_time, distill):
    torch.manual_seed(0)
    a, v = (torch.randn(2, 3, 4, dtype=torch.double, requires_grad=True) for _ in range(2))
    p, q = (x.double().requires_grad_() for x in distributions(0, 1.0, (2, 3, 5)))
    labels = torch.tensor([0, 1])

    def loss(*tensors):
        return correlation_distillation_loss(
            *tensors, labels, target=target, over_time=over_time, distill=distill
        )

    assert torch.autograd.gradcheck(loss, (a, v, p, q))


def test_voice_and_mouth_may_change_roles():
    torch.manual_seed(1)
    a, v = torch.randn(2, 2, 3, 4)
    p, q = distributions(2, 1.0, (2, 3, 5))
    labels = torch.tensor([0, 1])
    one = correlation_distillation_loss(a, v, p, q, labels)
    torch.testing.assert_close(correlation_distillation_loss(v, a, q, p, labels), one)


@given(seed=st.integers(0, 999), frames=st.integers(1, 40))
def test_contrastive_loss_has_its_bounds(seed, frames):
    s, r = torch.rand(2, 3, frames, generator=torch.Generator().manual_seed(seed))
    for way in ("mean", "sum"):
        assert contrastive_loss(s, r, torch.zeros(3, dtype=torch.long), over_time=way) >= 0.25
        assert contrastive_loss(s, r, torch.ones(3, dtype=torch.long), over_time=way) <= 0.25
    twice = contrastive_loss(s.repeat(1, 2), r.repeat(1, 2), torch.tensor([0, 1, 0]))
    torch.testing.assert_close(twice, contrastive_loss(s, r, torch.tensor([0, 1, 0])))


def test_distilling_real_clips_alone():
    s, r = torch.rand(2, 4, 6)
    labels = torch.tensor([0, 1, 0, 1])
    real = distillation_loss(s, r, labels, distill="real")
    torch.testing.assert_close(real, distillation_loss(s[::2], r[::2], labels[::2]))
    torch.testing.assert_close(
        distillation_loss(s, r, labels), F.binary_cross_entropy(s, r), rtol=1e-5, atol=1e-6
    )
    assert distillation_loss(s, r, torch.ones(4), distill="real") == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_inputs_give_float32(dtype):
    a, v = (torch.randn(2, 3, 4).to(dtype) for _ in range(2))
    p, q = (x.to(dtype) for x in distributions(0, 30.0, (2, 3, 5)))
    labels = torch.tensor([0, 1])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = correlation_distillation_loss(a, v, p, q, labels)
    assert loss.dtype == torch.float32
    wide = correlation_distillation_loss(a.float(), v.float(), p.float(), q.float(), labels)
    torch.testing.assert_close(loss, wide)
    assert frame_cross_entropy(torch.randn(2, 3, 2).to(dtype), labels).dtype == torch.float32


@pytest.mark.slow
def test_it_compiles_without_breaks():
    run = torch.compile(correlation_distillation_loss, backend="eager", fullgraph=True)
    a, v = torch.randn(2, 2, 3, 4)
    p, q = distributions(0, 1.0, (2, 3, 5))
    labels = torch.tensor([0, 1])
    torch.testing.assert_close(
        run(a, v, p, q, labels), correlation_distillation_loss(a, v, p, q, labels)
    )


def test_wrong_arguments_are_told():
    s, labels = torch.rand(2, 3), torch.tensor([0, 1])
    p = torch.full((2, 3, 4), 0.25)
    with pytest.raises(ValueError, match=r"\(2, 3, 4\) and \(2, 3, 5\).*same classes"):
        jensen_shannon(p, torch.rand(2, 3, 5))
    with pytest.raises(ValueError, match="target must be js or jeffreys, got 'kl'"):
        correlation_target(p, p, target="kl")
    with pytest.raises(ValueError, match="unit must be bits or nats"):
        jensen_shannon(p, p, unit="dits")
    with pytest.raises(ValueError, match="one shape"):
        correlation(torch.rand(2, 3, 4), torch.rand(2, 4, 4))
    with pytest.raises(ValueError, match=r"labels \(B,\)"):
        distillation_loss(s, s, labels[:1])
    with pytest.raises(ValueError, match="distill must be all or real"):
        distillation_loss(s, s, labels, distill="fake")
    with pytest.raises(ValueError, match="over_time must be mean or sum"):
        contrastive_loss(s, s, labels, over_time="max")
    with pytest.raises(ValueError, match=r"\(B, T, 2\)"):
        frame_cross_entropy(s, labels)
