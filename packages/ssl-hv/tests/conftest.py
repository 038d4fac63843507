from __future__ import annotations

import csv
import hashlib
import io
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from papercommons.testing import drawn_words

pytest_plugins = ["papercommons.testing.fixtures"]

WRITERS, SAMPLES = 14, 5


def pytest_configure() -> None:
    # not above: pytest wants to import the plugin itself, to rewrite its asserts
    from papercommons.testing.fixtures import require_installed

    require_installed("ssl_hv")


@pytest.fixture(scope="session")
def write_words() -> Callable[..., Path]:
    """Write words of made-up writers as ROOT/WRITER/*.png."""

    def write(
        root: Path, writers: Any = range(WRITERS), samples: int = SAMPLES, **how: Any
    ) -> Path:
        return drawn_words.write_words(root, writers, samples, **how)

    return write


@pytest.fixture(scope="session")
def words(tmp_path_factory: pytest.TempPathFactory, write_words: Callable[..., Path]) -> Path:
    """Words shared by all tests, which leave them as they are."""
    return write_words(tmp_path_factory.mktemp("words"))


@pytest.fixture(scope="session")
def write_pack() -> Callable[..., Path]:
    """Write a packed copy of CEDAR "AND" with made-up writers; the last ones are unseen."""

    def write(root: Path, writers: int = 8, unseen: int = 2, samples: int = 3) -> Path:
        root.mkdir(parents=True, exist_ok=True)
        rows: list[Mapping[str, Any]] = []
        with tarfile.open(root / "images.tar", "w", format=tarfile.USTAR_FORMAT) as archive:
            for writer in range(1, writers + 1):
                for sample in range(1, samples + 1):
                    file = io.BytesIO()
                    drawn_words.draw_word(writer, sample).convert("RGB").save(file, "PNG")
                    content, name = file.getvalue(), f"{writer:04d}a_num{sample}.png"
                    member = tarfile.TarInfo(name)
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))
                    rows.append(
                        {"file_name": name, "writer": name[:4], "page": "a", "sample": sample}
                        | {"status": "clean", "bytes": len(content), "has_15features": 0}
                        | {"seen": "train" if sample % 2 else "val", "shuffled": "train"}
                        | {"unseen": "val" if writer > writers - unseen else "train"}
                        | {"sha256": hashlib.sha256(content).hexdigest()}
                    )
        with (root / "index.csv").open("w", newline="") as table:
            writer_ = csv.DictWriter(table, list(rows[0]))
            writer_.writeheader()
            writer_.writerows(rows)
        return root

    return write


@pytest.fixture(scope="session")
def call() -> Callable[..., int]:
    """Run a command as the shell would; gives its exit code."""
    from papercommons.cli import run_command
    from ssl_hv import cli

    commands = vars(cli) | {"eval": cli.evaluate}

    def call(verb: str, *arguments: object) -> int:
        if verb not in ("pairs",) and "--accelerator" not in arguments:
            arguments = (*arguments, "--accelerator", "cpu")
        return run_command(commands[verb], prog=f"ssl-hv-{verb}", argv=list(map(str, arguments)))

    return call


@pytest.fixture(scope="session")
def pretrained(
    words: Path, call: Callable[..., int], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """An encoder pre-trained for one epoch; tests leave it as it is."""
    out = tmp_path_factory.mktemp("pretrained") / "vicreg"
    size = ("--encoder", "resnet-layout", "--width", 4, "--batch-size", 16, "--epochs", 1)
    assert call("pretrain", "--data", words, "--out", out, *size) == 0
    return out


@pytest.fixture(scope="session")
def train_small(call: Callable[..., int], words: Path) -> Callable[..., int]:
    """Run the command train on the shared words, for two epochs unless told otherwise."""

    def train(*arguments: object) -> int:
        defaults = {"--data": words, "--epochs": 2, "--batch-size": 32}
        more = [x for k, v in defaults.items() if k not in arguments for x in (k, v)]
        return call("train", *more, *arguments)

    return train


@pytest.fixture(scope="session")
def run(
    pretrained: Path, train_small: Callable[..., int], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A verifier trained on pairs from that encoder; tests leave it as it is, too."""
    out = tmp_path_factory.mktemp("run") / "pairs"
    assert train_small("--encoder", pretrained, "--objective", "pairs", "--out", out) == 0
    return out
