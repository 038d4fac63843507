"""Masks that a user gives beside scans, found by name."""

from __future__ import annotations

import os
from itertools import chain
from pathlib import Path

from papercommons.errors import DataError

from nlran.volumes import SUFFIXES, volume_kind


def bare_name(name: str) -> str:
    """Return the name of a scan without the suffix of its format; a folder's name stays whole.

    Args:
        name: of a file or folder.

    Example:
        >>> bare_name("P1.NII.gz"), bare_name("1.2.840.77")
        ('P1', '1.2.840.77')
    """
    known = chain.from_iterable(SUFFIXES.values())
    suffix = next((end for end in known if name.lower().endswith(end)), "")
    return name[: len(name) - len(suffix)] or name


def find_mask(folder: str | Path, relative: str) -> Path | None:
    """Return the mask of a scan, or None.

    It has the scan's relative name, in any format; or else no other in the folder or below is
    called like the scan.

    Args:
        folder: of masks.
        relative: name of the scan, with forward slashes.

    Raises:
        DataError: no such folder, or several masks could be meant.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; expected masks named like the scans")
    same = folder / relative
    if volume_kind(same):
        return same
    name = bare_name(same.name)
    found = _called(same.parent, name)
    if not found:
        below = (_called(Path(where), name) for where, _, _ in sorted(os.walk(folder)))
        found = list(chain.from_iterable(below))
    if len(found) > 1:
        raise DataError(
            f"{folder}: {found[0].relative_to(folder)} and {found[1].relative_to(folder)} could "
            f"both be the mask of {relative}; give it the scan's relative name"
        )
    return found[0] if found else None


def _called(folder: Path, name: str) -> list[Path]:
    """Return the scans right in a folder that are called `name`, whatever their format."""
    entries = sorted(folder.iterdir()) if folder.is_dir() else ()
    return [path for path in entries if bare_name(path.name) == name and volume_kind(path)]
