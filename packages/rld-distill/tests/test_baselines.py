"""The other logit distillers: reference values, their definitions, precision, and their errors."""

from __future__ import annotations

import itertools
import math
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rld_distill.baselines import (
    CTKDLoss,
    batch_gram_loss,
    class_gram_loss,
    dist_loss,
    dkd_loss,
    kd_loss,
    la_loss,
    lr_loss,
    mlkd_loss,
    nkd_loss,
    rc_loss,
    self_correction_loss,
    ttm_loss,
    wttm_loss,
)
from rld_distill.losses import standardize_logits
from torch.nn import functional as F

CASES = np.load(Path(__file__).parent / "data/baseline_losses.npz")  # 3 of the 4 input sets
DTYPES = (torch.float64, torch.float32)
WITHOUT_TARGET = [kd_loss, mlkd_loss, class_gram_loss, batch_gram_loss, dist_loss, ttm_loss]
WITHOUT_TARGET += [wttm_loss, CTKDLoss()]
WITH_TARGET = [dkd_loss, la_loss, rc_loss, lr_loss, nkd_loss]


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # tensors are small; waiting threads slow a busy machine down
    yield
    torch.set_num_threads(threads)


def whole_mlkd(student, teacher, target):
    return 0.1 * F.cross_entropy(student, target) + 0.9 * mlkd_loss(student, teacher)


def create_ctkd(strength):
    """Return the module in the epoch that has this lambda."""
    module = CTKDLoss()
    module.set_epoch({-1.0: 10, -0.5: 5}[strength])
    return module


# how the reference file names a loss, and ours for the numbers in that name
LOSSES = {
    r"kd_T(.+)": lambda tau: partial(kd_loss, temperature=tau),
    r"kd_stand_T(.+)": lambda tau: partial(kd_loss, temperature=tau, standardize=True),
    r"dkd_a(.+)_b(.+)_T(.+)": lambda alpha, beta, tau: partial(
        dkd_loss, alpha=alpha, beta=beta, temperature=tau
    ),
    r"dkd_stand_a(.+)_b(.+)_T(.+)": lambda alpha, beta, tau: partial(
        dkd_loss, alpha=alpha, beta=beta, temperature=tau, standardize=True
    ),
    r"la_T(.+)": lambda tau: partial(la_loss, temperature=tau),
    r"rc_T(.+)": lambda tau: lambda s, t, y: self_correction_loss(s, y, temperature=tau),
    r"lr_l1(.+)_l2(.+)_eta(.+)": lambda right, wrong, eta: partial(
        lr_loss, right_weight=right, wrong_weight=wrong, eta=eta
    ),
    r"mlkd_cc_T(.+)": lambda tau: partial(class_gram_loss, temperature=tau),
    r"mlkd_bc_T(.+)": lambda tau: partial(batch_gram_loss, temperature=tau),
    r"mlkd_noaug": lambda: whole_mlkd,
    r"nkd_temp(.+)_gamma(.+)": lambda tau, gamma: partial(nkd_loss, temperature=tau, gamma=gamma),
    r"dist_b(.+)_g(.+)": lambda beta, gamma: partial(dist_loss, beta=beta, gamma=gamma),
    r"ttm_g(.+)": lambda gamma: partial(ttm_loss, gamma=gamma),
    r"wttm_g(.+)": lambda gamma: partial(wttm_loss, gamma=gamma),
    r"ctkd_lambda(.+)": create_ctkd,
}


def create_loss(name):
    for pattern, create in LOSSES.items():
        found = re.fullmatch(pattern, name)
        if found:
            loss = create(*map(float, found.groups()))
            takes_target = re.match(r"dkd|la|rc|lr|nkd|mlkd_noaug", name)
            return loss, bool(takes_target)
    raise KeyError(name)


def reference_errors(cases, inputs, name, dtype, device):
    """Return how far value and gradients are off, as parts of what is allowed."""
    student, teacher = (
        torch.from_numpy(cases[f"{inputs}/{who}"]).to(device, dtype)
        for who in ("student", "teacher")
    )
    student.requires_grad_()
    target = torch.from_numpy(cases[f"{inputs}/target"]).to(device)
    loss, takes_target = create_loss(name)
    if isinstance(loss, CTKDLoss):
        torch.nn.init.constant_(loss.to(device, dtype).theta, 0.3)
        tau = cases[f"{inputs}/{name}/tau"].item()
        assert loss.temperature.item() == pytest.approx(tau, rel=1e-6)
    value = loss(student, teacher, *([target] if takes_target else []))
    value.backward()
    assert value.dtype == dtype
    assert value.shape == ()
    parts = ("loss_ce", "loss_kd", "loss_cc", "loss_bc") if name == "mlkd_noaug" else ("loss",)
    expected = {"value": sum(cases[f"{inputs}/{name}/{part}"].item() for part in parts)}
    got = {"value": value.item()}
    expected["gradient"], got["gradient"] = cases[f"{inputs}/{name}/grad"], student.grad
    if isinstance(loss, CTKDLoss):
        expected["theta"], got["theta"] = cases[f"{inputs}/{name}/theta_grad"], loss.theta.grad
    errors = {}
    for what, wanted in expected.items():
        largest = np.abs(wanted).max()
        allowed = 1e-9 * largest + 1e-10
        if dtype == torch.float32:
            allowed = (2e-3 if what == "theta" else 2e-5) * largest + 1e-8
        if name.startswith("lr") and inputs in ("right", "wrong") and what == "value":
            allowed = 1e-7 * largest  # stored in float32 where one of its parts is empty
        off = np.abs(torch.as_tensor(got[what], dtype=torch.float64).cpu().numpy() - wanted).max()
        errors[f"{inputs} {name} {what}"] = off / allowed
    return errors


def list_losses(cases):
    return sorted({tuple(key.split("/")[:2]) for key in cases.files if key.count("/") == 2})


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", sorted({name for _, name in list_losses(CASES)}))
def test_equals_the_reference(name, dtype, device):
    errors = {}
    for inputs in CASES["case_names"].tolist():
        errors |= reference_errors(CASES, inputs, name, dtype, device)
    assert max(errors.values()) < 1, errors


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_equals_the_reference_in_all_cases(dtype, device, shared_files):
    cases = np.load(shared_files / "parity/rld-distill/baseline_losses.npz")
    errors = {}
    for inputs, name in list_losses(cases):
        errors |= reference_errors(cases, inputs, name, dtype, device)
    assert len(errors) >= 4 * 33 * 2
    worst = max(errors, key=errors.get)
    assert errors[worst] < 1, (worst, errors[worst])


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


def with_name(loss, takes_target):
    return pytest.param(loss, takes_target, id=getattr(loss, "__name__", "CTKDLoss"))


EVERY_LOSS = [with_name(loss, False) for loss in WITHOUT_TARGET]
EVERY_LOSS += [with_name(loss, True) for loss in WITH_TARGET]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, *DTYPES], ids=str)
@pytest.mark.parametrize(("loss", "takes_target"), EVERY_LOSS)
def test_finite_up_to_1e4(loss, takes_target, dtype, device):
    rows = torch.tensor(list(itertools.product([-1e4, 0.0, 1e4], repeat=3)))
    student = rows.repeat_interleave(len(rows), 0).to(device, dtype).requires_grad_()
    teacher = rows.repeat(len(rows), 1).to(device, dtype)
    target = torch.zeros(len(student), dtype=torch.long, device=device)
    if isinstance(loss, CTKDLoss):
        loss = CTKDLoss().to(device)
    value = loss(student, teacher, *([target] if takes_target else []))
    value.backward()
    assert value.isfinite()
    assert student.grad.isfinite().all()
    assert value.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)


@pytest.mark.parametrize(("loss", "takes_target"), EVERY_LOSS)
def test_the_teacher_gets_no_gradient(loss, takes_target, device):
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 5, 7, generator=generator).to(device)
    student.requires_grad_()
    teacher.requires_grad_()
    if isinstance(loss, CTKDLoss):
        loss = CTKDLoss().to(device)
    loss(student, teacher, *([torch.arange(5, device=device)] if takes_target else [])).backward()
    assert student.grad.abs().sum() > 0
    assert teacher.grad is None


STUDENT, TEACHER, TARGET = torch.zeros(2, 4), torch.ones(2, 4), torch.tensor([0, 3])


@pytest.mark.parametrize(("loss", "takes_target"), EVERY_LOSS)
def test_wrong_inputs_are_named(loss, takes_target):
    target = [TARGET] if takes_target else []
    with pytest.raises(ValueError, match=r"equal shapes, got \(2, 4\) and \(2, 3\)"):
        loss(STUDENT, TEACHER[:, :3], *target)
    with pytest.raises(ValueError, match="student_logits must be floating point"):
        loss(STUDENT.long(), TEACHER, *target)
    with pytest.raises(ValueError, match="teacher_logits hold NaN or infinity, first in sample 1"):
        loss(STUDENT, TEACHER * torch.tensor([[1.0], [torch.nan]]), *target)
    if takes_target:
        with pytest.raises(ValueError, match="soft and one-hot labels"):
            loss(STUDENT, TEACHER, torch.eye(4)[:2])
        with pytest.raises(ValueError, match=r"target must lie in \[0, 4\), got 7 in sample 0"):
            loss(STUDENT, TEACHER, TARGET + 7)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: kd_loss(STUDENT, TEACHER, temperature=0.0), "temperature must be finite and >="),
        (lambda: mlkd_loss(STUDENT, TEACHER, temperatures=[4.0, 0.0]), "temperature must be"),
        (lambda: dkd_loss(STUDENT, TEACHER, TARGET, beta=-1.0), "beta must be finite and >= 0"),
        (lambda: rc_loss(STUDENT, TEACHER, TARGET, kd_weight=-1.0), "kd_weight must be finite"),
        (lambda: lr_loss(STUDENT, TEACHER, TARGET, eta=-1.0), "eta must be finite and >= 0"),
        (lambda: ttm_loss(STUDENT, TEACHER, gamma=-0.5), "gamma must be finite and >= 0"),
        (lambda: self_correction_loss(STUDENT, TARGET + 7), "target must lie in"),
        (lambda: CTKDLoss(start=0.0), "start must be > 0"),
        (lambda: CTKDLoss(span=-1.0), "span must be finite and >= 0, got -1.0"),
        (lambda: CTKDLoss(lambda_min=1.0), "lambda_min <= 0"),
        (lambda: CTKDLoss(epochs=0), "epochs >= 1"),
        (lambda: CTKDLoss().set_epoch(-1), "epoch must be >= 0, got -1"),
    ],
)
def test_wrong_options_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
