"""Versions of what is installed."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def installed_version(distribution: str) -> str:
    """Return the version of an installed distribution, ``"unknown"`` if only its sources are there.

    Args:
        distribution: its name, e.g. ``rld-distill``.
    """
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "unknown"
