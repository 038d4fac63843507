"""Turn changed files into the sessions that CI runs, as lines `name=JSON` for $GITHUB_OUTPUT.

`git diff --name-only A...B | python .github/scripts/plan.py` plans for a change;
`python .github/scripts/plan.py --all` plans for everything. The sessions come from `nox -l --json`,
so a new package needs no change here.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

# What each path at the top level has an effect on; a path that is not here is an error.
EVERYTHING = {
    *("shared", "noxfile.py", "pyproject.toml", "constraints.txt"),
    *(".github", ".ci"),
}
DOCS = {"docs", "mkdocs.yml", "README.md"}
LINT_ONLY = {
    *("LICENSE", "CITATION.cff", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"),
    *(".gitignore", ".editorconfig", ".pre-commit-config.yaml"),
}
PER_PACKAGE = ("tests", "isolation", "minimum")
PYTHON = "3.12"  # for sessions that name none


@dataclass
class Affected:
    """What a change has an effect on: packages by name, the docs site, the examples."""

    packages: set[str] = field(default_factory=set)
    docs: bool = False
    examples: bool = False


def affected(paths: Iterable[str], packages: Iterable[str]) -> Affected:
    """Return what a change of `paths` has an effect on.

    Args:
        paths: changed files, relative to the repository root, with forward slashes.
        packages: all packages; papercommons is one, its folder is ``shared``.

    Raises:
        ValueError: a path lies where this script knows of nothing.
    """
    known = set(packages)
    found = Affected()
    for path in filter(None, map(str.strip, paths)):
        top, _, rest = path.partition("/")
        package = rest.partition("/")[0]
        if top in EVERYTHING or (top == "packages" and package not in known):
            # A package that is gone, or one folder that became another: look at all.
            return Affected(known, docs=True, examples=True)
        if top == "packages":
            # A package's docstrings and --help texts are pages of the site.
            found.packages.add(package)
            found.docs = found.examples = True
        elif top in DOCS:
            found.docs = True
            found.examples |= rest.startswith("examples/")
        elif top not in LINT_ONLY:
            raise ValueError(f"{path}: say in .github/scripts/plan.py what {top} has an effect on")
    return found


def plan(found: Affected, sessions: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Return the output values: the matrix of sessions of packages, and yes or no for the rest.

    Args:
        found: what is affected.
        sessions: the entries of ``nox -l --json``.
    """
    matrix = [
        {"session": session["session"], "python": session["python"] or PYTHON}
        for session in sessions
        if session["call_spec"]["package"] in found.packages
        and session["call_spec"].get("accelerator") != "gpu"
    ]
    return {"sessions": matrix, "docs": found.docs, "examples": found.examples}


def nox_sessions() -> list[dict[str, Any]]:
    """Return what nox lists, for all Pythons."""
    command = ["nox", "-l", "--json", "-s", *PER_PACKAGE, "--", "--all-pythons"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    listed: list[dict[str, Any]] = json.loads(done.stdout)
    return listed


def main() -> None:
    """Read changed files from standard input (none with --all), print the plan."""
    sessions = nox_sessions()
    packages = {session["call_spec"]["package"] for session in sessions}
    paths = ["noxfile.py"] if "--all" in sys.argv else sys.stdin
    for name, value in plan(affected(paths, packages), sessions).items():
        print(f"{name}={json.dumps(value)}")


if __name__ == "__main__":
    main()
