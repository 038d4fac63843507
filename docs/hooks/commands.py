"""The pages docs/commands/<package>.md: what each command answers to ``--help``.

They are made when the site is built, from the installed commands (`nox -s docs` installs them, and
not torch, which --help does not need), so that they are never out of date.
"""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sysconfig
import tomllib
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

log = logging.getLogger("mkdocs.hooks.commands")
SCRIPTS = Path(sysconfig.get_paths()["scripts"])


@cache
def help_text(command: str) -> str:
    """Return what `command` answers to --help; a warning, an error in strict mode, if nothing."""
    path = SCRIPTS / command
    if not path.exists():
        log.warning("%s is not installed beside mkdocs; use `nox -s docs`", command)
        return "This copy of the documentation was made without the package."
    env = os.environ | {"COLUMNS": "78", "NO_COLOR": "1"}
    done = subprocess.run([path, "--help"], capture_output=True, text=True, env=env)
    if done.returncode != 0:
        log.warning("%s --help fails: %s", command, done.stderr.strip()[-300:])
    return re.sub(".\b", "", done.stdout).rstrip()  # jsonargparse goes back over a space


def page(package: str, scripts: dict[str, str]) -> str:
    """Return the page of one package.

    Args:
        package: its name.
        scripts: command -> entry point; commands with the same entry point are one command.
    """
    names: dict[str, list[str]] = {}
    for command, entry in scripts.items():
        names.setdefault(entry, []).append(command)
    with ThreadPoolExecutor() as pool:
        texts = pool.map(help_text, [commands[0] for commands in names.values()])
    parts = [
        f"# Commands of {package}",
        "What each command answers to `--help`. What is the same for all commands is on "
        f"[Commands](../cli.md), what the method does on [its page](../papers/{package}.md).",
    ]
    for commands, text in zip(names.values(), texts, strict=True):
        parts.append(f"## {commands[0]}")
        if others := ", ".join(f"`{name}`" for name in commands[1:]):
            parts.append(f"Also called {others}.")
        parts.append(f"```text\n{text}\n```")
    return "\n\n".join(parts) + "\n"


def on_files(files: Any, config: Any) -> Any:
    """Add one page per package that has commands; MkDocs calls this."""
    root = Path(config.config_file_path).parent
    for path in sorted(root.glob("packages/*/pyproject.toml")):
        project = tomllib.loads(path.read_text(encoding="utf-8"))["project"]
        if scripts := project.get("scripts"):
            name = f"commands/{project['name']}.md"
            files.append(File.generated(config, name, content=page(project["name"], scripts)))
    return files
