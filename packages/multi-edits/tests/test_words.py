"""Words and their tokens, with a small vocabulary and with CLIP's own."""

from __future__ import annotations

import gzip
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from multi_edits.words import find_phrase, strip_brackets, tokenize
from papercommons.errors import DataError


def test_words_of_several_tokens_and_repeated_words(tokenizer):
    prompt = tokenize("a dog left of a dog", tokenizer)
    dog = len(tokenizer("dog", add_special_tokens=False)["input_ids"])
    assert dog == 3
    assert prompt.spans == ((1, 2), (2, 5), (5, 6), (6, 7), (7, 8), (8, 11))
    assert prompt.tokens_of(3, 3) == [6, 7, 8, 9, 10]
    assert prompt.tokens_of(3, 0) == []
    assert list(prompt.ids) == tokenizer("a dog left of a dog")["input_ids"]


def test_case_and_spaces_do_not_matter(tokenizer):
    assert tokenize(" A  Red circle", tokenizer).ids == tokenize("a red circle", tokenizer).ids


def test_a_prompt_that_would_be_cut_is_refused_with_the_loss(tokenizer):
    with pytest.raises(DataError, match=r"has 27 tokens .* takes 24: 3 would be cut off"):
        tokenize(" ".join(["red"] * 25), tokenizer)
    assert tokenize(" ".join(["red"] * 22), tokenizer).length == 24


def test_no_words(tokenizer):
    assert tokenize("", tokenizer).spans == ()


def clip_tokenizer(folder):
    """Return CLIP's own tokenizer, made of the merges that open_clip ships."""
    place = importlib.util.find_spec("open_clip")
    if place is None:
        pytest.skip("open_clip_torch is not installed")
    transformers = pytest.importorskip("transformers")
    with gzip.open(Path(place.submodule_search_locations[0]) / "bpe_simple_vocab_16e6.txt.gz") as f:
        merges = f.read().decode().split("\n")[1 : 49152 - 256 - 2 + 1]
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = [*map(chr, printable), *(chr(256 + k) for k in range(256 - len(printable)))]
    words = [*letters, *(c + "</w>" for c in letters), *("".join(m.split()) for m in merges)]
    vocabulary = {word: k for k, word in enumerate([*words, "<|startoftext|>", "<|endoftext|>"])}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]))
    return transformers.CLIPTokenizer.from_pretrained(folder, model_max_length=77)


def test_words_as_the_reference_finds_them_with_clip_tokens(shared_files, tmp_path):
    tokenizer = clip_tokenizer(tmp_path)
    cases = json.loads((shared_files / "parity/multi-edits/aligner_cases.json").read_text())
    with np.load(shared_files / "parity/multi-edits/aligner.npz") as file:
        ids = {case["index"]: file[f"{case['index']}_tgt_ids"].tolist() for case in cases}
    for case in cases:
        prompt = tokenize(case["target"], tokenizer)
        assert list(prompt.ids) == ids[case["index"]]
        found: dict[str, list[int]] = {}
        for k, word in enumerate(prompt.words):
            found.setdefault(word, []).extend(prompt.tokens_of(k, 1))
        assert found == case["target_word_token_indices"]


def test_brackets_go_and_spaces_become_single():
    assert strip_brackets(" a [red][dog], [on a] chair ") == "a red dog, on a chair"


def test_phrases_are_whole_words():
    words = ["a", "category", "of", "the", "cat", "and", "a", "Cat"]
    assert find_phrase(words, ["cat"]) == 4
    assert find_phrase(words, ["cat"], near=7) == 7
    assert find_phrase(words, ["of", "the"]) == 2
    with pytest.raises(DataError, match=r"'cats' is not in the prompt .* did you mean cat or Cat"):
        find_phrase(words, ["cats"])
    with pytest.raises(DataError, match="empty phrase"):
        find_phrase(words, [])
