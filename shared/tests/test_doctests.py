from __future__ import annotations

import doctest
import importlib

import pytest


@pytest.mark.parametrize("name", ["errors", "report"])
def test_examples_in_docstrings(name):
    result = doctest.testmod(importlib.import_module(f"papercommons.{name}"))
    assert result.attempted > 0
    assert result.failed == 0
