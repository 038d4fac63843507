"""Entries of lists and of published sets: pictures, videos and folders of frames with labels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path

import numpy as np
from papercommons.errors import DataError, one_line

REAL, FAKE = "real", "fake"


@dataclass(frozen=True)
class Entry:
    """A picture, a video, or a folder of a video's frames.

    Attributes:
        file: image, video or folder of frames.
        label: 0, 1 or 2 = unknown, one per node.
        name: how reports call it.
        video: which video it is, or is from; empty for a picture on its own.
        method: what made it: ``real``, a method, or ``fake`` if that is not known.
        split: train, val or test; empty where that is not said.
        identity: who is in it, where that is known; entries that share one belong in one split.
        where: it was listed, for messages.
    """

    file: Path
    label: tuple[int, ...]
    name: str
    video: str = ""
    method: str = ""
    split: str = ""
    identity: tuple[str, ...] = ()
    where: str = ""


@dataclass(frozen=True, eq=False)
class FaceList:
    """Entries in a fixed order.

    Attributes:
        entries: at least one.
        source: where they are from.
        notes: what is worth knowing about them.
        longer: videos must have at least as many frames as are taken of them; others are left out.
    """

    entries: tuple[Entry, ...]
    source: str = ""
    notes: tuple[str, ...] = ()
    longer: bool = False

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def files(self) -> tuple[Path, ...]:
        """Images, videos, and folders of frames."""
        return tuple(entry.file for entry in self.entries)

    @cached_property
    def labels(self) -> np.ndarray:
        """0, 1 or 2 = unknown, int8, shape (N, n)."""
        return np.array([entry.label for entry in self.entries], np.int8)

    @property
    def names(self) -> tuple[str, ...]:
        """How reports call them."""
        return tuple(entry.name for entry in self.entries)

    @property
    def videos(self) -> tuple[str, ...]:
        """Which video each is, or is from; empty for a picture on its own."""
        return tuple(entry.video for entry in self.entries)

    @property
    def methods(self) -> tuple[str, ...]:
        """What made each: ``real``, a method, or ``fake`` if that is not known."""
        return tuple(entry.method for entry in self.entries)

    @property
    def splits(self) -> tuple[str, ...]:
        """Train, val or test; empty where that is not said."""
        return tuple(entry.split for entry in self.entries)

    @property
    def identities(self) -> tuple[tuple[str, ...], ...]:
        """Who is in each, where that is known."""
        return tuple(entry.identity for entry in self.entries)


def as_list(
    entries: Iterable[Entry], *, source: str, notes: Iterable[str] = (), longer: bool = False
) -> FaceList:
    """Return the entries as a list, each file once.

    Args:
        entries: at least one; the same file may come again with the same label and split.
        source: see `FaceList`.
        notes: see `FaceList`.
        longer: see `FaceList`.

    Raises:
        DataError: no entry, or a file with two labels or in two splits.
    """
    kept: dict[Path, Entry] = {}
    twice = 0
    for entry in entries:
        before = kept.setdefault(entry.file, entry)
        twice += before is not entry
        for what, old, new in (
            ("label", as_text(before.label), as_text(entry.label)),
            ("split", before.split or "none", entry.split or "none"),
        ):
            if old != new:
                raise DataError(
                    f"{entry.where or source}: {one_line(entry.name)} has {what} {new}, and {old} "
                    f"at {before.where or source}; keep one"
                )
    if not kept:
        raise DataError(f"{source}: no entries; expected lines `path label`")
    again = [f"{source}: {twice} entries are there again and count once"] if twice else []
    return FaceList(tuple(kept.values()), source, (*notes, *again), longer)


def join(lists: Sequence[FaceList]) -> FaceList:
    """Return the entries of several lists as one.

    Args:
        lists: at least one, of one graph.

    Raises:
        DataError: a file is there with two labels or in two splits.
    """
    return as_list(
        chain.from_iterable(one.entries for one in lists),
        source=", ".join(one.source for one in lists),
        notes=chain.from_iterable(one.notes for one in lists),
        longer=any(one.longer for one in lists),
    )


def as_text(label: Sequence[int]) -> str:
    """Return a label as lists have it.

    Args:
        label: 0, 1 or 2 = unknown, one per node.
    """
    return "".join(map(str, label))
