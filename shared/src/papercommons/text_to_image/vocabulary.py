"""The vocabulary of a CLIP tokenizer for a handful of words, made without any network."""

from __future__ import annotations

import json
import string
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path

START, END = "<|startoftext|>", "<|endoftext|>"
_LAST = "</w>"  # marks the last letter of a word


def write_vocabulary(words: Iterable[str], folder: str | Path) -> None:
    """Write vocab.json and merges.txt with one token per word; others fall apart into letters.

    Args:
        words: lower case, ASCII letters and digits.
        folder: exists.

    Raises:
        ValueError: a word with other characters.
    """
    known = sorted(set(words))
    letters = string.ascii_lowercase + string.digits
    for word in known:
        if not word or not set(word) <= set(letters):
            raise ValueError(f"word {word!r}: must be of lower-case letters and digits")
    merges = make_merges(known)
    singles = letters + string.punctuation
    tokens = [*singles, *(c + _LAST for c in singles), *map("".join, merges), START, END]
    numbers = {token: number for number, token in enumerate(dict.fromkeys(tokens))}
    rows = ["#version: 0.2", *map(" ".join, merges)]
    (Path(folder) / "vocab.json").write_text(json.dumps(numbers), encoding="utf-8")
    (Path(folder) / "merges.txt").write_text("\n".join(rows) + "\n", encoding="utf-8")


def make_merges(words: Sequence[str]) -> list[tuple[str, str]]:
    """Return merges of byte-pair encoding that make every word one token.

    A word gets further merges only where those before it leave it in parts. New ones come last, so
    words that are whole stay whole.

    Args:
        words: none empty.
    """
    ranks: dict[tuple[str, str], int] = {}
    for word in words:
        while len(parts := _parts(word, ranks)) > 1:
            ranks[parts[0], parts[1]] = len(ranks)
    return list(ranks)


def _parts(word: str, ranks: dict[tuple[str, str], int]) -> list[str]:
    """Return the tokens of a word: the pair of lowest rank is merged until none is left."""
    parts = [*word[:-1], word[-1] + _LAST]
    while True:
        pairs = [pair for pair in pairwise(parts) if pair in ranks]
        if not pairs:
            return parts
        first = min(pairs, key=lambda pair: ranks[pair])
        merged: list[str] = []
        for part in parts:
            if merged and (merged[-1], part) == first:
                merged[-1] += part
            else:
                merged.append(part)
        parts = merged
