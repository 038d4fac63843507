"""Measurements of a benchmark: printed as they are made, and kept with ``--results FILE``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--results``, the JSON file that gets the rows."""
    parser.addoption("--results", type=Path, help="write the measured rows to this JSON file")


@pytest.fixture(scope="session")
def record(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A function that prints and keeps one row: ``record(name=value, ...)``, plain types."""
    rows: list[dict[str, Any]] = []

    def keep(**row: Any) -> None:
        rows.append(row)
        shown = (f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items())
        print("\n" + ", ".join(shown))

    yield keep
    path = request.config.getoption("--results")
    if path is not None and rows:
        save_rows(path, rows, request.config.getoption("--device"))


def save_rows(path: Path, rows: list[dict[str, Any]], device: str) -> None:
    """Write rows with the hardware they were measured on.

    Args:
        path: the JSON file.
        rows: plain types.
        device: name of the torch device.
    """
    import os
    import platform

    import torch

    from papercommons.files import write_json
    from papercommons.report import describe_device

    name = describe_device(torch.device(device))
    hardware = f"{name}, {os.cpu_count()} cores, torch {torch.__version__}, "
    hardware += f"Python {platform.python_version()}"
    write_json(path, {"rows": rows, "hardware": hardware})
