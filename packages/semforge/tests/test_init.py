from __future__ import annotations

import importlib
import subprocess
import sys

import pytest
import semforge
from semforge.__main__ import main


def test_names_lead_to_their_modules():
    assert set(semforge._HOME) | {"__version__"} == set(semforge.__all__) == set(dir(semforge))
    for name, module in semforge._HOME.items():
        assert getattr(semforge, name) is getattr(importlib.import_module(module), name)
    with pytest.raises(AttributeError, match="no attribute marginals"):
        semforge.marginals  # noqa: B018


def test_importing_needs_no_torch():
    code = "import semforge, sys; dir(semforge); assert not {'torch', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_lightning_cli_stays_reachable(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["semforge", "fit", "--help"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 0
