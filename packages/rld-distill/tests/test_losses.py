"""RLD's loss: reference values, the identities of its equations, precision, and its errors."""

from __future__ import annotations

import doctest
import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from papercommons.testing.timing import peak_memory
from rld_distill import closed_form, losses
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
HALVES = (torch.float16, torch.bfloat16)


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # tensors are small; waiting threads slow a busy machine down
    yield
    torch.set_num_threads(threads)


def value_and_gradient(loss, student, *arguments, **options):
    student = student.detach().requires_grad_()
    value = loss(student, *arguments, **options)
    return value.detach(), torch.autograd.grad(value, student)[0]


def reference_errors(cases, name, dtype, device):
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
def test_equals_the_reference(name, dtype, device):
    errors = reference_errors(CASES, name, dtype, device)
    assert max(errors.values()) < 1, errors


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_equals_the_reference_in_all_cases(dtype, device, shared_files):
    cases = np.load(shared_files / "parity/rld-distill/rld_loss.npz")
    names = cases["case_names"].tolist()
    assert len(names) == 19
    errors = {}
    for name in names:
        errors |= reference_errors(cases, name, dtype, device)
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
def test_value_and_gradient_are_those_of_the_plain_equations(batch, tau, tau_scd, mask):
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
def test_gradients_are_the_closed_forms(batch, tau):
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
def test_is_dkd_where_the_teacher_is_right(batch, tau):
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
def test_batch_shift_and_order(batch, data):
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
def test_no_class_or_one_class_below_the_true_one_teaches_no_correlation(batch, tau):
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
def test_zero_if_and_only_if_the_student_agrees(batch, tau):
    student, teacher, target = batch
    teacher.scatter_(1, target[:, None], teacher.amax(1, keepdim=True) + 0.5)
    same, gradient = value_and_gradient(rld_loss, teacher, teacher, target, temperature=tau)
    assert 0 <= same < 1e-12
    assert gradient.abs().max() < 1e-12
    assert rld_loss(student, teacher, target, temperature=tau) > 1e-9


def test_terms_add_up_and_each_has_its_own_temperature(device):
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


def extreme_batch(dtype, device):
    """Return every pair of rows of -1e4, 0 and 1e4 over three classes, the true class being 0."""
    rows = torch.tensor(list(itertools.product([-1e4, 0.0, 1e4], repeat=3)))
    student = rows.repeat_interleave(len(rows), 0).to(device, dtype)
    teacher = rows.repeat(len(rows), 1).to(device, dtype)
    return student, teacher, torch.zeros(len(student), dtype=torch.long, device=device)


@pytest.mark.parametrize("dtype", [*HALVES, *DTYPES], ids=str)
@pytest.mark.parametrize("standardize", [False, True])
@pytest.mark.parametrize("tau", [0.5, 4.0])
def test_finite_up_to_1e4(dtype, standardize, tau, device):
    batch = extreme_batch(dtype, device)
    options = {"temperature": tau, "standardize": standardize}
    value, gradient = value_and_gradient(rld_loss, *batch, **options)
    assert torch.isfinite(value)
    assert torch.isfinite(gradient).all()
    exact = rld_loss(*(part.double() for part in batch[:2]), batch[2], **options)
    torch.testing.assert_close(value.double(), exact, rtol=2e-5, atol=1e-6)
    assert value.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert gradient.dtype == dtype


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_autocast_changes_nothing(dtype, device):
    batch = extreme_batch(torch.float32, device)
    outside = value_and_gradient(rld_loss, *batch)
    with torch.autocast(device.type, dtype):
        inside = value_and_gradient(rld_loss, *batch)
        halves = value_and_gradient(rld_loss, *(z.to(dtype) for z in batch[:2]), batch[2])
    torch.testing.assert_close(inside, outside, rtol=0, atol=0)
    assert halves[0].dtype == torch.float32
    assert all(torch.isfinite(part).all() for part in halves)


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_half_inputs_cost_only_the_rounding_of_the_gradient(dtype, device):
    name = "half_representable"
    student, teacher = (torch.from_numpy(CASES[f"{name}/{w}"]) for w in ("student", "teacher"))
    batch = [z.to(device, dtype) for z in (student, teacher)]
    target = torch.from_numpy(CASES[f"{name}/target"]).to(device)
    value, gradient = value_and_gradient(rld_loss, *batch, target)
    exact, exact_gradient = value_and_gradient(rld_loss, *(z.float() for z in batch), target)
    torch.testing.assert_close(value, exact, rtol=1e-6, atol=0)
    unit = torch.finfo(dtype).eps
    torch.testing.assert_close(gradient.float(), exact_gradient, rtol=1.5 * unit, atol=1e-7)
    if dtype == torch.float16:
        reference = CASES[f"{name}/loss"].item()
        assert value.item() == pytest.approx(reference, rel=2e-5)


def test_a_loss_scaler_saves_small_float16_gradients(device):
    student = torch.tensor([[0.0, 0.0, -18.0]], device=device)
    teacher = torch.tensor([[9.0, 0.0, -40.0]], device=device)
    target = torch.tensor([0], device=device)
    _, exact = value_and_gradient(mcd_loss, student, teacher, target, temperature=1.0)
    assert 0 < exact[0, 2] < 5e-8  # rounds to 0 in float16
    half = student.half().requires_grad_()
    (2.0**16 * mcd_loss(half, teacher, target, temperature=1.0)).backward()
    torch.testing.assert_close(half.grad.float(), 2.0**16 * exact, rtol=2e-3, atol=0)


def test_float32_keeps_the_digits_of_small_values(device):
    target = torch.tensor([0], device=device)
    sure = torch.tensor([[20.0, 0.0, 0.0]], device=device)
    surer = torch.tensor([[40.0, 0.0, 1.0]], device=device)
    uniform = torch.linspace(-0.1, 0.1, 20_000, device=device)[None]
    for student, teacher, digits in (
        (surer, sure, 1e-11),
        (sure, surer, 1e-11),
        (uniform, 30 * uniform, 1e-6),
    ):
        value, gradient = value_and_gradient(scd_loss, student, teacher, target, temperature=1.0)
        exact, exact_gradient = value_and_gradient(
            scd_loss, student.double(), teacher.double(), target, temperature=1.0
        )
        assert value.item() == pytest.approx(exact.item(), rel=1e-4, abs=digits)
        torch.testing.assert_close(gradient.double(), exact_gradient, rtol=2e-5, atol=0)


def test_float32_is_never_negative(device):
    generator = torch.Generator().manual_seed(0)
    teacher = torch.randn(500, 20, generator=generator).to(device)
    loss = rld_loss(teacher, teacher, teacher.argmax(1), reduction="none")
    assert (loss >= 0).all()
    assert (loss < 1e-4).all()


def test_mixed_dtypes_give_the_wider(device):
    student, teacher = torch.randn(2, 3, 4, generator=torch.manual_seed(0)).to(device)
    target = torch.arange(3, device=device)
    cached = rld_loss(student, teacher.half(), target)
    assert cached.dtype == torch.float32
    torch.testing.assert_close(cached, rld_loss(student, teacher.half().float(), target))
    value, gradient = value_and_gradient(rld_loss, student, teacher.double(), target)
    assert value.dtype == torch.float64
    assert gradient.dtype == torch.float32
    value, gradient = value_and_gradient(rld_loss, student.half(), teacher.double(), target)
    assert value.dtype == torch.float64
    assert gradient.dtype == torch.float16


@pytest.mark.parametrize("name", ["saturated_wrong", "saturated_right"])
def test_plain_formula_overflows_where_ours_does_not(name):
    student, teacher = (torch.from_numpy(CASES[f"{name}/{w}"]) for w in ("student", "teacher"))
    target = torch.from_numpy(CASES[f"{name}/target"])
    plain = plain_rld(student, teacher, target, 1.0, 8.0, 4.0, 1.0, "ge").mean()
    assert not torch.isfinite(plain)
    ours = rld_loss(student, teacher, target, scd_temperature=1.0)
    assert ours.item() == pytest.approx(CASES[f"{name}/loss"].item(), rel=2e-5)


def random_batch(size, device, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    student, teacher = 3 * torch.randn(2, *size, generator=generator)
    target = torch.randint(size[1], size[:1], generator=generator)
    return student.to(device, dtype), teacher.to(device, dtype), target.to(device)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_chunks_change_nothing(dtype, device, monkeypatch):
    batch = random_batch((11, 13), device, dtype)
    whole = value_and_gradient(rld_loss, *batch)
    for chunk in (1, 3 * 13, 11 * 13):
        monkeypatch.setattr(closed_form, "CPU_CHUNK", chunk)
        monkeypatch.setattr(closed_form, "GPU_CHUNK", chunk)
        torch.testing.assert_close(
            value_and_gradient(rld_loss, *batch), whole, rtol=1e-5, atol=1e-6
        )


def test_strided_inputs(device):
    student, teacher, target = random_batch((6, 8), device)
    strided = (student.T.contiguous().T, teacher.repeat(1, 2)[:, :8], target.repeat(2)[:6])
    torch.testing.assert_close(
        value_and_gradient(rld_loss, *strided),
        value_and_gradient(rld_loss, student, teacher, target),
    )


def test_inputs_stay_as_they_are(device):
    batch = random_batch((6, 8), device)
    copies = [part.clone() for part in batch]
    value_and_gradient(rld_loss, *batch)
    assert all(torch.equal(*pair) for pair in zip(batch, copies, strict=True))


def test_the_teacher_gets_no_gradient(device):
    student, teacher, target = random_batch((6, 8), device)
    student.requires_grad_()
    teacher.requires_grad_()
    for standardize in (False, True):
        rld_loss(student, teacher, target, standardize=standardize).backward()
    assert student.grad.abs().sum() > 0
    assert teacher.grad is None
    assert not rld_loss(student.detach(), teacher, target).requires_grad


def test_without_gradients(device):
    student, teacher, target = random_batch((6, 8), device)
    expected = rld_loss(student, teacher, target)
    assert not expected.requires_grad
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            loss = rld_loss(student.clone().requires_grad_(), teacher, target)
        assert loss == expected
        assert not loss.requires_grad


def test_backward_twice_scales_alike_but_not_to_second_order(device):
    student, teacher, target = random_batch((6, 8), device)
    student.requires_grad_()
    loss = rld_loss(student, teacher, target)
    (first,) = torch.autograd.grad(loss, student, retain_graph=True)
    (second,) = torch.autograd.grad(3 * loss, student, retain_graph=True)
    torch.testing.assert_close(second, 3 * first)
    (slope,) = torch.autograd.grad(loss.square(), student, create_graph=True)
    with pytest.raises(RuntimeError, match="marked with @once_differentiable"):
        slope.sum().backward()


def test_zero_weights(device):
    batch = random_batch((6, 8), device)
    value, gradient = value_and_gradient(rld_loss, *batch, alpha=0.0, beta=0.0)
    assert value == 0
    assert (gradient == 0).all()


def test_memory_is_two_gradients_and_a_chunk():
    student, teacher, target = random_batch((64, 20_000), torch.device("cpu"))
    whole = student.nbytes
    chunk = 4 * closed_form.CPU_CHUNK * 4  # buffers, bytes
    peak = peak_memory(lambda: value_and_gradient(rld_loss, student, teacher, target))
    assert peak < 2.1 * whole
    peak = peak_memory(lambda: rld_loss(student, teacher, target))
    assert peak < 1.2 * chunk < 0.5 * whole


@pytest.mark.slow
def test_compiled(device):
    batch = random_batch((16, 20), device)
    compiled = torch.compile(RLDLoss(scd_temperature=2.0, standardize=True))
    torch.testing.assert_close(
        value_and_gradient(compiled, *batch),
        value_and_gradient(RLDLoss(scd_temperature=2.0, standardize=True), *batch),
        rtol=1e-5,
        atol=1e-6,
    )


def test_traced_by_the_compiler_front_end(device):
    batch = random_batch((16, 20), device)
    compiled = torch.compile(rld_loss, backend="eager")
    torch.testing.assert_close(
        value_and_gradient(compiled, *batch), value_and_gradient(rld_loss, *batch)
    )


STUDENT, TEACHER, TARGET = torch.zeros(2, 4), torch.ones(2, 4), torch.tensor([0, 3])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((STUDENT[0], TEACHER, TARGET), r"student_logits must have shape \(B, C\).*got \(4,\)"),
        ((STUDENT, TEACHER[None], TARGET), r"teacher_logits must have shape.*got \(1, 2, 4\)"),
        ((STUDENT[:, :1], TEACHER, TARGET), r"C >= 2, got \(2, 1\)"),
        ((STUDENT[:0], TEACHER[:0], TARGET[:0]), r"B >= 1 and C >= 2, got \(0, 4\)"),
        ((STUDENT, TEACHER[:, :3], TARGET), r"equal shapes, got \(2, 4\) and \(2, 3\)"),
        ((STUDENT[:1], TEACHER, TARGET), r"equal shapes, got \(1, 4\) and \(2, 4\)"),
        ((STUDENT.long(), TEACHER, TARGET), "student_logits must be floating.*torch.int64"),
        ((STUDENT, TEACHER.long(), TARGET), "teacher_logits must be floating.*torch.int64"),
        ((STUDENT, TEACHER, torch.eye(4)[:2]), "soft and one-hot labels.*mixup.*one true class"),
        ((STUDENT, TEACHER, torch.eye(4).long()[:2]), "soft and one-hot labels.*mixup"),
        ((STUDENT, TEACHER, TARGET.float()), "target must hold one class index.*torch.float32"),
        ((STUDENT, TEACHER, TARGET.int()), r"int64 of shape \(2,\), got torch.int32"),
        ((STUDENT, TEACHER, TARGET[:1]), r"int64 of shape \(2,\), got torch.int64.*\(1,\)"),
        ((STUDENT, TEACHER, TARGET + 1), r"target must lie in \[0, 4\), got 4 in sample 1"),
        ((STUDENT, TEACHER, TARGET - 4), r"target must lie in \[0, 4\), got -4 in sample 0"),
        ((STUDENT, TEACHER, TARGET - 1), r"target must lie in \[0, 4\), got -1 in sample 0"),
        ((STUDENT, TEACHER / 0, TARGET), "teacher_logits hold NaN or infinity, first in sample 0"),
    ],
)
@pytest.mark.parametrize("loss", [rld_loss, scd_loss, mcd_loss, RLDLoss()])
def test_wrong_inputs_are_named(loss, arguments, message):
    with pytest.raises(ValueError, match=message):
        loss(*arguments)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, "temperature must be finite and >= 1e-06, got 0.0"),
        ({"temperature": -1.0}, "temperature must be finite"),
        ({"temperature": float("inf")}, "temperature must be finite"),
        ({"scd_temperature": 0.0}, "scd_temperature must be finite and >= 1e-06, got 0.0"),
        ({"alpha": -1.0}, "alpha must be finite and >= 0, got -1.0"),
        ({"beta": float("nan")}, "beta must be finite and >= 0, got nan"),
        ({"mask": "le"}, "mask must be 'ge' or 'gt', got 'le'"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        rld_loss(STUDENT, TEACHER, TARGET, **options)
    with pytest.raises(ValueError, match=message):
        RLDLoss(**options)


def test_wrong_reduction_is_named():
    with pytest.raises(ValueError, match="reduction must be 'mean', 'sum' or 'none', got 'max'"):
        rld_loss(STUDENT, TEACHER, TARGET, reduction="max")


def test_broken_teacher_is_found_but_a_broken_student_gives_nan():
    teacher = torch.randn(5, 4)
    teacher[3, 1] = torch.nan
    with pytest.raises(ValueError, match="first in sample 3"):
        rld_loss(torch.zeros(5, 4), teacher, torch.zeros(5, dtype=torch.long))
    assert rld_loss(STUDENT + torch.nan, TEACHER, TARGET).isnan()


def test_examples_in_the_documentation():
    assert doctest.testmod(losses).failed == 0
