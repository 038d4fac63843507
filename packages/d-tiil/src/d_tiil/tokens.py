"""Captions that can be read, and where their words are among the tokens of a tokenizer."""

from __future__ import annotations

import textwrap
from typing import Any

from papercommons.errors import DataError

from d_tiil.phrases import Phrase

MOST_CAPTION = 20_000  # characters; an encoder takes a few hundred
_SAID = 200  # characters of lost words in a message


def check_text(caption: str, name: str = "the caption") -> None:
    """Raise unless a caption is a text that a tokenizer can be given.

    Args:
        caption: what an image is said to show.
        name: what messages call it.

    Raises:
        DataError: it is empty, or far too long, or holds characters that are no text.
    """
    if not caption.strip():
        raise DataError(f"{name} is empty; say what the image is said to show")
    if len(caption) > MOST_CAPTION:
        raise DataError(f"{name} has {len(caption):,} characters; give at most {MOST_CAPTION:,}")
    try:
        caption.encode()
    except UnicodeEncodeError:
        raise DataError(f"{name} is not valid Unicode text; write it in UTF-8") from None


def check_length(caption: str, tokenizer: Any) -> None:
    """Raise unless the text encoder takes the whole caption.

    Args:
        caption: the text.
        tokenizer: of transformers.

    Raises:
        DataError: see `check_text`; or it is too long for the encoder, and the message names the
            words that would be lost.
    """
    check_text(caption)
    length, words = int(tokenizer.model_max_length), caption.split()
    if _count(tokenizer, caption) <= length:
        return
    most = range(min(len(words), length), 0, -1)  # a word has a token or more
    kept = next((k for k in most if _count(tokenizer, " ".join(words[:k])) <= length), 0)
    lost = textwrap.shorten(" ".join(words[kept:]), _SAID, placeholder=" ...")
    raise DataError(
        f"the caption is longer than the {length} tokens that the text encoder takes: "
        f"{lost!r} would be lost; shorten it"
    )


def token_positions(caption: str, phrase: Phrase, tokenizer: Any) -> list[int]:
    """Return the positions of a phrase's tokens in the caption's, counted with the first special.

    Args:
        caption: no longer than the text encoder takes.
        phrase: a part of it.
        tokenizer: of transformers; it must not merge over the phrase's ends, CLIP's does not.
    """
    before = len(_ids(tokenizer, caption[: phrase.start], special=False))
    own = len(_ids(tokenizer, phrase.text, special=False))
    whole, plain = (_ids(tokenizer, caption, special=special) for special in (True, False))
    first = next((k for k in range(len(whole)) if whole[k : k + len(plain)] == plain), 0)
    return list(range(first + before, first + before + own))


def _count(tokenizer: Any, text: str) -> int:
    return len(_ids(tokenizer, text, special=True))


def _ids(tokenizer: Any, text: str, *, special: bool) -> list[int]:
    # verbose: the length is checked here, in words that say what would be lost
    return list(tokenizer(text, add_special_tokens=special, verbose=False)["input_ids"])
