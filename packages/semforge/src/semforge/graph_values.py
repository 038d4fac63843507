"""What a graph may be written as: YAML files of untrusted users, and the checks of their values."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from papercommons.errors import DataError, reason

_MAX_BYTES = 1 << 20


def read_graph_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file.

    Args:
        path: at most 1 MiB.

    Raises:
        DataError: missing, too large, no YAML, or no mapping.
    """
    from papercommons.yaml_text import parse_yaml

    if not path.is_file():
        raise DataError(f"{path}: no such file; give a graph as YAML, or ffsc or ffpp")
    if path.stat().st_size > _MAX_BYTES:
        raise DataError(f"{path}: larger than 1 MiB, so no graph of at most 20 nodes")
    try:
        values = parse_yaml(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path}: not readable YAML ({reason(error)})") from error
    if not isinstance(values, dict):
        raise DataError(f"{path}: expected entries such as root and global, found none")
    return values


def as_list(value: Any, what: str) -> list[Any]:
    """Return the items of a list or tuple.

    Args:
        value: what was written.
        what: its name, for the message.

    Raises:
        ValueError: it is no list.
    """
    if not isinstance(value, list | tuple):
        raise ValueError(f"{what}: expected a list, got {_shown(value)}")
    return list(value)


def as_names(value: Any, what: str) -> tuple[str, ...]:
    """Return a list of node names.

    Args:
        value: what was written.
        what: its name, for the message.

    Raises:
        ValueError: it is no list, or something in it is no name.
    """
    names = as_list(value, what)
    for name in names:
        if not isinstance(name, str) or not name.strip():
            raise ValueError(
                f"{what}: a node's name is text, got {_shown(name)} (in YAML, put yes, no and "
                "numbers in quotes)"
            )
    return tuple(names)


def as_groups(value: Any, what: str) -> dict[str, tuple[str, ...]]:
    """Return a mapping from names to lists of names.

    Args:
        value: what was written.
        what: its name, for the message.

    Raises:
        ValueError: it is no such mapping, or a list is empty or names a node twice.
    """
    if not isinstance(value, Mapping):
        raise ValueError(f"{what}: expected names with lists of nodes, got {_shown(value)}")
    groups = {}
    for (key,) in (as_names([key], what) for key in value):
        group = as_names(value[key] or [], f"{what}: {key}")
        if not group:
            raise ValueError(f"{what}: {key!r} has no nodes; name at least one")
        if len(set(group)) < len(group):
            raise ValueError(f"{what}: {key!r} names a node twice")
        groups[key] = group
    return groups


def as_texts(value: Any, what: str) -> dict[str, str]:
    """Return a mapping from names to texts.

    Args:
        value: what was written.
        what: its name, for the message.

    Raises:
        ValueError: it is no such mapping.
    """
    if not isinstance(value, Mapping):
        raise ValueError(f"{what}: expected nodes with texts, got {_shown(value)}")
    for text in value.values():
        as_names([text], what)
    return dict(value)


def _shown(value: Any) -> str:
    """Return a value for a message; of a container the type, which may be huge."""
    plain = value is None or isinstance(value, str | int | float)
    return repr(value)[:50] if plain else f"a {type(value).__name__}"
