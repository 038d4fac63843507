"""Words by their places."""

from __future__ import annotations

import pytest
from d_tiil.phrases import Phrase
from d_tiil.word_spans import (
    caption_tokens,
    changed_words,
    find_word,
    marked,
    read_words,
    tokens_at,
)
from hypothesis import given
from hypothesis import strategies as st
from papercommons.errors import DataError

TEXT = "The Mayor of Paris, and the mayor's wife; Mayor-elect"


def test_words_are_found_whole_and_in_any_case():
    assert [place.start for place in find_word(TEXT, "mayor")] == [4, 28, 42]
    assert [place.text for place in find_word("a  Red\ttruck", "red truck")] == ["Red\ttruck"]
    assert find_word("cart", "art") == find_word(TEXT, "  ") == ()
    assert [place.text for place in find_word("5 (five) eggs", "(five)")] == ["(five)"]


@given(st.text(max_size=40), st.text(max_size=5))
def test_found_words_are_where_they_are_said_to_be(caption, word):
    for place in find_word(caption, word):
        assert caption[place.start : place.end] == place.text
        assert place.text.split()
    tokens = caption_tokens(caption)
    assert [token.text for token in tokens] == caption.split()
    assert all(marked(tokens, tokens))


def test_positions_count_what_white_space_parts():
    caption = "British citizens David and Marco in Australia celebrate the day before an event"
    assert [token.text for token in tokens_at(caption, [7, 12, 7])] == ["celebrate", "event"]
    assert tokens_at(caption, []) == ()
    for positions in ([13], [-1]):
        with pytest.raises(DataError, match="of 13 words"):
            tokens_at(caption, positions)


def test_words_of_a_set():
    assert read_words(TEXT, "paris") == (Phrase("Paris", 13, 18),)
    assert read_words(TEXT, [[13, 18], "wife", [13, 18]]) == (
        Phrase("Paris", 13, 18),
        Phrase("wife", 36, 40),
    )
    for given_words, why in (
        ("London", "not in the caption"),
        ([[0, 99]], "not within"),
        ([[3, 3]], "not within"),
        ([True], "no word"),
        ([[True, 3]], "no word"),
    ):
        with pytest.raises(DataError, match=why):
            read_words(TEXT, given_words)


def test_changed_words():
    found = changed_words("a red circle on a white wall", "a blue circle on a black wall")
    assert [(word.text, word.start) for word in found] == [("red", 2), ("white", 18)]
    assert marked(caption_tokens("a red, hat"), [Phrase("red", 2, 5)]) == [False, True, False]
    with pytest.raises(ValueError, match="cannot be compared"):
        changed_words("a red circle", "a circle")
