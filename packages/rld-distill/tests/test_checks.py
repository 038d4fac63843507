"""What RLD's loss refuses."""

from __future__ import annotations

import pytest
import torch
from rld_distill.losses import RLDLoss, mcd_loss, rld_loss, scd_loss

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
