"""Where output may go: a place that can be written, by one process at a time. Needs no torch."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from papercommons.errors import DataError

_held: dict[Path, int] = {}  # folder -> open handle with a lock


def check_place(out: str, place: Path) -> None:
    """Check that something can be written to `place`, or where it would be made; it leaves nothing.

    Args:
        out: what --out says, a folder or a file.
        place: that folder, or the folder of that file; it need not exist.

    Raises:
        DataError: `out` is empty, or cannot be written.
    """
    if not out:
        raise DataError("--out is empty; give a path")
    try:
        while not os.path.lexists(place):
            place = place.parent
        for name in Path(out).parts:  # those of missing folders, too, may be too long
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                os.lstat(place / name)
        if place == Path(out) and place.exists() and not place.is_dir():
            raise DataError(f"{out}: --out must be a folder, this is a file; choose another")
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        why = "leads nowhere" if place.is_symlink() else str(error.strerror).lower()
        raise DataError(
            f"{out}: cannot be written ({place}: {why}); choose another --out"
        ) from None


def hold(folder: Path) -> None:
    """Keep `folder` for this process, until it ends or `release` is called.

    The lock is the system's: it leaves no file, and goes with a process that is killed. Nothing
    happens where the system or the file system has none.

    Args:
        folder: one that exists.

    Raises:
        DataError: another process holds it.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        return
    key = folder.resolve()
    if key in _held:
        return
    handle = os.open(key, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise DataError(
            f"{folder}: another process is writing there; wait for it, or choose another --out"
        ) from None
    except OSError:  # a network drive
        os.close(handle)
        return
    _held[key] = handle


def release() -> None:
    """Give back all that `hold` keeps."""
    while _held:
        os.close(_held.popitem()[1])


if hasattr(os, "register_at_fork"):  # a worker that outlives a killed process must not hold on
    os.register_at_fork(after_in_child=release)
