from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest_plugins = ["papercommons.testing.fixtures"]


def pytest_configure() -> None:
    # not above: pytest wants to import the plugin itself, to rewrite its asserts
    from papercommons.testing.fixtures import require_installed

    require_installed("nlran")


@pytest.fixture(scope="session")
def write_scan() -> Callable[..., None]:
    """Write a scan of random values as .npy, always the same for the same seed."""

    def write(
        path: Path, seed: int = 0, shape: tuple[int, ...] = (12, 20, 22), dtype: type = np.int16
    ) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        low, high = (0, 256) if dtype is np.uint8 else (-1000, 400)
        np.save(path, np.random.default_rng(seed).integers(low, high, shape).astype(dtype))

    return write


@pytest.fixture(scope="session")
def write_slices() -> Callable[..., None]:
    """Write a scan as a folder of random pictures, one for each number."""

    def write(folder: Path, numbers: Iterable[int] = range(4), seed: int = 0) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for number in numbers:
            grey = np.random.default_rng((seed, number)).integers(0, 256, (20, 20), np.uint8)
            Image.fromarray(grey).save(folder / f"{number:04d}.png")

    return write


@pytest.fixture
def ct(tmp_path: Path, write_scan: Callable[..., None]) -> Path:
    """Two patients of each class, each with two scans."""
    seed = 0
    for name in ("normal", "ncp", "CP"):
        for patient in ("1", "2"):
            for scan in ("a.npy", "b.npy"):
                write_scan(tmp_path / name / f"{name}{patient}" / scan, seed)
                seed += 1
    return tmp_path


@pytest.fixture(scope="session")
def call() -> Callable[..., int]:
    """Run a command as the shell would; gives its exit code."""
    from nlran import cli
    from papercommons.cli import run_command

    commands = vars(cli) | {"eval": cli.evaluate}

    def call(verb: str, *arguments: object) -> int:
        return run_command(commands[verb], prog=f"nlran-{verb}", argv=list(map(str, arguments)))

    return call


@pytest.fixture(scope="session")
def train_small(call: Callable[..., int]) -> Callable[..., int]:
    """Run the command train with scans made small, on the CPU."""
    size = ("--size", "32,32,32", "--batch-size", 6, "--accelerator", "cpu")
    return lambda *arguments: call("train", *size, *arguments)


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Phantoms shared by all tests, which leave them as they are."""
    from nlran.phantoms import write_phantoms

    folder = tmp_path_factory.mktemp("phantoms")
    write_phantoms(folder, 18, size=24)
    return folder


@pytest.fixture(scope="session")
def run(
    phantoms: Path, train_small: Callable[..., int], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A run of two epochs on the phantoms; tests leave it as it is, too."""
    out = tmp_path_factory.mktemp("run") / "nlran"
    split = ("--val-fraction", 0.2, "--test-fraction", 0.2)
    assert train_small("--data", phantoms / "ct", "--out", out, "--epochs", 2, *split) == 0
    return out
