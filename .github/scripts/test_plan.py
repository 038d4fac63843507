"""The CI plan: which change runs which sessions."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import plan
import pytest

PACKAGES = ["papercommons", "nlran", "rld-distill"]


def session(name: str, package: str, python: str | None = None, accelerator: str | None = None):
    spec = {"package": package} | ({"accelerator": accelerator} if accelerator else {})
    text = f"{name}-{python}({package}, {accelerator})" if accelerator else f"{name}({package})"
    return {"session": text, "name": name, "python": python, "call_spec": spec}


SESSIONS = [
    *(
        session("tests", package, python, accelerator)
        for package in PACKAGES
        for python in ("3.11", "3.13")
        for accelerator in ("cpu", "gpu")
    ),
    *(session("isolation", package) for package in PACKAGES),
    *(session("minimum", package, "3.11") for package in PACKAGES),
]


@pytest.mark.parametrize(
    "path",
    [
        "shared/src/papercommons/cli.py",
        "noxfile.py",
        "pyproject.toml",
        "constraints.txt",
        ".github/workflows/ci.yml",
        ".github/scripts/plan.py",
        ".ci/run",
        "packages/a-package-that-is-gone/README.md",
        "packages/README.md",
    ],
)
def test_all_packages(path):
    assert plan.affected([path], PACKAGES) == plan.Affected(set(PACKAGES), True, True)


def test_one_package():
    found = plan.affected(["packages/nlran/src/nlran/model.py"], PACKAGES)
    assert found == plan.Affected({"nlran"}, docs=True, examples=True)


def test_two_packages_and_docs():
    paths = ["packages/nlran/README.md", "docs/cli.md", "packages/rld-distill/tests/test_cli.py"]
    assert plan.affected(paths, PACKAGES).packages == {"nlran", "rld-distill"}


@pytest.mark.parametrize("path", ["docs/index.md", "mkdocs.yml", "README.md"])
def test_docs_only(path):
    assert plan.affected([path], PACKAGES) == plan.Affected(set(), docs=True, examples=False)


def test_examples():
    assert plan.affected(["docs/examples/own_loop.py"], PACKAGES).examples


@pytest.mark.parametrize("path", ["LICENSE", "CITATION.cff", "CONTRIBUTING.md", ".gitignore"])
def test_nothing_but_lint(path):
    assert plan.affected([path], PACKAGES) == plan.Affected()


def test_blank_lines_are_no_paths():
    assert plan.affected(["", "\n"], PACKAGES) == plan.Affected()


def test_unknown_place_is_an_error():
    with pytest.raises(ValueError, match=r"notes/todo\.txt: say in .*plan\.py"):
        plan.affected(["notes/todo.txt"], PACKAGES)


def test_the_matrix_holds_the_cpu_sessions_of_the_affected_packages():
    outputs = plan.plan(plan.Affected({"nlran"}, docs=True), SESSIONS)
    assert outputs["sessions"] == [
        {"session": "tests-3.11(nlran, cpu)", "python": "3.11"},
        {"session": "tests-3.13(nlran, cpu)", "python": "3.13"},
        {"session": "isolation(nlran)", "python": plan.PYTHON},
        {"session": "minimum(nlran)", "python": "3.11"},
    ]
    assert outputs["docs"] is True


def test_an_empty_matrix_is_a_list():
    assert plan.plan(plan.Affected(), SESSIONS)["sessions"] == []


def test_every_file_at_the_top_is_known():
    root = Path(__file__).parents[2]
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    )
    tops = {path.partition("/")[0] for path in listed.stdout.splitlines()}
    assert tops <= plan.EVERYTHING | plan.DOCS | plan.LINT_ONLY | {"packages"}


def test_prints_lines_for_github(monkeypatch, capsys):
    monkeypatch.setattr(plan, "nox_sessions", lambda: SESSIONS)
    monkeypatch.setattr(sys, "argv", ["plan.py"])
    monkeypatch.setattr(sys, "stdin", ["packages/nlran/pyproject.toml\n"])
    plan.main()
    lines = dict(line.split("=", 1) for line in capsys.readouterr().out.splitlines())
    assert len(json.loads(lines["sessions"])) == 4
    assert lines["docs"] == "true"
