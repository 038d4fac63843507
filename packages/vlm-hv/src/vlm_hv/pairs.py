"""Which pairs of a set of words: those of a split, published lists, draws; needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from papercommons.data.pairs import Pairs, make_pairs
from papercommons.data.word_parts import pairs_to_judge, resolve_split
from papercommons.data.words import Words, first_writers, hold_out_writers, split_words

Split = Literal["train", "val", "test", "all"]
VAL_FRACTION = 0.1  # of the training writers: they calibrate


def split_places(words: Words, split: Split, split_by: str, *, seed: int = 0) -> list[int]:
    """Return the images of a split.

    Args:
        words: the images.
        split: test; val, the training writers held out for calibration; train, the others; or all.
        split_by: how the words are divided; auto is
            `papercommons.data.word_parts.default_split`.
        seed: of the division and of who is held out.

    Raises:
        DataError: see `papercommons.data.words.split_words`.
    """
    if split == "all":
        return list(range(len(words)))
    halves = split_words(words, resolve_split(words, split_by), seed=seed)
    if split == "test":
        return halves["test"]
    train, held = hold_out_writers(words, halves["train"], share=VAL_FRACTION, seed=seed)
    return held if split == "val" else train


def split_pairs(words: Words, split: Split, split_by: str, *, seed: int = 0) -> Pairs:
    """Return the pairs of a split: for test the published list if there is one, else made ones.

    Args:
        words: the images.
        split: see `split_places`.
        split_by: see `split_places`.
        seed: of the division and of made pairs.
    """
    places = split_places(words, split, split_by, seed=seed)
    if split != "test":
        return make_pairs(words, places, seed=seed)
    return pairs_to_judge(words, resolve_split(words, split_by), places, seed=seed)


def some_writers(
    words: Words,
    places: Sequence[int],
    fraction: float,
    max_per_writer: int | None,
    *,
    seed: int = 0,
) -> Pairs:
    """Return made pairs of the first share of some images' writers.

    Args:
        words: the images.
        places: which take part.
        fraction: of their writers, in (0, 1].
        max_per_writer: most same-writer pairs of one writer.
        seed: of the draws.
    """
    chosen = first_writers(words, places, fraction)
    return make_pairs(words, chosen, seed=seed, max_per_writer=max_per_writer)


def drawn(labels: Sequence[int | None], most: int, *, seed: int = 0) -> list[int]:
    """Return the places of at most so many pairs, in order: half of each kind if possible.

    Args:
        labels: 1 or 0; where one is None, pairs are drawn without regard to kind.
        most: >= 1; where one kind has fewer than half, the other fills up.
        seed: of the draw.

    Raises:
        ValueError: most < 1.
    """
    if most < 1:
        raise ValueError(f"--limit must be >= 1, got {most}")
    if len(labels) <= most:
        return list(range(len(labels)))
    order = np.random.default_rng(seed).permutation(len(labels))
    if None in labels:
        return sorted(order[:most].tolist())
    kinds = np.array(labels)[order]
    one, two = (order[kinds == kind] for kind in (1, 0))
    count = min(len(one), max(most // 2, most - len(two)))
    return sorted([*one[:count].tolist(), *two[: most - count].tolist()])


def draw_pairs(pairs: Pairs, most: int, *, seed: int = 0) -> Pairs:
    """Return at most so many pairs, see `drawn`.

    Args:
        pairs: to draw from.
        most: >= 1.
        seed: of the draw.
    """
    return pairs.take(drawn(pairs.same.tolist(), most, seed=seed))
