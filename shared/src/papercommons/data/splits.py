"""Splits that are the same on every machine and in every process. Needs no torch."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate

from papercommons.errors import DataError


def hash_split(
    keys: Sequence[str], fractions: Mapping[str, float], *, seed: int = 0
) -> dict[str, list[int]]:
    """Return the indices of each split; equal keys (one patient, one writer) stay together.

    A key's place follows from a hash of seed and key alone: adding items moves no other, and splits
    have about the sizes asked for.

    Args:
        keys: one per item: what must not be torn apart.
        fractions: name of a split -> its share; they sum to 1.
        seed: another seed gives another split.

    Raises:
        ValueError: fractions that are negative or do not sum to 1.
        DataError: a split with a share above 0 would get nothing.
    """
    _check_fractions(fractions)
    parts: dict[str, list[int]] = {name: [] for name in fractions}
    names = [name for name, share in fractions.items() if share > 0]
    edges = list(accumulate(fractions[name] for name in names))[:-1]  # the last one is 1
    for index, key in enumerate(keys):
        digest = hashlib.sha256(f"{seed}:{key}".encode(errors="surrogatepass")).digest()
        place = int.from_bytes(digest[:8], "big") / 2**64
        parts[names[bisect_right(edges, place)]].append(index)
    for name, share in fractions.items():
        if share > 0 and not parts[name]:
            raise DataError(
                f"split {name} ({share:.0%} of {len(set(keys))} groups) would be empty; "
                "use more data, another --seed or another share"
            )
    return parts


def stratified_split(
    labels: Sequence[int], fractions: Mapping[str, float], *, seed: int = 0
) -> dict[str, list[int]]:
    """Return the indices of each split, ascending; every class is divided in the same shares.

    Shares hold to within one item of each class, so a small class may be absent from a small split.
    The split follows from seed, order and number of items.

    Args:
        labels: class of each item.
        fractions: name of a split -> its share; they sum to 1.
        seed: another seed gives another split.

    Raises:
        ValueError: fractions that are negative or do not sum to 1.
    """
    _check_fractions(fractions)
    by_class: dict[int, list[int]] = {}
    for index, label in enumerate(labels):
        by_class.setdefault(int(label), []).append(index)
    parts: dict[str, list[int]] = {name: [] for name in fractions}
    for members in by_class.values():
        members.sort(key=lambda index: hashlib.sha256(f"{seed}:{index}".encode()).digest())
        start, edge = 0, 0.0
        for name, share in fractions.items():
            edge += share
            stop = round(edge * len(members))
            parts[name] += members[start:stop]
            start = stop
    return {name: sorted(members) for name, members in parts.items()}


def _check_fractions(fractions: Mapping[str, float]) -> None:
    total = sum(fractions.values())
    if not (min(fractions.values(), default=0) >= 0 and abs(total - 1) <= 1e-9):
        raise ValueError(f"fractions must be >= 0 and sum to 1, got {dict(fractions)}")
