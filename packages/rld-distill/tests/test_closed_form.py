"""How RLD's loss is computed: chunks, strides, whose gradients, memory, the compiler."""

from __future__ import annotations

import pytest
import torch
from papercommons.testing.timing import peak_memory
from rld_distill import closed_form
from rld_distill.losses import RLDLoss, rld_loss

pytestmark = pytest.mark.usefixtures("one_thread")


def random_batch(size, device, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    student, teacher = 3 * torch.randn(2, *size, generator=generator)
    target = torch.randint(size[1], size[:1], generator=generator)
    return student.to(device, dtype), teacher.to(device, dtype), target.to(device)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_chunks_change_nothing(value_and_gradient, dtype, device, monkeypatch):
    batch = random_batch((11, 13), device, dtype)
    whole = value_and_gradient(rld_loss, *batch)
    for chunk in (1, 3 * 13, 11 * 13):
        monkeypatch.setattr(closed_form, "CPU_CHUNK", chunk)
        monkeypatch.setattr(closed_form, "GPU_CHUNK", chunk)
        torch.testing.assert_close(
            value_and_gradient(rld_loss, *batch), whole, rtol=1e-5, atol=1e-6
        )


def test_strided_inputs(value_and_gradient, device):
    student, teacher, target = random_batch((6, 8), device)
    strided = (student.T.contiguous().T, teacher.repeat(1, 2)[:, :8], target.repeat(2)[:6])
    torch.testing.assert_close(
        value_and_gradient(rld_loss, *strided),
        value_and_gradient(rld_loss, student, teacher, target),
    )


def test_inputs_stay_as_they_are(value_and_gradient, device):
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


def test_zero_weights(value_and_gradient, device):
    batch = random_batch((6, 8), device)
    value, gradient = value_and_gradient(rld_loss, *batch, alpha=0.0, beta=0.0)
    assert value == 0
    assert (gradient == 0).all()


def test_memory_is_two_gradients_and_a_chunk(value_and_gradient):
    student, teacher, target = random_batch((64, 20_000), torch.device("cpu"))
    whole = student.nbytes
    chunk = 4 * closed_form.CPU_CHUNK * 4  # buffers, bytes
    peak = peak_memory(lambda: value_and_gradient(rld_loss, student, teacher, target))
    assert peak < 2.1 * whole
    peak = peak_memory(lambda: rld_loss(student, teacher, target))
    assert peak < 1.2 * chunk < 0.5 * whole


@pytest.mark.slow
def test_compiled(value_and_gradient, device):
    batch = random_batch((16, 20), device)
    compiled = torch.compile(RLDLoss(scd_temperature=2.0, standardize=True))
    torch.testing.assert_close(
        value_and_gradient(compiled, *batch),
        value_and_gradient(RLDLoss(scd_temperature=2.0, standardize=True), *batch),
        rtol=1e-5,
        atol=1e-6,
    )


def test_traced_by_the_compiler_front_end(value_and_gradient, device):
    batch = random_batch((16, 20), device)
    compiled = torch.compile(rld_loss, backend="eager")
    torch.testing.assert_close(
        value_and_gradient(compiled, *batch), value_and_gradient(rld_loss, *batch)
    )
