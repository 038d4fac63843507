"""Pytest fixtures and options for every package; named in a conftest's `pytest_plugins`."""

from __future__ import annotations

import importlib
import os
import sysconfig
from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--device`` (where `device` tests run) and ``--runslow``."""
    parser.addoption("--device", default="cpu", help="torch device the tests run on (cpu, cuda)")
    parser.addoption("--runslow", action="store_true", help="run tests marked slow too")


def pytest_configure(config: pytest.Config) -> None:
    """Load hypothesis' fixed profile, so that every run tries the same examples."""
    from hypothesis import settings

    settings.register_profile("ci", max_examples=25, deadline=None, derandomize=True, database=None)
    settings.load_profile("ci")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip slow tests unless asked for, and gpu tests where no CUDA device is under test."""
    for item in items:
        if "slow" in item.keywords and not config.getoption("--runslow"):
            item.add_marker(pytest.mark.skip(reason="slow; pass --runslow"))
        if "gpu" in item.keywords and not config.getoption("--device").startswith("cuda"):
            item.add_marker(pytest.mark.skip(reason="needs CUDA; pass --device cuda"))


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> object:
    """The torch device under test, from ``--device``."""
    import torch

    device = torch.device(request.config.getoption("--device"))
    if device.type == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return device


@pytest.fixture(scope="module")
def shared_files(request: pytest.FixtureRequest) -> Path:
    """The folder of larger fixtures (``parity/``, ``data/``); without it the test is skipped.

    It is ``PAPERCOMMONS_FIXTURES`` where set, else the folder ``shared`` beside the checkout.
    """
    given = os.environ.get("PAPERCOMMONS_FIXTURES")
    places = [Path(given)] if given else [up / "shared" for up in request.path.parents]
    for place in places:
        if (place / "parity").is_dir():
            return place
    pytest.skip("larger fixtures are absent (../shared, or PAPERCOMMONS_FIXTURES)")


def require_installed(module: str) -> None:
    """Fail unless `module` comes from site-packages: the wheel is under test, not the sources.

    ``PAPERCOMMONS_FROM_SOURCE=1`` lifts this for machines without a package registry.
    """
    if os.environ.get("PAPERCOMMONS_FROM_SOURCE") == "1":
        return
    where = Path(str(importlib.import_module(module).__file__)).resolve()
    site = Path(sysconfig.get_paths()["purelib"]).resolve()
    if not where.is_relative_to(site):
        raise pytest.UsageError(
            f"{module} comes from {where}, not from the installed wheel in {site}; "
            "run `nox -s tests`, or set PAPERCOMMONS_FROM_SOURCE=1 to test the sources"
        )
