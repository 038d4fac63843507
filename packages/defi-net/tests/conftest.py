from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest_plugins = ["papercommons.testing.fixtures"]


def pytest_configure() -> None:
    # not above: pytest wants to import the plugin itself, to rewrite its asserts
    from papercommons.testing.fixtures import require_installed

    require_installed("defi_net")


@pytest.fixture
def parity(request: pytest.FixtureRequest) -> Callable[[str], dict[str, Any]]:
    """Reads reference values by the name of their file: all of them, or else those kept here."""

    def read(name: str) -> dict[str, Any]:
        import numpy as np
        import torch

        own = Path(__file__).parent / "data" / f"{name}.npz"
        try:
            shared: Path | None = request.getfixturevalue("shared_files")
        except pytest.skip.Exception:
            if not own.is_file():
                raise
            shared = None
        path = own if shared is None else shared / "parity/defi-net" / f"{name}.npz"
        with np.load(path) as file:
            arrays = {key: file[key] for key in file.files}
        return {k: torch.from_numpy(v) for k, v in arrays.items() if v.dtype.kind in "fiu"}

    return read


@pytest.fixture(scope="session")
def call() -> Callable[..., int]:
    """Run a command as the shell would; gives its exit code."""
    from defi_net import cli
    from papercommons.cli import run_command

    commands = vars(cli) | {"eval": cli.evaluate}

    def call(verb: str, *arguments: object) -> int:
        if verb in ("train", "eval", "predict") and "--accelerator" not in arguments:
            arguments = (*arguments, "--accelerator", "cpu")
        return run_command(commands[verb], prog=f"defi-net-{verb}", argv=list(map(str, arguments)))

    return call


@pytest.fixture(scope="session")
def write_photos() -> Callable[..., Path]:
    """Write made-up photographs: waves and grain, of no two the same."""

    def write(folder: Path, count: int, shape: tuple[int, int] = (72, 80)) -> Path:
        import numpy as np
        from PIL import Image

        folder.mkdir(parents=True, exist_ok=True)
        for number in range(count):
            rng = np.random.default_rng(number)
            place = np.stack(np.indices(shape), -1) @ rng.normal(0, 0.2, (2, 3))
            values = 128 + 70 * np.sin(place + rng.uniform(0, 6, 3)) + rng.normal(0, 8, (*shape, 3))
            Image.fromarray(values.clip(0, 255).astype(np.uint8)).save(folder / f"p{number}.png")
        return folder

    return write


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory, write_photos: Callable[..., Path]) -> Path:
    """Ten photographs; tests leave them as they are."""
    return write_photos(tmp_path_factory.mktemp("photos"), 10)


@pytest.fixture(scope="session")
def forged(
    photos: Path, call: Callable[..., int], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """What defi-net-synth makes of them; tests leave it as it is, too."""
    out = tmp_path_factory.mktemp("forged") / "set"
    options = ("--engines", "patch", "--masks", "box,blob", "--size", 64, "--per-image", 4)
    shares = ("--val-fraction", 0.2, "--test-fraction", 0.3, "--authentic", 0.4)
    assert call("synth", "--images", photos, "--out", out, *options, *shares) == 0
    return out


@pytest.fixture(scope="session")
def train_small(call: Callable[..., int], forged: Path) -> Callable[..., int]:
    """Run the command train on that set with a very small network, unless told otherwise."""

    def train(*arguments: object) -> int:
        defaults = {"--data": forged, "--epochs": 1, "--width": 4, "--size": 32}
        more = [x for k, v in defaults.items() if k not in arguments for x in (k, v)]
        return call("train", "--preset", "quick", *more, *arguments)

    return train


@pytest.fixture(scope="session")
def run(train_small: Callable[..., int], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the command train; tests leave it as it is, too."""
    out = tmp_path_factory.mktemp("run") / "out"
    assert train_small("--out", out, "--epochs", 2, "--schedule", "constant") == 0
    return out
