"""RLD's loss in number formats: finite, exact where it can be, never lowered by autocast."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from rld_distill.losses import mcd_loss, rld_loss, scd_loss

CASES = np.load(Path(__file__).parent / "data/rld_loss.npz")  # 16 of the 19 reference cases
DTYPES = (torch.float64, torch.float32)
HALVES = (torch.float16, torch.bfloat16)
pytestmark = pytest.mark.usefixtures("one_thread")


def extreme_batch(dtype, device):
    """Return every pair of rows of -1e4, 0 and 1e4 over three classes, the true class being 0."""
    rows = torch.tensor(list(itertools.product([-1e4, 0.0, 1e4], repeat=3)))
    student = rows.repeat_interleave(len(rows), 0).to(device, dtype)
    teacher = rows.repeat(len(rows), 1).to(device, dtype)
    return student, teacher, torch.zeros(len(student), dtype=torch.long, device=device)


@pytest.mark.parametrize("dtype", [*HALVES, *DTYPES], ids=str)
@pytest.mark.parametrize("standardize", [False, True])
@pytest.mark.parametrize("tau", [0.5, 4.0])
def test_finite_up_to_1e4(value_and_gradient, dtype, standardize, tau, device):
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
def test_autocast_changes_nothing(value_and_gradient, dtype, device):
    batch = extreme_batch(torch.float32, device)
    outside = value_and_gradient(rld_loss, *batch)
    with torch.autocast(device.type, dtype):
        inside = value_and_gradient(rld_loss, *batch)
        halves = value_and_gradient(rld_loss, *(z.to(dtype) for z in batch[:2]), batch[2])
    torch.testing.assert_close(inside, outside, rtol=0, atol=0)
    assert halves[0].dtype == torch.float32
    assert all(torch.isfinite(part).all() for part in halves)


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_half_inputs_cost_only_the_rounding_of_the_gradient(value_and_gradient, dtype, device):
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


def test_a_loss_scaler_saves_small_float16_gradients(value_and_gradient, device):
    student = torch.tensor([[0.0, 0.0, -18.0]], device=device)
    teacher = torch.tensor([[9.0, 0.0, -40.0]], device=device)
    target = torch.tensor([0], device=device)
    _, exact = value_and_gradient(mcd_loss, student, teacher, target, temperature=1.0)
    assert 0 < exact[0, 2] < 5e-8  # rounds to 0 in float16
    half = student.half().requires_grad_()
    (2.0**16 * mcd_loss(half, teacher, target, temperature=1.0)).backward()
    torch.testing.assert_close(half.grad.float(), 2.0**16 * exact, rtol=2e-3, atol=0)


def test_float32_keeps_the_digits_of_small_values(value_and_gradient, device):
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


def test_mixed_dtypes_give_the_wider(value_and_gradient, device):
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
