"""What the pages say can be typed: imports exist, commands exist and know the options given."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
import subprocess
import sysconfig
import tomllib
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("packages/*/README.md")],
)
PROJECTS = [
    tomllib.loads(path.read_text(encoding="utf-8"))["project"]
    for path in (ROOT / "shared" / "pyproject.toml", *ROOT.glob("packages/*/pyproject.toml"))
]
MODULES = {project["name"].replace("-", "_") for project in PROJECTS}
COMMANDS = {command for project in PROJECTS for command in project.get("scripts", {})}


def blocks(page: Path, language: str) -> list[str]:
    """Return the code blocks of a page, without those that are taken from a file."""
    found = re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)
    return [block for block in found if "--8<--" not in block]


@cache
def help_of(command: str) -> str:
    path = Path(sysconfig.get_paths()["scripts"]) / command
    return subprocess.run([path, "--help"], capture_output=True, text=True, check=True).stdout


every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


@every_page
def test_python_is_valid_and_its_imports_exist(page):
    for block in blocks(page, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] in MODULES:
                module = importlib.import_module(str(node.module))
                assert [a.name for a in node.names if not hasattr(module, a.name)] == []


@every_page
def test_commands_exist_and_know_their_options(page):
    for block in blocks(page, "bash"):
        for line in block.replace("\\\n", " ").replace("&&", "\n").splitlines():
            words = shlex.split(line, comments=True)
            if not words or words[0] not in COMMANDS:
                unknown = [w for w in words[:1] if w.startswith(tuple(p["name"] for p in PROJECTS))]
                assert unknown == []
                continue
            given = {w.partition("=")[0] for w in words if w.startswith("--")}
            known = help_of(words[0])
            lost = {w for w in given if not re.search(rf"{w.split('.')[0]}\b", known)}
            assert lost == set(), line


def test_the_quick_start_runs():
    for block in blocks(ROOT / "docs" / "quickstart.md", "python"):
        exec(compile(block, "quickstart.md", "exec"), {})
