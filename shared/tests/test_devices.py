from __future__ import annotations

import pytest
import torch
from papercommons.cli import ComputeOptions
from papercommons.devices import autocast, compute_device


def test_the_device_of_a_command():
    assert compute_device(ComputeOptions(accelerator="cpu")) == torch.device("cpu")


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [("32-true", torch.float32), ("bf16-mixed", torch.bfloat16), ("16-mixed", torch.float16)],
)
def test_products_are_in_the_number_format(precision, dtype):
    with autocast("cpu", precision):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype
    assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
