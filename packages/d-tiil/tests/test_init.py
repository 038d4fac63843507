"""What importing costs, and what is public."""

from __future__ import annotations

import subprocess
import sys

import pytest


def test_importing_does_not_import_torch():
    code = (
        "import sys, d_tiil, d_tiil.settings, d_tiil.phrases, d_tiil.loading; "
        "assert 'torch' not in sys.modules, 'torch'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_public_names_are_found():
    import d_tiil

    pytest.importorskip("diffusers")
    for name in dir(d_tiil):
        assert getattr(d_tiil, name) is not None
    with pytest.raises(AttributeError, match="no attribute nothing"):
        _ = d_tiil.nothing
