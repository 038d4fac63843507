"""Splits without a person in two splits, and what two splits share (section 4.4 b); needs no torch.

In the official lists the real clips of training and test have no person in common, but nearly all
people of the test clips occur in training fakes. Here a fake belongs to everybody whose face, voice
or clip it was made of.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import combinations, islice
from typing import NamedTuple

from papercommons.data.splits import hash_split
from papercommons.errors import DataError, one_line

from cmdfd.entries import ClipEntry

log = logging.getLogger("papercommons")


class Leak(NamedTuple):
    """What two splits share.

    Attributes:
        one: name of a split.
        other: of another.
        people: in both, sorted.
        sources: genuine clips that both have, or were made of, sorted.
        files: in both, sorted.
    """

    one: str
    other: str
    people: list[str]
    sources: list[str]
    files: list[str]

    @property
    def total(self) -> int:
        """How much they share."""
        return len(self.people) + len(self.sources) + len(self.files)

    @property
    def words(self) -> str:
        """The same as a line."""
        first = list(islice((*self.people, *self.sources, *self.files), 6))
        shown = one_line(", ".join([*first[:5], *(["..."] if len(first) > 5 else [])]))
        return (
            f"{self.one} and {self.other} share {len(self.people)} people, {len(self.sources)} "
            f"genuine clips and {len(self.files)} files ({shown})"
        )


class Division(NamedTuple):
    """Clips divided by their people.

    Attributes:
        splits: name -> its clips.
        crossing: clips whose people are in several splits: they belong to none.
    """

    splits: dict[str, list[ClipEntry]]
    crossing: list[ClipEntry]

    @property
    def words(self) -> str:
        """What became of the clips, as a line."""
        counts = ", ".join(f"{name} {len(entries)}" for name, entries in self.splits.items())
        lost = Counter(entry.method for entry in self.crossing)
        rest = ", ".join(f"{count} {method}" for method, count in lost.most_common(5))
        left = f"; left out, for people of two splits: {rest}" if lost else ""
        return f"clips: {counts}{left}"


def keys_of(entry: ClipEntry) -> tuple[str, ...]:
    """Return what ties an entry to others of its split: people, else its source, else itself."""
    if entry.identities:
        return entry.identities
    return (entry.source or entry.name,)


def split_by_identity(
    entries: Iterable[ClipEntry], shares: Mapping[str, float], *, seed: int = 0
) -> Division:
    """Return splits that have nobody in common.

    People are divided by a hash of seed and name; a clip goes where all of its people are, and is
    left out where they are in several splits. So splits of cross-identity fakes get smaller than
    their shares: of fakes with two people and two equal splits, half are left out.

    Args:
        entries: all clips.
        shares: name of a split -> its share of the people; they sum to 1.
        seed: another seed gives another division.

    Raises:
        ValueError: shares that are negative or do not sum to 1.
        DataError: a split would get nobody, or clips of one class only.
    """
    everything = list(entries)
    names = sorted({key for entry in everything for key in keys_of(entry)})
    places = hash_split(names, shares, seed=seed)
    split_of = {names[k]: split for split, members in places.items() for k in members}
    splits: dict[str, list[ClipEntry]] = {split: [] for split, share in shares.items() if share > 0}
    crossing: list[ClipEntry] = []
    for entry in everything:
        among = {split_of[key] for key in keys_of(entry)}
        (splits[among.pop()] if len(among) == 1 else crossing).append(entry)
    classes = len({entry.entire for entry in everything})
    for name, members in splits.items():
        if len({entry.entire for entry in members}) < classes:
            lacking = ", not of both classes" * (classes == 2)
            raise DataError(
                f"split {name} would get {len(members)} clips{lacking}; {len(crossing)} "
                "have people of several splits; use more clips, another --seed or another share"
            )
    return Division(splits, crossing)


def find_leaks(splits: Mapping[str, Iterable[ClipEntry]]) -> list[Leak]:
    """Return what each two splits share, where they share something.

    Args:
        splits: name -> its clips.
    """
    people, sources, files = {}, {}, {}
    for name, entries in splits.items():
        members = list(entries)
        people[name] = {person for entry in members for person in entry.identities}
        sources[name] = {entry.source for entry in members if entry.source}
        files[name] = {str(entry.video) for entry in members}
        files[name] |= {str(entry.audio) for entry in members if entry.audio}
    leaks = [
        Leak(one, other, *(sorted(kind[one] & kind[other]) for kind in (people, sources, files)))
        for one, other in combinations(people, 2)
    ]
    return [leak for leak in leaks if leak.total]


def check_leaks(
    splits: Mapping[str, Iterable[ClipEntry]], *, allow: bool = False
) -> dict[str, int]:
    """Refuse splits that share people, genuine clips or files; or warn of them.

    Args:
        splits: see `find_leaks`.
        allow: warn only.

    Returns:
        ``"train and test"`` -> how much they share.

    Raises:
        DataError: they share something and `allow` is not set.
    """
    leaks = find_leaks(splits)
    for leak in leaks:
        if not allow:
            raise DataError(f"{leak.words}; keep them apart, or pass --allow-leak")
        log.warning("%s: results there look better than they are", leak.words)
    return {f"{leak.one} and {leak.other}": leak.total for leak in leaks}
