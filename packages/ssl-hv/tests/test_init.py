from __future__ import annotations

import importlib
import subprocess
import sys

import pytest
import ssl_hv
from ssl_hv.__main__ import main


@pytest.mark.parametrize("name", ssl_hv.__all__)
def test_every_public_name_is_there(name):
    assert getattr(ssl_hv, name) is not None


def test_names_lead_to_their_modules():
    assert set(ssl_hv._HOME) | {"__version__"} == set(ssl_hv.__all__) == set(dir(ssl_hv))
    for name, module in ssl_hv._HOME.items():
        assert getattr(ssl_hv, name) is getattr(importlib.import_module(module), name)
    with pytest.raises(AttributeError, match="no attribute vicreg"):
        ssl_hv.vicreg  # noqa: B018


def test_each_method_has_its_module():
    from ssl_hv.lightning import PRETRAINING
    from ssl_hv.presets import METHODS, PAPER

    assert set(PRETRAINING) == set(METHODS) == set(PAPER)
    assert all(getattr(ssl_hv, module.__name__) is module for module in PRETRAINING.values())


def test_importing_needs_no_torch():
    code = "import ssl_hv, sys; dir(ssl_hv); assert not {'torch', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_lightning_cli_stays_reachable(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["ssl-hv", "fit", "--help"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 0
