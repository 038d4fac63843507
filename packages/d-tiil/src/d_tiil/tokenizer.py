"""A CLIP tokenizer for a handful of words."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable

from papercommons.text_to_image.vocabulary import write_vocabulary
from transformers import CLIPTokenizer


def make_tokenizer(words: Iterable[str], max_length: int) -> CLIPTokenizer:
    """Return a tokenizer with one token per word of `words`; others fall apart into letters.

    Args:
        words: lower case, ASCII letters and digits.
        max_length: tokens of a prompt, start and end with it, >= 3.

    Raises:
        ValueError: a word with other characters, or max_length < 3.
    """
    if max_length < 3:
        raise ValueError(f"max_length must be >= 3, got {max_length}")
    with tempfile.TemporaryDirectory() as folder:  # transformers 4 and 5 both read files
        write_vocabulary(words, folder)
        return CLIPTokenizer.from_pretrained(folder, model_max_length=max_length)
