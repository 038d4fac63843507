from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

pytest_plugins = ["papercommons.testing.fixtures"]


def pytest_configure() -> None:
    # not above: pytest wants to import the plugin itself, to rewrite its asserts
    from papercommons.testing.fixtures import require_installed

    require_installed("semforge")


@pytest.fixture(scope="session")
def parity():
    """Read one file of reference vectors as tensors by name."""

    def read(name: str) -> dict[str, torch.Tensor]:
        with np.load(Path(__file__).parent / "data" / f"{name}.npz") as arrays:
            return {key: torch.from_numpy(arrays[key]) for key in arrays}

    return read
