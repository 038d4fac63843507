from __future__ import annotations

import importlib
import subprocess
import sys

import cmdfd
import pytest


def test_names_lead_to_their_modules():
    assert set(cmdfd._HOME) | {"__version__"} == set(cmdfd.__all__) == set(dir(cmdfd))
    for name, module in cmdfd._HOME.items():
        assert getattr(cmdfd, name) is getattr(importlib.import_module(module), name)
    with pytest.raises(AttributeError, match="no attribute sync"):
        cmdfd.sync  # noqa: B018


def test_importing_needs_no_torch():
    code = "import cmdfd, sys; dir(cmdfd); assert not {'torch', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
