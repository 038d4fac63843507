from __future__ import annotations

import doctest
import importlib
import subprocess
import sys

import defi_net
import pytest


@pytest.mark.parametrize("name", defi_net.__all__)
def test_every_public_name_is_there(name):
    assert getattr(defi_net, name) is not None


def test_names_lead_to_their_modules():
    assert set(defi_net._HOME) | {"__version__"} == set(defi_net.__all__) == set(dir(defi_net))
    for name, module in defi_net._HOME.items():
        assert getattr(defi_net, name) is getattr(importlib.import_module(module), name)
    with pytest.raises(AttributeError, match="no attribute defi"):
        defi_net.defi  # noqa: B018


def test_importing_needs_no_torch():
    code = "import defi_net, sys; dir(defi_net); assert not {'torch', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", ["backbone", "edges", "losses", "model"])
def test_examples_in_docstrings_are_true(name):
    result = doctest.testmod(importlib.import_module(f"defi_net.{name}"))
    assert result.attempted > 0
    assert result.failed == 0
