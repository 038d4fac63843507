"""Words divided for a verifier: training, held-out and test writers, and pairs; needs no torch."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from papercommons.data.cedar import find_pair_list
from papercommons.data.pairs import Pairs, make_pairs, read_pairs
from papercommons.data.words import (
    Words,
    check_disjoint,
    first_writers,
    hold_out_writers,
    split_words,
)
from papercommons.errors import DataError

log = logging.getLogger("papercommons")


@dataclass(frozen=True)
class WordParts:
    """What is trained on, chosen with and judged.

    Attributes:
        split: its name.
        places: ``unlabelled`` (the whole training part), ``train`` and ``val`` (labelled training
            writers, and those of them held out), ``test`` -> places of images.
        pairs: ``train``, ``val``, ``test`` -> pairs.
    """

    split: str
    places: dict[str, list[int]]
    pairs: dict[str, Pairs]


def divide_words(
    words: Words,
    *,
    split: str = "auto",
    writer_fraction: float = 1.0,
    val_fraction: float = 0.1,
    pairs: str | None = None,
    max_per_writer: int | None = None,
    seed: int = 0,
    allow_writer_overlap: bool = False,
) -> WordParts:
    """Return the parts of a set of words, and the pairs of each.

    Args:
        words: the set.
        split: see `papercommons.data.words.split_words`; ``auto`` is `default_split`.
        writer_fraction: share of the training writers whose labels are used, in (0, 1].
        val_fraction: share of those held out as the part ``val``, in (0, 1).
        pairs: CSV or parquet file of training pairs instead of made ones.
        max_per_writer: most same-writer pairs of one writer.
        seed: of splits and pairs.
        allow_writer_overlap: accept writers in both training and test part.

    Raises:
        ValueError: a share out of range.
        DataError: see `split_words`, `check_disjoint`, `hold_out_writers`, `read_pairs`; or no
            listed pair lies in the training part.
    """
    if not (0 < writer_fraction <= 1 and 0 < val_fraction < 1):
        raise ValueError(
            "writer_fraction must be in (0, 1] and val_fraction in (0, 1): "
            f"{writer_fraction}, {val_fraction}"
        )
    split = resolve_split(words, split)
    halves = split_words(words, split, seed=seed)
    overlapping = split in ("seen", "shuffled") or allow_writer_overlap
    check_disjoint(words, halves["train"], halves["test"], allow=overlapping)
    labelled = first_writers(words, halves["train"], writer_fraction)
    train, held = hold_out_writers(words, labelled, share=val_fraction, seed=seed)
    places = {"unlabelled": halves["train"], "train": train, "val": held, "test": halves["test"]}
    made = {
        part: make_pairs(words, places[part], seed=seed, max_per_writer=max_per_writer)
        for part in ("train", "val")
    }
    if pairs is not None:
        made["train"] = _inside(read_pairs(pairs, words), words, train, pairs, split)
    made["test"] = pairs_to_judge(words, split, places["test"], seed=seed)
    return WordParts(split, places, made)


def resolve_split(words: Words, split: str) -> str:
    """Return the name of a split; auto is `default_split`."""
    return default_split(words) if split == "auto" else split


def default_split(words: Words) -> str:
    """Return unseen for CEDAR AND, the folder's own split where it has one, else ``writers``."""
    for name in ("unseen", "published"):
        if name in words.published:
            return name
    return "writers"


def pairs_to_judge(words: Words, split: str, places: Sequence[int], *, seed: int = 0) -> Pairs:
    """Return the published list of test pairs of a split; made ones where there is none.

    Args:
        words: the images.
        split: its name.
        places: images of the test part.
        seed: of made pairs.
    """
    published = find_pair_list(words.root, split)
    if published is None:
        return make_pairs(words, places, seed=seed)
    return read_pairs(published, words)


def _inside(pairs: Pairs, words: Words, places: Sequence[int], source: str, split: str) -> Pairs:
    """Return the pairs whose images both lie in the training part; say how many do not."""
    allowed = np.zeros(len(words), dtype=bool)
    allowed[places] = True
    kept = np.flatnonzero(allowed[pairs.left] & allowed[pairs.right])
    if not len(kept):
        raise DataError(f"{source}: no pair lies in the training part of split {split}")
    if len(kept) < len(pairs):
        log.warning(
            "%s: %d of %d pairs have an image outside the labelled training part and are left out",
            source,
            len(pairs) - len(kept),
            len(pairs),
        )
    return pairs.take(kept)
