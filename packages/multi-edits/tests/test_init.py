"""What importing costs, and what is public."""

from __future__ import annotations

import subprocess
import sys

import pytest


def test_importing_does_not_import_torch():
    code = "import sys, multi_edits; assert 'torch' not in sys.modules, 'torch'"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_public_names_are_found():
    import multi_edits

    missing = {"MultiEditsModule"} if sys.modules.get("lightning") is None else set()
    for name in set(dir(multi_edits)) - missing:
        assert getattr(multi_edits, name) is not None
    with pytest.raises(AttributeError, match="no attribute nothing"):
        _ = multi_edits.nothing
