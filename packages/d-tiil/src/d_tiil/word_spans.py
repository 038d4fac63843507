"""Words of a caption by their places: found, counted as tokens, compared. Needs no torch."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from papercommons.errors import DataError

from d_tiil.phrases import Phrase

_TOKEN = re.compile(r"\S+")
_SAID = 40  # characters of a word in a message


def find_word(caption: str, word: str) -> tuple[Phrase, ...]:
    """Return where a word or phrase stands in a caption, as a whole and in any case of letters.

    Args:
        caption: any text.
        word: one word or several; one space stands for any white space.

    Example:
        >>> [place.start for place in find_word("Art: a cart, an art fair", "art")]
        [0, 16]
    """
    wanted = r"\s+".join(re.escape(part) for part in word.split())
    if not wanted:
        return ()
    pattern = re.compile(rf"(?<!\w){wanted}(?!\w)", re.IGNORECASE)
    return tuple(Phrase(found[0], *found.span()) for found in pattern.finditer(caption))


def caption_tokens(caption: str) -> tuple[Phrase, ...]:
    """Return what white space parts, with the punctuation that leans on it; DGM4's tokens."""
    return tuple(Phrase(found[0], *found.span()) for found in _TOKEN.finditer(caption))


def tokens_at(caption: str, positions: Iterable[int]) -> tuple[Phrase, ...]:
    """Return the tokens of a caption at some positions, counted from 0, in order.

    Args:
        caption: whose tokens they are.
        positions: in any order.

    Raises:
        DataError: there is no such position.
    """
    tokens = caption_tokens(caption)
    wanted = sorted(set(positions))
    if wanted and not 0 <= wanted[0] <= wanted[-1] < len(tokens):
        raise DataError(f"positions {wanted[0]} to {wanted[-1]} of {len(tokens)} words")
    return tuple(tokens[position] for position in wanted)


def marked(tokens: Sequence[Phrase], spans: Sequence[Phrase]) -> list[bool]:
    """Return for each token whether it shares a character with one of some spans.

    Args:
        tokens: of a caption.
        spans: of the same caption.
    """
    return [any(overlap(token, span) for span in spans) for token in tokens]


def overlap(first: Phrase, second: Phrase) -> bool:
    """Return whether two spans of one caption share a character.

    Args:
        first: a span.
        second: another.
    """
    return first.start < second.end and second.start < first.end


def changed_words(caption: str, other: str) -> tuple[Phrase, ...]:
    """Return the words of a caption that differ from those of one with as many words.

    Args:
        caption: whose words are returned.
        other: compared word by word.

    Raises:
        ValueError: it has more or fewer words.
    """
    tokens, others = caption_tokens(caption), caption_tokens(other)
    if len(tokens) != len(others):
        raise ValueError(f"captions of {len(tokens)} and {len(others)} words cannot be compared")
    pairs = zip(tokens, others, strict=True)
    return tuple(token for token, there in pairs if token.text != there.text)


def read_words(caption: str, given: Any) -> tuple[Phrase, ...]:
    """Return the spans that a data set gives as words or as places.

    Args:
        caption: they are parts of it.
        given: a word, or a list of words or of ``[start, end]`` in characters.

    Raises:
        DataError: another form, a word that is not in the caption, or a place outside of it.
    """
    listed = given if isinstance(given, list) else [given]
    spans: set[Phrase] = set()
    for one in listed:
        if isinstance(one, str):
            found = find_word(caption, one)
            if not found:
                raise DataError(f"the word {one[:_SAID]!r} is not in the caption")
            spans.update(found)
        elif isinstance(one, list) and [type(end) for end in one] == [int, int]:
            start, end = one
            if not 0 <= start < end <= len(caption):
                raise DataError(f"the place {one} is not within the caption's {len(caption)} signs")
            spans.add(Phrase(caption[start:end], start, end))
        else:
            raise DataError(f"words hold {str(one)[:_SAID]!r}, no word and no [start, end]")
    return tuple(sorted(spans, key=lambda span: span.start))
