"""What must not be in two splits: files, videos and people; needs no torch."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Mapping
from itertools import combinations, islice
from pathlib import Path

from papercommons.errors import DataError, one_line

from semforge.entries import Entry

log = logging.getLogger("papercommons")


def keys_of(entry: Entry) -> list[str]:
    """Return what an entry shares with others that belong in the same split.

    Its people where they are known, else its video by the stem of its name; and its file.

    Args:
        entry: picture or video.
    """
    keys = [f"identity {name}" for name in entry.identity]
    if entry.video and not keys:
        keys = [f"video {Path(entry.video).stem}"]
    return [*keys, f"file {entry.file.resolve()}"]


def find_leaks(splits: Mapping[str, Iterable[Entry]]) -> dict[str, list[str]]:
    """Return what two splits share: ``"train and test"`` -> people, videos and files, sorted.

    Args:
        splits: name of a split -> its entries, before videos become frames.
    """
    keys = {name: {key for e in entries for key in keys_of(e)} for name, entries in splits.items()}
    shared = {
        f"{one} and {other}": sorted(keys[one] & keys[other])
        for one, other in combinations(keys, 2)
    }
    return {pair: common for pair, common in shared.items() if common}


def check_leaks(splits: Mapping[str, Iterable[Entry]], *, allow: bool = False) -> dict[str, int]:
    """Refuse splits that share files, videos or people; or warn of them.

    Args:
        splits: see `find_leaks`.
        allow: warn only.

    Returns:
        ``"train and test"`` -> how much they share.

    Raises:
        DataError: they share something and `allow` is not set.
    """
    leaks = find_leaks(splits)
    for pair, common in leaks.items():
        what = f"{pair} share {len(common)} of people, videos and files ({shorten(common)})"
        if not allow:
            raise DataError(f"{what}; split them, or pass --allow-leak")
        log.warning("%s: results there look better than they are", what)
    return {pair: len(common) for pair, common in leaks.items()}


def hold_out(
    entries: Iterable[Entry], share: float, *, seed: int = 0
) -> tuple[list[Entry], list[Entry]]:
    """Return what is left and what is held out; what shares people or videos stays together.

    Groups are taken in an order that depends on seed and names alone, of groups with real, with
    forged and with both kinds of entries the same share each.

    Args:
        entries: all.
        share: of the groups to hold out, in (0, 1).
        seed: another seed gives another choice.

    Raises:
        DataError: there are not two groups of any kind.
    """
    everything = list(entries)
    strata: dict[frozenset[bool], list[list[int]]] = {}
    for group in _groups(everything):
        kinds = frozenset(everything[place].label[0] == 1 for place in group)
        strata.setdefault(kinds, []).append(group)
    held: set[int] = set()
    for stratum in strata.values():
        stratum.sort(key=lambda group: _digest(seed, min(everything[p].name for p in group)))
        count = min(max(1, round(share * len(stratum))), len(stratum) - 1)
        held.update(place for group in stratum[:count] for place in group)
    if not held:
        raise DataError(
            "too few pictures that share no people or videos, so none can be held out; give --val, "
            "or set --val-fraction 0"
        )
    return (
        [entry for place, entry in enumerate(everything) if place not in held],
        [entry for place, entry in enumerate(everything) if place in held],
    )


def _groups(entries: list[Entry]) -> list[list[int]]:
    """Return the connected components of entries that share a key, by union and find."""
    above = list(range(len(entries)))

    def find(place: int) -> int:
        while above[place] != place:
            above[place] = above[above[place]]
            place = above[place]
        return place

    first: dict[str, int] = {}
    for place, entry in enumerate(entries):
        for key in keys_of(entry):
            above[find(place)] = find(first.setdefault(key, place))
    groups: dict[int, list[int]] = {}
    for place in range(len(entries)):
        groups.setdefault(find(place), []).append(place)
    return list(groups.values())


def _digest(seed: int, name: str) -> bytes:
    return hashlib.sha256(f"{seed}:{name}".encode(errors="surrogatepass")).digest()


def shorten(words: Iterable[str], between: str = ", ") -> str:
    """Return the first five of `words` in a line, with ``...`` if there are more.

    Args:
        words: any.
        between: what stands between them.
    """
    first = list(islice(words, 6))
    return one_line(between.join([*first[:5], *(["..."] if len(first) > 5 else [])]))
