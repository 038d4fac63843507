"""Check a release tag such as rld-distill-v1.2.3, and print the lines package= and folder=.

The tag must name a package, its pyproject.toml must hold that version, and its CHANGELOG.md must
have a dated section for it.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def check(tag: str, root: Path = ROOT) -> tuple[str, str]:
    """Return the package that `tag` releases and its folder.

    Args:
        tag: ``<distribution>-v<version>``.
        root: the repository.

    Raises:
        ValueError: the tag, the version or the changelog do not agree.
    """
    match = re.fullmatch(r"(?P<package>[a-z0-9-]+)-v(?P<version>\d+\.\d+\.\d+)", tag)
    if match is None:
        raise ValueError(f"{tag}: a release tag looks like rld-distill-v1.2.3")
    package, version = match["package"], match["version"]
    folder = "shared" if package == "papercommons" else f"packages/{package}"
    pyproject = root / folder / "pyproject.toml"
    if not pyproject.is_file():
        raise ValueError(f"{tag}: there is no {folder}/pyproject.toml")
    written = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]["version"]
    if written != version:
        raise ValueError(f"{tag}: {folder}/pyproject.toml says version {written}")
    changes = (root / folder / "CHANGELOG.md").read_text(encoding="utf-8")
    section = rf"^## \[{re.escape(version)}\] - \d{{4}}-\d\d-\d\d$"
    if not re.search(section, changes, re.MULTILINE):
        raise ValueError(f"{tag}: {folder}/CHANGELOG.md needs a line '## [{version}] - YYYY-MM-DD'")
    return package, folder


if __name__ == "__main__":
    try:
        print("package={}\nfolder={}".format(*check(sys.argv[1])))
    except ValueError as error:
        raise SystemExit(f"release: {error}") from None
