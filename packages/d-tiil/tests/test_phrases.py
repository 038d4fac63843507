from __future__ import annotations

import pytest
import torch
from d_tiil.phrases import (
    STOP_WORDS,
    Phrase,
    content_phrases,
    content_words,
    neutralised,
    phrases_from_tags,
)
from d_tiil.word_scores import attention_scores, removal_scores, score_phrases
from hypothesis import given
from hypothesis import strategies as st

CAPTIONS = st.text(st.sampled_from("ab the of-,.'é\n"), max_size=40) | st.lists(
    st.sampled_from(["a", "The", "red", "truck", "near", "U.S.", "well-known", ",", "—", "3"])
).map(" ".join)


@given(CAPTIONS)
def test_words_and_phrases_are_parts_of_the_caption(caption):
    words, phrases = content_words(caption), content_phrases(caption)
    for part in (*words, *phrases):
        assert caption[part.start : part.end] == part.text
    assert not {word.text.casefold() for word in words} & STOP_WORDS
    joined = [word for phrase in phrases for word in content_words(phrase.text)]
    assert [word.text for word in joined] == [word.text for word in words]
    ends = [edge for phrase in phrases for edge in (phrase.start, phrase.end)]
    assert ends == sorted(ends)


def test_words_keep_apostrophes_hyphens_and_letters_of_all_languages():
    words = content_words("The U.S. mayor's well-known café (in São Paulo), 2019")
    assert [w.text for w in words] == [
        "U.S",
        "mayor's",
        "well-known",
        "café",
        "São",
        "Paulo",
        "2019",
    ]
    assert content_words("They are it") == []
    assert content_phrases("") == []


def test_phrases_end_at_punctuation():
    phrases = content_phrases("Red truck, Golden Gate Bridge and a dog")
    assert [p.text for p in phrases] == ["Red truck", "Golden Gate Bridge", "dog"]


def test_tagged_tokens_keep_the_captions_spaces():
    tokens = [("Red", "ADJ", False), ("truck", "NOUN", False), (".", "PUNCT", False)]
    assert phrases_from_tags(tokens, "Red  truck.") == [Phrase("Red  truck.", 0, 11)]
    assert phrases_from_tags(tokens) == [Phrase("Red truck .", 0, 11)]
    with pytest.raises(ValueError, match="'truck' is not in the caption after character 3"):
        phrases_from_tags(tokens, "Red car")


@given(CAPTIONS, st.sampled_from(["a", "thing", ""]))
def test_neutral_words_take_the_place_of_one_phrase(caption, neutral):
    for phrase in content_phrases(caption):
        text = neutralised(caption, phrase, neutral)
        assert text == " ".join(text.split())
        count = len(phrase.text.split()) if neutral else 0
        middle = [neutral] * count
        glued = caption[: phrase.start] + " ".join(middle) + caption[phrase.end :]
        assert text.split() == glued.split()


def test_removal_scores_are_the_errors_lost():
    errors = torch.tensor([1.0, 3.0])
    without = torch.tensor([[0.5, 1.5], [1.0, 3.0], [2.0, 4.0]])
    assert removal_scores(errors, without).tolist() == [1.0, 0.0, -1.0]


def test_attention_scores_are_the_density_in_the_region():
    region = torch.zeros(8, 8, dtype=torch.bool)
    region[:4, :4] = True
    maps = torch.zeros(4, 4, 4)
    maps[0] = 1.0  # everywhere
    maps[1, :2, :2] = 1.0  # the region alone
    maps[2, 2:] = 1.0  # elsewhere
    scores = attention_scores(maps, [[0], [1], [2], [1, 2]], region)
    torch.testing.assert_close(scores, torch.tensor([1.0, 4.0, 0.0, 4 * 4 / 12]))
    nothing = torch.zeros(8, 8, dtype=torch.bool)
    assert attention_scores(maps, [[0], [1]], nothing).tolist() == [0.0, 0.0]


def test_scores_go_with_their_phrases():
    (scored,) = score_phrases([Phrase("red", 2, 5)], torch.tensor([0.5]))
    assert scored == ("red", 2, 5, 0.5)
