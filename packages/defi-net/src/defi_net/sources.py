"""Splits that keep everything made from one photograph together; needs no torch."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Mapping, Sequence

from papercommons.errors import DataError

from defi_net.layouts import Sample, shorten

log = logging.getLogger("papercommons")


def split_sources(
    sources: Iterable[str], fractions: Mapping[str, float], *, seed: int = 0
) -> dict[str, str]:
    """Return the split of each source; every split with a share above 0 gets at least one.

    Sources are put in an order that depends on seed and name alone, and dealt out by share.

    Args:
        sources: names or hashes of photographs; the same one may come several times.
        fractions: of val and test, in [0, 1); train gets what is left.
        seed: another seed gives another split.

    Raises:
        ValueError: a share below 0, or shares that leave train nothing.
        DataError: fewer photographs than splits.
    """
    total = sum(fractions.values())
    if min(fractions.values(), default=0) < 0 or total >= 1:
        raise ValueError(f"shares must be >= 0 and below 1 together, got {dict(fractions)}")
    order = sorted(set(sources), key=lambda source: _digest(seed, source))
    counts = {
        name: max(1, round(share * len(order))) for name, share in fractions.items() if share > 0
    }
    if sum(counts.values()) >= len(order):
        raise DataError(
            f"{len(order)} source photographs are too few for train, {' and '.join(counts)}; add "
            "photographs or set a share to 0"
        )
    names = [name for name, count in counts.items() for _ in range(count)]
    names += ["train"] * (len(order) - len(names))
    return dict(zip(order, names, strict=True))


def _digest(seed: int, source: str) -> bytes:
    return hashlib.sha256(f"{seed}:{source}".encode(errors="surrogatepass")).digest()


def warn_of_shared(splits: Mapping[str, Sequence[Sample]]) -> dict[str, list[str]]:
    """Warn of photographs that are in two splits, and return them.

    Args:
        splits: name -> its samples. Equal `Sample.source` means the same photograph.

    Returns:
        ``"train and test"`` -> the sources both have, sorted; only pairs that share some.
    """
    sources = {name: {s.source for s in samples if s.source} for name, samples in splits.items()}
    names = list(sources)
    shared = {
        f"{one} and {other}": sorted(sources[one] & sources[other])
        for number, one in enumerate(names)
        for other in names[number + 1 :]
        if sources[one] & sources[other]
    }
    for pair, common in shared.items():
        log.warning(
            "%d source photographs are in both %s, so results there look better than they are: %s",
            len(common),
            pair,
            shorten(common),
        )
    return shared
