"""The other logit distillers, each by its definition."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rld_distill.baselines import CTKDLoss, dkd_loss, kd_loss, nkd_loss, ttm_loss, wttm_loss
from rld_distill.corrections import la_loss, lr_loss, rc_loss, self_correction_loss
from rld_distill.losses import standardize_logits
from rld_distill.relations import batch_gram_loss, class_gram_loss, dist_loss, mlkd_loss
from torch.nn import functional as F

pytestmark = pytest.mark.usefixtures("one_thread")


@st.composite
def batches(draw, least_classes=2):
    size = (draw(st.integers(1, 6)), draw(st.integers(least_classes, 9)))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32 - 1)))
    scale = draw(st.sampled_from([0.3, 2.0, 8.0]))
    student, teacher = scale * torch.randn(2, *size, generator=generator, dtype=torch.float64)
    return student, teacher, torch.randint(size[1], size[:1], generator=generator)


def plain_kl(q, p):
    return (q * (q / p).log()).sum(-1)


CLOSE = {"rtol": 1e-8, "atol": 1e-10}


@given(batches(), st.sampled_from([0.5, 1.0, 4.0]))
def test_kd_and_dkd_hold_together(batch, tau):
    """KD is TCKD + (1 - p_y) NCKD (Zhao et al. 2022, eq. 6), per sample."""
    student, teacher, target = batch
    for i in range(len(student)):
        one = (student[i : i + 1], teacher[i : i + 1])
        kd = kd_loss(*one, temperature=tau)
        torch.testing.assert_close(
            kd, tau**2 * plain_kl(*((z[0] / tau).softmax(0) for z in one[::-1])), **CLOSE
        )
        label = target[i : i + 1]
        tckd, nckd = (
            dkd_loss(*one, label, alpha=alpha, beta=1 - alpha, temperature=tau) for alpha in (1, 0)
        )
        rest = 1 - (one[1] / tau).softmax(1)[0, label]
        torch.testing.assert_close(kd, tckd + rest[0] * nckd, rtol=1e-6, atol=1e-9)


def test_label_augmentation_swaps(device):
    student = torch.tensor([[0.5, -1.0, 2.0, 0.0], [0.5, -1.0, 2.0, 0.0]], device=device)
    teacher = torch.tensor([[3.0, 1.0, 3.0, 0.0], [3.0, 1.0, 3.0, 0.0]], device=device)
    target = torch.tensor([1, 2], device=device)
    swapped = torch.tensor([[1.0, 3.0, 3.0, 0.0], [3.0, 1.0, 3.0, 0.0]], device=device)
    assert la_loss(student, teacher, target) == kd_loss(student, swapped)


@given(batches())
def test_rc_is_kd_and_self_correction(batch):
    student, teacher, target = batch
    expected = 2 * kd_loss(student, teacher, temperature=3.0)
    expected += 0.5 * self_correction_loss(student, target, temperature=3.0)
    got = rc_loss(*batch, temperature=3.0, kd_weight=2.0, correction_weight=0.5)
    torch.testing.assert_close(got, expected, **CLOSE)


def test_self_correction_does_not_follow_its_own_target(device):
    student = torch.tensor([[1.0, 2.0, 0.5]], device=device, requires_grad=True)
    self_correction_loss(student, torch.tensor([0], device=device), temperature=1.0).backward()
    q = torch.tensor([3.0, 2.0, 0.5], device=device).softmax(0)
    torch.testing.assert_close(student.grad[0], student.detach()[0].softmax(0) - q)


@given(batches(), st.sampled_from([1.0, 2.0]))
def test_label_revision_by_its_definition(batch, tau):
    student, teacher, target = batch
    right = teacher.argmax(1) == target
    expected = torch.zeros((), dtype=torch.float64)
    if right.any():
        expected += F.cross_entropy(student[right], target[right])
        expected += 3 * F.mse_loss(student[right], teacher[right])
    if (~right).any():
        p, y = (teacher[~right] / tau).softmax(1), target[~right]
        share = 0.7 / (p.max(1).values - p[range(len(p)), y] + 1)
        label = share[:, None] * p + (1 - share)[:, None] * F.one_hot(y, p.shape[1])
        expected += 2 * F.mse_loss((student[~right] / tau).softmax(1), label)
    options = {"right_weight": 3.0, "wrong_weight": 2.0, "eta": 0.7, "temperature": tau}
    torch.testing.assert_close(lr_loss(*batch, **options), expected, **CLOSE)


@given(batches(), st.sampled_from([0.5, 1.0, 4.0]))
def test_gram_losses_by_their_definition(batch, tau):
    p, q = ((z / tau).softmax(1) for z in batch[:2])
    expected = (p.T @ p - q.T @ q).square().sum() / p.shape[1]
    torch.testing.assert_close(class_gram_loss(*batch[:2], temperature=tau), expected, **CLOSE)
    expected = (p @ p.T - q @ q.T).square().sum() / len(p)
    torch.testing.assert_close(batch_gram_loss(*batch[:2], temperature=tau), expected, **CLOSE)


@pytest.mark.parametrize("loss", [class_gram_loss, batch_gram_loss])
def test_gram_losses_are_not_lowered_by_autocast(loss, device):
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 8, 30, generator=generator).to(device)
    with torch.autocast(device.type, torch.bfloat16):
        inside = loss(student, teacher)
    assert inside == loss(student, teacher)


def test_mlkd_scales_by_the_selected_fractions(device):
    logits = [[4.0, 0.0, 0.0], [3.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 1.0, 0.0]]
    teacher = torch.tensor(logits, device=device, dtype=torch.float64)
    student = torch.linspace(-2, 3, 12, device=device, dtype=torch.float64).sin().view(4, 3)
    for tau in (2.0, 4.0):
        one = (student, teacher)
        expected = 0.5 * kd_loss(*one, temperature=tau)  # two samples of four
        expected += 2 / 3 * class_gram_loss(*one, temperature=tau)  # two classes of three
        expected += 0.5 * batch_gram_loss(*one, temperature=tau)
        torch.testing.assert_close(mlkd_loss(*one, temperatures=[tau]), expected, **CLOSE)
    both = mlkd_loss(*one, temperatures=[2.0]) + mlkd_loss(*one, temperatures=[4.0])
    torch.testing.assert_close(mlkd_loss(*one, temperatures=[2.0, 4.0]), both, **CLOSE)


@pytest.mark.parametrize(
    ("loss", "takes_target"), [(kd_loss, False), (dkd_loss, True), (mlkd_loss, False)]
)
def test_standardize_is_a_plug_in(loss, takes_target, device):
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 5, 7, generator=generator, dtype=torch.float64).to(device)
    target = [torch.arange(5, device=device)] if takes_target else []
    expected = loss(standardize_logits(student), standardize_logits(teacher), *target)
    got = loss(5 * student + 3, 2 * teacher - 1, *target, standardize=True)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-7)


@given(batches(least_classes=3))
def test_nkd_by_its_definition(batch):
    student, teacher, target = batch
    expected = 0.0
    for z_s, z_t, y in zip(student, teacher, target.tolist(), strict=True):
        others = [c for c in range(len(z_s)) if c != y]
        expected -= z_t.softmax(0)[y] * z_s.log_softmax(0)[y]
        q, s = (z_t[others] / 2).softmax(0), (z_s[others] / 2).log_softmax(0)
        expected -= 1.5 * 4 * (q * s).sum()
    got = nkd_loss(student, teacher, target, temperature=2.0, gamma=1.5)
    torch.testing.assert_close(got, expected / len(student), **CLOSE)


def test_dist_is_zero_for_a_linear_relation(device):
    generator = torch.Generator().manual_seed(0)
    teacher = torch.randn(6, 5, generator=generator, dtype=torch.float64).to(device)
    student = (0.5 * teacher.softmax(1) + 0.1).log()
    assert dist_loss(student, teacher).abs() < 1e-6
    p, q = (z.softmax(1).cpu().numpy() for z in (teacher.flip(0), teacher))
    rows = np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(p, q, strict=True)])
    columns = np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(p.T, q.T, strict=True)])
    got = dist_loss(teacher.flip(0), teacher, beta=2.0, gamma=3.0).item()
    assert got == pytest.approx(2 * (1 - rows) + 3 * (1 - columns), rel=1e-6)


@given(batches(), st.sampled_from([0.1, 0.5, 1.0, 2.0]))
def test_ttm_by_its_definition(batch, gamma):
    student, teacher, _ = batch
    powered = teacher.softmax(1) ** gamma
    total = powered.sum(1)
    divergence = plain_kl(powered / total[:, None], student.softmax(1))
    torch.testing.assert_close(ttm_loss(student, teacher, gamma=gamma), divergence.mean(), **CLOSE)
    weighted = (total * divergence).mean()
    torch.testing.assert_close(wttm_loss(student, teacher, gamma=gamma), weighted, **CLOSE)
    torch.testing.assert_close(
        ttm_loss(student, teacher, gamma=gamma, weighted=True), weighted, **CLOSE
    )


def test_ctkd_learns_to_make_it_hard(device):
    generator = torch.Generator().manual_seed(0)
    student, teacher = 3 * torch.randn(2, 8, 6, generator=generator).to(device)
    module = CTKDLoss(start=1.0, span=20.0, epochs=10).to(device)
    assert list(module.state_dict()) == ["theta"]
    assert module.theta == 1
    strengths = []
    for epoch in (0, 1, 5, 10, 11, 300):
        module.set_epoch(epoch)
        strengths.append(module.lambda_)
    assert strengths == pytest.approx([0, -(1 - math.cos(math.pi / 10)) / 2, -0.5, -1, -1, -1])

    value = module(student, teacher)
    tau = 1 + 20 / (1 + math.exp(-1))
    assert module.temperature.item() == pytest.approx(tau)
    torch.testing.assert_close(value, kd_loss(student, teacher, temperature=tau))
    (gradient,) = torch.autograd.grad(value, module.theta)
    with torch.no_grad():
        module.theta -= 10 * gradient  # a step of descent
    assert module(student, teacher) > value
    module.set_epoch(0)
    module(student, teacher).backward()
    assert module.theta.grad == 0
