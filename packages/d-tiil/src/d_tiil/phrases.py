"""Words and phrases of a caption that an image can contradict."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

CONTENT_TAGS = frozenset({"NOUN", "ADJ", "PROPN", "PUNCT", "PART"})
"""Parts of speech that the reference joins to phrases (spaCy's universal tags)."""

_STOP = """
a about above across after again against all along already also although always am amid among an
and another any anybody anyone anything are around as at away be became because become been
before behind being below beneath beside besides between beyond both but by can cannot could did
do does doing done down during each either else enough ever every everybody everyone everything
few for from further had has have having he hence her here hers herself him himself his how
however i if in inside instead into is it its itself just last later least less let like made
many may me might more most much must my myself near nearby neither never next no nobody none
nor not nothing now of off often on once one only onto or other others otherwise ought our ours
ourselves out outside over own per perhaps quite rather really same several shall she should
since so some somebody someone something still such than that the their theirs them themselves
then there these they this those though through throughout thus to together too toward towards
under unless until up upon us very via was we well were what whatever when where whether which
while who whole whom whose why will with within without would yet you your yours yourself
"""

STOP_WORDS = frozenset(_STOP.split())
"""Words of English that name nothing which can be seen."""

_WORD = re.compile(r"\w+(?:[-'’.&]\w+)*", re.UNICODE)


class Phrase(NamedTuple):
    """A part of a caption.

    Attributes:
        text: ``caption[start:end]``.
        start: its first character.
        end: one past its last.
    """

    text: str
    start: int
    end: int


def content_words(caption: str) -> list[Phrase]:
    """Return the words of a caption that are no stop words, in order.

    Args:
        caption: any text; case does not count.

    Example:
        >>> [word.text for word in content_words("A red truck parked near the bridge.")]
        ['red', 'truck', 'parked', 'bridge']
    """
    words = (Phrase(found[0], *found.span()) for found in _WORD.finditer(caption))
    return [word for word in words if word.text.casefold() not in STOP_WORDS]


def content_phrases(caption: str) -> list[Phrase]:
    """Return phrases without any tagger: content words that only spaces part, joined.

    Args:
        caption: any text.

    Example:
        >>> [phrase.text for phrase in content_phrases("A red truck near the Golden Gate Bridge.")]
        ['red truck', 'Golden Gate Bridge']
    """
    runs: list[list[Phrase]] = []
    for word in content_words(caption):
        if runs and caption[runs[-1][-1].end : word.start].isspace():
            runs[-1].append(word)
        else:
            runs.append([word])
    return [_joined(caption, run) for run in runs]


def phrases_from_tags(
    tokens: Iterable[tuple[str, str, bool]], caption: str | None = None
) -> list[Phrase]:
    """Return phrases as the reference makes them from a tagger's tokens (paper, step 4).

    They are the longest runs of tokens that are no stop words and have one of `CONTENT_TAGS`.

    Args:
        tokens: text, universal part of speech and whether it is a stop word, in order.
        caption: where the tokens stand; joined by single spaces if not given.

    Raises:
        ValueError: a token is not in the caption, in this order.
    """
    tokens = list(tokens)
    caption = " ".join(text for text, _, _ in tokens) if caption is None else caption
    runs: list[list[Phrase]] = [[]]
    place = 0
    for text, tag, is_stop in tokens:
        start = caption.find(text, place)
        if start < 0:
            raise ValueError(f"token {text!r} is not in the caption after character {place}")
        place = start + len(text)
        if is_stop or tag not in CONTENT_TAGS:
            runs.append([])
        else:
            runs[-1].append(Phrase(text, start, place))
    return [_joined(caption, run) for run in runs if run]


def _joined(caption: str, run: Sequence[Phrase]) -> Phrase:
    start, end = run[0].start, run[-1].end
    return Phrase(caption[start:end], start, end)


def neutralised(caption: str, phrase: Phrase, neutral: str) -> str:
    """Return a caption in which a phrase's words have each become a neutral word.

    Args:
        caption: the phrase is part of it.
        phrase: its place.
        neutral: a word, or "" to leave the phrase out.

    Example:
        >>> neutralised("a red truck", Phrase("red", 2, 5), "a")
        'a a truck'
    """
    words = [neutral] * len(phrase.text.split())
    whole = f"{caption[: phrase.start]}{' '.join(words)}{caption[phrase.end :]}"
    return " ".join(whole.split())
