from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

pytest_plugins = ["papercommons.testing.fixtures"]


def pytest_configure() -> None:
    # not above: pytest wants to import the plugin itself, to rewrite its asserts
    from papercommons.testing.fixtures import require_installed

    require_installed("rld_distill")


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Compute in one thread: where tensors are small, waiting threads slow a busy machine down."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def value_and_gradient() -> Callable[..., tuple[Tensor, Tensor]]:
    """Call a loss, and return its value and the student's gradient."""

    def call(
        loss: Callable[..., Tensor], student: Tensor, *arguments: Tensor, **options: Any
    ) -> tuple[Tensor, Tensor]:
        student = student.detach().requires_grad_()
        value = loss(student, *arguments, **options)
        return value.detach(), torch.autograd.grad(value, student)[0]

    return call


@pytest.fixture(scope="session")
def fill_weights() -> Callable[[nn.Module, int], None]:
    """The parity files' rule that makes a network's weights from a seed, in place.

    The i-th state-dict name in alphabetical order is filled from NumPy's ``RandomState(seed + i)``,
    so no weights need shipping (see README.md of parity/rld-distill).
    """

    def fill(network: nn.Module, seed: int) -> None:
        state = network.state_dict()
        for i, name in enumerate(sorted(state)):
            shape = tuple(state[name].shape)
            n = np.random.RandomState(seed + i).standard_normal(shape)
            if name.endswith("num_batches_tracked"):
                n = np.zeros(())
            elif name.endswith("running_mean"):
                n = 0.1 * n
            elif name.endswith("running_var"):
                n = np.exp(0.1 * n)
            elif len(shape) >= 2:
                n = n * np.sqrt(2 / np.prod(shape[1:]))
            elif name.endswith(".weight"):
                n = 0.5 + 0.05 * n
            else:
                n = 0.1 * n
            state[name].copy_(torch.as_tensor(n))

    return fill
