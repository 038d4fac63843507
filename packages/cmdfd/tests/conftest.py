from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

pytest_plugins = ["papercommons.testing.fixtures"]

DATA = Path(__file__).parent / "data"


def pytest_configure() -> None:
    # not above: pytest wants to import the plugin itself, to rewrite its asserts
    from papercommons.testing.fixtures import require_installed

    require_installed("cmdfd")


@pytest.fixture(scope="session")
def parity():
    """Read one file of reference vectors as tensors by name, or as JSON."""

    def read(name):
        if (DATA / f"{name}.json").is_file() and not (DATA / f"{name}.npz").is_file():
            return json.loads((DATA / f"{name}.json").read_text())
        with np.load(DATA / f"{name}.npz") as arrays:
            return {key: torch.from_numpy(arrays[key]) for key in arrays}

    return read


@pytest.fixture(scope="session")
def names():
    """Read the names, shapes and rules of a network's reference weights."""
    return lambda name: json.loads((DATA / f"{name}_state_dict.json").read_text())


@pytest.fixture(scope="session")
def rule_weights():
    """Make the reference weights, which follow from rows of number, name, shape and rule."""

    def make(rows, phase):
        return {name: _by_rule(k, shape, rule, phase) for k, name, shape, rule in rows}

    return make


def _by_rule(number, shape, rule, phase):
    size = int(np.prod(shape))
    s = np.sin(0.7 * (number + 1) + phase + 0.9 * np.arange(size))
    fan = size // shape[0] if shape else 1
    gain = 0.25 + 0.05 * s if size == 1 else 1 + 0.1 * s
    values = {
        "matrix": s * 1.6 / np.sqrt(fan),
        "gain": gain,
        "bias": 0.05 * s,
        "mean": 0.05 * s,
        "var": 1 + 0.3 * np.abs(s),
        "unchanged": None,
    }[rule]
    if values is None:
        return None
    return torch.from_numpy(values.reshape(shape)).float()


TINY = {"dim": 32, "visual_width": 4, "audio_layers": (1, 1, 1, 1), "tcn_layers": 1, "heads": 4}


@pytest.fixture
def tiny():
    """A network of the same classes that takes milliseconds, in evaluation mode."""
    from cmdfd.model import CMDFDNet

    torch.manual_seed(0)
    return CMDFDNet(**TINY).eval()
