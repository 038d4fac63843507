"""RLD's loss: reference values and the identities of its equations."""

from __future__ import annotations

import doctest
import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rld_distill import losses
from rld_distill.baselines import dkd_loss
from rld_distill.losses import (
    RLDLoss,
    RLDTerms,
    mcd_loss,
    rld_loss,
    scd_loss,
    standardize_logits,
)

CASES = np.load(Path(__file__).parent / "data/rld_loss.npz")  # 16 of the 19 reference cases
DTYPES = (torch.float64, torch.float32)
pytestmark = pytest.mark.usefixtures("one_thread")


def reference_errors(value_and_gradient, cases, name, dtype, device):
    """Return how far each value and gradient of a case is off, as parts of what is allowed."""
    student, teacher = (
        torch.from_numpy(cases[f"{name}/{who}"]).to(device, dtype) for who in ("student", "teacher")
    )
    target = torch.from_numpy(cases[f"{name}/target"]).to(device)
    alpha, beta, tau, tau_a, standardize = cases[f"{name}/hyper"].tolist()
    shared = {"standardize": bool(standardize)}
    calls = {
        "": (rld_loss, {"alpha": alpha, "beta": beta, "temperature": tau}),
        "scd": (scd_loss, {"temperature": tau_a}),
        "mcd": (mcd_loss, {"temperature": tau}),
    }
    calls[""][1]["scd_temperature"] = tau_a
    errors = {}
    for part, (loss, options) in calls.items():
        value, gradient = value_and_gradient(loss, student, teacher, target, **options, **shared)
        assert value.dtype == gradient.dtype == dtype
        expected = cases[f"{name}/{part or 'loss'}"].item()
        expected_gradient = cases[f"{name}/{part}_grad" if part else f"{name}/grad"]
        # the reference divides its rounding errors by 1e-7 where constant logits are standardised
        noise = 1e-9 if name == "constant_logits_stand" else 1e-10
        largest = np.abs(expected_gradient).max()
        if dtype == torch.float64:
            allowed, allowed_gradient = 1e-9 * abs(expected) + 1e-10, 1e-9 * largest + noise
        else:
            allowed, allowed_gradient = 2e-5 * abs(expected) + 1e-7, 1e-5 * largest + 1e-9
        off = np.abs(gradient.cpu().numpy() - expected_gradient).max()
        errors[f"{name} {part}"] = abs(value.item() - expected) / allowed
        errors[f"{name} {part} gradient"] = off / allowed_gradient
        if part == "mcd" and not standardize:
            assert (gradient[torch.from_numpy(cases[f"{name}/mask"])] == 0).all()
    return errors


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", CASES["case_names"].tolist())
def test_equals_the_reference(value_and_gradient, name, dtype, device):
    errors = reference_errors(value_and_gradient, CASES, name, dtype, device)
    assert max(errors.values()) < 1, errors


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_equals_the_reference_in_all_cases(value_and_gradient, dtype, device, shared_files):
    cases = np.load(shared_files / "parity/rld-distill/rld_loss.npz")
    names = cases["case_names"].tolist()
    assert len(names) == 19
    errors = {}
    for name in names:
        errors |= reference_errors(value_and_gradient, cases, name, dtype, device)
    worst = max(errors, key=errors.get)
    assert errors[worst] < 1, (worst, errors[worst])


def plain_rld(student, teacher, target, alpha, beta, tau, tau_scd, mask):
    """Return the paper's equations, sample by sample, on the classes that are left."""
    values = []
    for z_s, z_t, y in zip(student, teacher, target.tolist(), strict=True):
        q, p = (z_t / tau_scd).softmax(0).max(), (z_s / tau_scd).softmax(0)[y]
        scd = q * (q / p).log() + (1 - q) * ((1 - q) / (1 - p)).log()
        kept = z_t < z_t[y] if mask == "ge" else z_t <= z_t[y]
        q, p = (z_t[kept] / tau).softmax(0), (z_s[kept] / tau).softmax(0)
        mcd = (q * (q / p).log()).sum()
        values.append(alpha * tau_scd**2 * scd + beta * tau**2 * mcd)
    return torch.stack(values)


@st.composite
def batches(draw, least_classes=2, whole=False):
    """Draw student and teacher logits, float64, and true classes; whole logits have many ties."""
    size = (draw(st.integers(1, 6)), draw(st.integers(least_classes, 9)))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32 - 1)))
    scale = draw(st.sampled_from([0.3, 2.0, 8.0]))
    student, teacher = scale * torch.randn(2, *size, generator=generator, dtype=torch.float64)
    target = torch.randint(size[1], size[:1], generator=generator)
    if whole or draw(st.booleans()):
        teacher = teacher.round()
    return student, teacher, target


TAUS = st.sampled_from([0.5, 1.0, 4.0])


@given(batches(), TAUS, TAUS, st.sampled_from(["ge", "gt"]))
def test_value_and_gradient_are_those_of_the_plain_equations(
    value_and_gradient, batch, tau, tau_scd, mask
):
    student, teacher, target = batch
    options = {"temperature": tau, "scd_temperature": tau_scd, "mask": mask}
    value, gradient = value_and_gradient(
        rld_loss, student, teacher, target, alpha=2.0, beta=3.0, **options
    )
    plain, plain_gradient = value_and_gradient(
        lambda *logits: plain_rld(*logits, target, 2.0, 3.0, tau, tau_scd, mask).mean(),
        student,
        teacher,
    )
    torch.testing.assert_close(value, plain, rtol=1e-6, atol=1e-10)  # plain loses digits in 1 - p
    torch.testing.assert_close(gradient, plain_gradient, rtol=1e-6, atol=1e-10)


@given(batches(), TAUS)
def test_gradients_are_the_closed_forms(value_and_gradient, batch, tau):
    student, teacher, target = batch
    rows = torch.arange(len(student))
    _, gradient = value_and_gradient(
        scd_loss, student, teacher, target, temperature=tau, reduction="sum"
    )
    softmax = (student / tau).softmax(1)
    p, q = softmax[rows, target], (teacher / tau).softmax(1).amax(1)
    rest = softmax.clone()
    rest[rows, target] = 0
    expected = -(tau * (p - q) / rest.sum(1))[:, None] * rest
    expected[rows, target] = tau * (p - q)
    torch.testing.assert_close(gradient, expected, rtol=1e-6, atol=1e-10)
    torch.testing.assert_close(gradient.sum(1), torch.zeros_like(p), rtol=0, atol=1e-12)

    _, gradient = value_and_gradient(
        mcd_loss, student, teacher, target, temperature=tau, reduction="sum"
    )
    masked = teacher >= teacher.gather(1, target[:, None])
    p, q = (
        (z / tau).masked_fill(masked, -torch.inf).softmax(1).nan_to_num()
        for z in (student, teacher)
    )
    torch.testing.assert_close(gradient, tau * (p - q), rtol=1e-9, atol=1e-12)
    assert (gradient[masked] == 0).all()


@given(batches(), TAUS)
def test_is_dkd_where_the_teacher_is_right(value_and_gradient, batch, tau):
    student, teacher, target = batch
    teacher.scatter_(1, target[:, None], teacher.amax(1, keepdim=True) + 0.5)
    arguments = (student, teacher, target)
    options = {"alpha": 1.5, "beta": 6.0, "temperature": tau}
    ours, gradient = value_and_gradient(rld_loss, *arguments, **options)
    dkd, dkd_gradient = value_and_gradient(dkd_loss, *arguments, **options)
    torch.testing.assert_close(ours, dkd, rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(gradient, dkd_gradient, rtol=1e-9, atol=1e-10)


def test_is_not_dkd_where_the_teacher_is_wrong(device):
    student, teacher = torch.randn(2, 5, 7, generator=torch.manual_seed(0)).to(device)
    target = teacher.topk(2).indices[:, 1]
    assert abs(rld_loss(student, teacher, target) - dkd_loss(student, teacher, target)) > 0.1


CLOSE = {"rtol": 1e-9, "atol": 1e-10}


@given(batches(), st.data())
def test_batch_shift_and_order(value_and_gradient, batch, data):
    student, teacher, target = batch
    size, classes = student.shape
    each = rld_loss(*batch, reduction="none")
    assert each.shape == (size,)
    assert (each >= 0).all()
    value, gradient = value_and_gradient(rld_loss, *batch)
    torch.testing.assert_close(value, each.mean(), **CLOSE)
    torch.testing.assert_close(rld_loss(*batch, reduction="sum"), each.sum(), **CLOSE)
    alone = [rld_loss(*(part[i : i + 1] for part in batch)) for i in range(size)]
    torch.testing.assert_close(each, torch.stack(alone), **CLOSE)

    shift = torch.arange(size)[:, None] * 16.0 - 40  # whole, so that no tie is lost to rounding
    shifted = value_and_gradient(rld_loss, student + shift, teacher.round() - shift, target)
    rounded = value_and_gradient(rld_loss, student, teacher.round(), target)
    torch.testing.assert_close(shifted, rounded, **CLOSE)

    order = torch.tensor(data.draw(st.permutations(range(classes))))
    moved, moved_gradient = value_and_gradient(
        rld_loss, student[:, order], teacher[:, order], order.argsort()[target]
    )
    torch.testing.assert_close(moved, value, **CLOSE)
    torch.testing.assert_close(moved_gradient, gradient[:, order], **CLOSE)


@given(batches(), TAUS)
def test_no_class_or_one_class_below_the_true_one_teaches_no_correlation(
    value_and_gradient, batch, tau
):
    student, teacher, target = batch
    true = target[:, None]
    lowest = teacher.scatter(1, true, teacher.amin(1, keepdim=True))
    value, gradient = value_and_gradient(mcd_loss, student, lowest, target, temperature=tau)
    assert value == 0
    assert (gradient == 0).all()
    second = lowest.scatter(1, (true + 1) % teacher.shape[1], lowest.amin(1, keepdim=True) - 1)
    value, gradient = value_and_gradient(mcd_loss, student, second, target, temperature=tau)
    assert value == 0
    assert (gradient == 0).all()


def test_two_classes_have_no_correlation(device):
    student, teacher = torch.randn(2, 8, 2, generator=torch.manual_seed(0)).to(device)
    target = torch.arange(8, device=device) % 2
    assert mcd_loss(student, teacher, target) == 0
    scd = scd_loss(student, teacher, target)
    assert scd > 0
    assert rld_loss(student, teacher, target) == scd


def test_ties_with_the_true_class_are_masked_by_ge_only(device):
    teacher = torch.tensor([[2.0, 2.0, 1.0, 0.0]], device=device)
    student = torch.tensor([[1.0, -1.0, 0.5, 2.0]], device=device)
    target = torch.tensor([0], device=device)
    for mask, kept in (("ge", [2, 3]), ("gt", [0, 1, 2, 3])):
        q, p = (teacher[0, kept] / 2).softmax(0), (student[0, kept] / 2).softmax(0)
        expected = 4 * (q * (q / p).log()).sum()
        loss = mcd_loss(student, teacher, target, temperature=2.0, mask=mask)
        torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("ties", [1, 2, 3, 50])
def test_confidence_does_not_depend_on_which_tied_class_is_top(ties, device):
    teacher = torch.full((1, 50), -1.0, dtype=torch.float64, device=device)
    teacher[0, :ties] = 1.0
    student = torch.linspace(-1, 1, 50, dtype=torch.float64, device=device)[None]
    q, p = (teacher / 4).softmax(1)[0, 0], (student / 4).softmax(1)[0, 7]
    expected = 16 * (q * (q / p).log() + (1 - q) * ((1 - q) / (1 - p)).log())
    loss = scd_loss(student, teacher, torch.tensor([7], device=device))
    torch.testing.assert_close(loss, expected)


@given(batches(least_classes=3), TAUS)
def test_zero_if_and_only_if_the_student_agrees(value_and_gradient, batch, tau):
    student, teacher, target = batch
    teacher.scatter_(1, target[:, None], teacher.amax(1, keepdim=True) + 0.5)
    same, gradient = value_and_gradient(rld_loss, teacher, teacher, target, temperature=tau)
    assert 0 <= same < 1e-12
    assert gradient.abs().max() < 1e-12
    assert rld_loss(student, teacher, target, temperature=tau) > 1e-9


def test_terms_add_up_and_each_has_its_own_temperature(value_and_gradient, device):
    generator = torch.manual_seed(0)
    student, teacher = torch.randn(2, 6, 5, generator=generator, dtype=torch.float64).to(device)
    target = torch.arange(6, device=device) % 5
    for standardize, mask in itertools.product((False, True), ("ge", "gt")):
        module = RLDLoss(
            alpha=2.0,
            beta=3.0,
            temperature=4.0,
            scd_temperature=1.5,
            standardize=standardize,
            mask=mask,
        )

        def from_terms(*batch, module=module):
            terms = module.terms(*batch)
            assert isinstance(terms, RLDTerms)
            assert not terms.scd.requires_grad
            assert not terms.mcd.requires_grad
            return terms.loss

        whole = value_and_gradient(module, student, teacher, target)
        torch.testing.assert_close(
            value_and_gradient(from_terms, student, teacher, target), whole, **CLOSE
        )
        shared = {"standardize": standardize}
        scd = scd_loss(student, teacher, target, temperature=1.5, **shared)
        mcd = mcd_loss(student, teacher, target, temperature=4.0, mask=mask, **shared)
        torch.testing.assert_close(whole[0], 2 * scd + 3 * mcd, **CLOSE)
        terms = module.terms(student, teacher, target)
        torch.testing.assert_close(terms[1:], (scd, mcd), **CLOSE)


def test_module_shows_its_settings():
    text = repr(RLDLoss(beta=2.0, temperature=1.0))
    assert text == (
        "RLDLoss(alpha=1.0, beta=2.0, temperature=1.0, scd_temperature=1.0, "
        "standardize=False, mask='ge')"
    )


def test_defaults_are_those_of_the_official_command(device):
    student, teacher = torch.randn(2, 4, 6, generator=torch.manual_seed(1)).to(device)
    target = torch.arange(4, device=device)
    expected = rld_loss(
        student, teacher, target, alpha=1.0, beta=8.0, temperature=4.0, scd_temperature=4.0
    )
    assert rld_loss(student, teacher, target) == expected
    assert RLDLoss()(student, teacher, target) == expected


def test_standardized_logits_have_mean_zero_and_unbiased_std_one(device):
    logits = 7 + 3 * torch.randn(5, 9, generator=torch.manual_seed(0)).to(device)
    z = standardize_logits(logits)
    torch.testing.assert_close(z.mean(1), torch.zeros(5, device=device), atol=1e-6, rtol=0)
    torch.testing.assert_close(z.std(1), torch.ones(5, device=device))
    options = {"standardize": True, "reduction": "none"}
    target = torch.arange(5, device=device)
    loss = rld_loss(logits, logits.flip(0), target, **options)
    moved = rld_loss(5 * logits - 3, 2 * logits.flip(0) + 1, target, **options)
    torch.testing.assert_close(moved, loss, rtol=1e-4, atol=1e-4)
    constant = torch.full((2, 10), 3.3, device=device)
    assert (standardize_logits(constant) == 0).all()


@pytest.mark.parametrize("standardize", [False, True])
@pytest.mark.parametrize("mask", ["ge", "gt"])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_gradcheck(standardize, mask, reduction, device):
    generator = torch.manual_seed(3)
    student, teacher = 2 * torch.randn(2, 4, 5, generator=generator, dtype=torch.float64).to(device)
    target = torch.tensor([0, 1, 2, 3], device=device)
    assert torch.autograd.gradcheck(
        lambda z: rld_loss(
            z,
            teacher,
            target,
            scd_temperature=1.5,
            standardize=standardize,
            mask=mask,
            reduction=reduction,
        ),
        student.requires_grad_(),
    )


@pytest.mark.parametrize("name", ["saturated_wrong", "saturated_right"])
def test_plain_formula_overflows_where_ours_does_not(name):
    student, teacher = (torch.from_numpy(CASES[f"{name}/{w}"]) for w in ("student", "teacher"))
    target = torch.from_numpy(CASES[f"{name}/target"])
    plain = plain_rld(student, teacher, target, 1.0, 8.0, 4.0, 1.0, "ge").mean()
    assert not torch.isfinite(plain)
    ours = rld_loss(student, teacher, target, scd_temperature=1.0)
    assert ours.item() == pytest.approx(CASES[f"{name}/loss"].item(), rel=2e-5)


def test_examples_in_the_documentation():
    assert doctest.testmod(losses).failed == 0
