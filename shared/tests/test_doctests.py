from __future__ import annotations

import doctest
import importlib

import pytest

METRICS = ("localization", "roc", "tables", "detection")


@pytest.mark.parametrize(
    "name",
    [
        "checks",
        "errors",
        "files",
        "report",
        "data.distortions",
        "data.scenes",
        *(f"metrics.{name}" for name in METRICS),
    ],
)
def test_examples_in_docstrings(name):
    result = doctest.testmod(importlib.import_module(f"papercommons.{name}"))
    assert result.attempted > 0
    assert result.failed == 0
