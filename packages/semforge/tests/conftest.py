from __future__ import annotations

import csv
from collections.abc import Callable
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


@pytest.fixture(scope="session")
def call() -> Callable[..., int]:
    """Run a command as the shell would; gives its exit code."""
    from papercommons.cli import run_command
    from semforge import cli

    commands = vars(cli) | {"eval": cli.evaluate}

    def call(verb: str, *arguments: object) -> int:
        if verb in ("train", "eval", "predict") and "--accelerator" not in arguments:
            arguments = (*arguments, "--accelerator", "cpu")
        return run_command(commands[verb], prog=f"semforge-{verb}", argv=list(map(str, arguments)))

    return call


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A list of 128 pictures in which colours tell the labels; tests leave it as it is.

    Test pictures come in videos of four. Method "pale" is hard to see; half the labels of regions
    are unknown in training.
    """
    from PIL import Image

    folder = tmp_path_factory.mktemp("drawn")
    chance = np.random.default_rng(0)
    rows = []
    for split, count in (("train", 64), ("val", 32), ("test", 32)):
        for k in range(count):
            kind = (k // 4) % 4  # two of four are real
            pixels = chance.integers(60, 140, (40, 40, 3))
            label, method = "000000000000", "real"
            if kind == 1:
                pixels[8:24, 8:24, 0] += 100
                label, method = "110000100000", "ageing"
            if kind == 3:
                pixels[20:36, 10:30, 2] += 100 if k % 3 else 30
                label, method = "101000001100", "smiling" if k % 3 else "pale"
            if split == "train" and k % 2:
                label = f"{label[:6]}222222"
            path = f"{split}{k:03d}.png"
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / path)
            row = {"path": path, "label": label, "split": split, "method": method}
            rows.append(row | {"video": f"{split}-{k // 4}", "identity": f"{split}-{k // 8}"})
    with (folder / "list.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return folder


@pytest.fixture(scope="session")
def train_small(call: Callable[..., int], drawn: Path) -> Callable[..., int]:
    """Run semforge-train on that list with a small network, unless told otherwise."""

    def train(*arguments: object) -> int:
        defaults = {"--data": drawn, "--epochs": 1, "--size": 32, "--batch-size": 8}
        defaults |= {"--lr": 0.003, "--aug-prob": 0.1, "--num-workers": 0}
        more = [x for k, v in defaults.items() if k not in arguments for x in (k, v)]
        return call("train", "--preset", "quick", *more, *arguments)

    return train


@pytest.fixture(scope="session")
def run(train_small: Callable[..., int], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of semforge-train with Auto-lambda; tests leave it as it is, too."""
    out = tmp_path_factory.mktemp("run") / "out"
    options = ("--weighting", "autol", "--lambda-lr", 0.01, "--cut-by", "lbp")
    assert train_small("--out", out, "--epochs", 3, *options) == 0
    return out
