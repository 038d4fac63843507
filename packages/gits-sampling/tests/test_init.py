from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import gits_sampling
import pytest
from gits_sampling.__main__ import main

NEEDS_DIFFUSERS = ("GITSIPNDMScheduler", "to_diffusers")


@pytest.mark.filterwarnings("ignore:__array_")
@pytest.mark.parametrize("name", gits_sampling.__all__)
def test_every_public_name_is_there(name):
    if name in NEEDS_DIFFUSERS:
        pytest.importorskip("diffusers")
    assert getattr(gits_sampling, name) is not None


def test_names_lead_to_their_modules():
    home = gits_sampling._HOME
    assert set(home) | {"__version__"} == set(gits_sampling.__all__) == set(dir(gits_sampling))
    for name, module in home.items():
        if name not in NEEDS_DIFFUSERS:
            found = importlib.import_module(f"gits_sampling.{module}")
            assert getattr(gits_sampling, name) is getattr(found, name)
    with pytest.raises(AttributeError, match="no attribute gits"):
        gits_sampling.gits  # noqa: B018


def test_no_public_name_is_that_of_a_module():
    modules = {path.stem for path in Path(gits_sampling.__file__).parent.glob("*.py")}
    assert not modules & set(gits_sampling.__all__)


def test_importing_needs_no_torch():
    code = (
        "import gits_sampling as g, sys; dir(g); assert not {'torch', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_lightning_cli_stays_reachable(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["gits-sampling", "fit", "--help"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 0
