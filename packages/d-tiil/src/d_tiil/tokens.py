"""Where a caption's words are among its tokens, for any tokenizer of transformers."""

from __future__ import annotations

from typing import Any

from papercommons.errors import DataError

from d_tiil.phrases import Phrase


def check_length(caption: str, tokenizer: Any) -> None:
    """Raise unless the text encoder takes the whole caption.

    Args:
        caption: the text.
        tokenizer: of transformers.

    Raises:
        DataError: it is empty or too long; the message names the words that would be lost.
    """
    if not caption.strip():
        raise DataError("the caption is empty; say what the image is said to show")
    length, words = int(tokenizer.model_max_length), caption.split()
    if _count(tokenizer, caption) <= length:
        return
    kept = next(
        (k for k in range(len(words), 0, -1) if _count(tokenizer, " ".join(words[:k])) <= length), 0
    )
    raise DataError(
        f"the caption is longer than the {length} tokens that the text encoder takes: "
        f"{' '.join(words[kept:])!r} would be lost; shorten it"
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
