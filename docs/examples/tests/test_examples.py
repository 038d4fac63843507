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


def test_gits_in_diffusers():
    spaced, found = load("gits_in_diffusers").main()
    assert found < 0.8 * spaced


def test_plain_loop_forensics():
    flat, graph = load("plain_loop_forensics").main()
    assert flat < 0.7
    assert graph > 0.9


def test_supervised_for_vlm():
    scratch, pretrained = load("supervised_for_vlm").main()
    assert pretrained > 0.9
    assert pretrained > scratch + 0.05


def test_localise_edits():
    things, found = load("localise_edits").main()
    assert found > 0.92
    assert found > things + 0.05


def test_examples_are_short():
    paths = [*FOLDER.glob("*.py"), *FOLDER.glob("downstream_project/**/*.py")]
    lengths = {path.name: len(path.read_text().splitlines()) for path in paths}
    assert {name for name, lines in lengths.items() if lines > 60} == set()
