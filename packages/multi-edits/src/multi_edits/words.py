"""Words of a prompt and the tokens that stand for them, for any tokenizer of transformers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from papercommons.errors import DataError, nearest


@dataclass(frozen=True)
class TokenizedPrompt:
    """A prompt's tokens, word by word.

    Attributes:
        words: separated by white space.
        ids: of all tokens with the special ones at both ends, without padding.
        spans: for each word its tokens' positions, first and one past the last.
        length: how many tokens the text encoder takes, padding included.
    """

    words: tuple[str, ...]
    ids: tuple[int, ...]
    spans: tuple[tuple[int, int], ...]
    length: int

    def tokens_of(self, first: int, count: int) -> list[int]:
        """Return the token positions of `count` words from word `first` on."""
        if count == 0:
            return []
        return list(range(self.spans[first][0], self.spans[first + count - 1][1]))


def tokenize(prompt: str, tokenizer: Any) -> TokenizedPrompt:
    """Return a prompt's tokens and which of them stand for which word.

    Every word is tokenized alone and found in the whole prompt's tokens, so that words of several
    tokens, repeated words and those with punctuation are right.

    Args:
        prompt: text without brackets; see `strip_brackets`.
        tokenizer: a tokenizer of transformers, slow or fast.

    Raises:
        DataError: the prompt is longer than the text encoder takes, or its words' tokens are not
            those of the whole.
    """
    words = tuple(prompt.split())
    text = " ".join(words)
    whole = _ids(tokenizer, text, special=True)
    length = int(tokenizer.model_max_length)
    if len(whole) > length:
        raise DataError(
            f"the prompt {text!r} has {len(whole)} tokens and the text encoder takes {length}: "
            f"{len(whole) - length} would be cut off; shorten it"
        )
    plain = _ids(tokenizer, text, special=False)
    place = next((k for k in range(len(whole)) if whole[k : k + len(plain)] == plain), 0)
    spans = []
    for word in words:
        ids = _ids(tokenizer, word, special=False)
        if whole[place : place + len(ids)] != ids:
            raise DataError(
                f"{word!r} has other tokens alone than in the prompt {text!r}; "
                "a tokenizer that keeps words apart is needed"
            )
        spans.append((place, place + len(ids)))
        place += len(ids)
    return TokenizedPrompt(words, tuple(whole), tuple(spans), length)


def _ids(tokenizer: Any, text: str, *, special: bool) -> list[int]:
    # verbose: the length is checked above, in words that say what would be lost
    return list(tokenizer(text, add_special_tokens=special, verbose=False)["input_ids"])


def strip_brackets(prompt: str) -> str:
    """Return a prompt without the square brackets that mark changed words, spaces made single.

    Example:
        >>> strip_brackets("a [red] [dog] on a chair")
        'a red dog on a chair'
    """
    return " ".join(prompt.replace("][", " ").replace("[", "").replace("]", "").split())


def find_phrase(words: Sequence[str], phrase: Sequence[str], *, near: int = 0) -> int:
    """Return where a phrase begins among words; case does not count.

    Args:
        words: of a prompt.
        phrase: its words, at least one.
        near: if it occurs more than once, the occurrence closest to this word is meant.

    Raises:
        DataError: it does not occur as whole words.
    """
    wanted = [word.casefold() for word in phrase]
    lower = [word.casefold() for word in words]
    if not wanted:
        raise DataError("an empty phrase cannot be looked for")
    found = [k for k in range(len(lower)) if lower[k : k + len(wanted)] == wanted]
    if found:
        return min(found, key=lambda k: abs(k - near))
    windows = dict.fromkeys(" ".join(words[k : k + len(wanted)]) for k in range(len(words)))
    text = " ".join(phrase)
    raise DataError(f"{text!r} is not in the prompt {' '.join(words)!r}{nearest(text, windows)}")
