"""What holds for every method's loss: reference values, precision, and errors."""

from __future__ import annotations

import itertools
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from rld_distill.baselines import CTKDLoss, dkd_loss, kd_loss, nkd_loss, ttm_loss, wttm_loss
from rld_distill.corrections import la_loss, lr_loss, rc_loss, self_correction_loss
from rld_distill.relations import batch_gram_loss, class_gram_loss, dist_loss, mlkd_loss
from torch.nn import functional as F

pytestmark = pytest.mark.usefixtures("one_thread")

CASES = np.load(Path(__file__).parent / "data/baseline_losses.npz")  # 3 of the 4 input sets
DTYPES = (torch.float64, torch.float32)
WITHOUT_TARGET = [kd_loss, mlkd_loss, class_gram_loss, batch_gram_loss, dist_loss, ttm_loss]
WITHOUT_TARGET += [wttm_loss, CTKDLoss()]
WITH_TARGET = [dkd_loss, la_loss, rc_loss, lr_loss, nkd_loss]


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
