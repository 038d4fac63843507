"""Every example runs, and does what it says."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

FOLDER = Path(__file__).parents[1]


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_own_loop():
    teacher, student = load("own_loop").main()
    assert teacher > 0.9
    assert student > 0.85


def test_distil_3d():
    accuracy, alone, taught = load("distil_3d").main()
    assert accuracy > 0.9
    assert taught < 0.6 * alone


def test_examples_are_short():
    lengths = {path.name: len(path.read_text().splitlines()) for path in FOLDER.glob("*.py")}
    assert {name for name, lines in lengths.items() if lines > 60} == set()
