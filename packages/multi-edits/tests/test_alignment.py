"""Tokens of two prompts: alignment, similarity, and the mixes of attention."""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from multi_edits.alignment import align, alignment_table, link_similar, refine_mix, replace_mix
from multi_edits.words import TokenizedPrompt


@pytest.fixture(scope="module")
def cases(data):
    with np.load(data / "aligner.npz") as file:
        arrays = {name: file[name] for name in file.files}
    listed = json.loads((data / "aligner_cases.json").read_text())
    return {
        case["index"]: {
            k.split("_", 1)[1]: v
            for k, v in arrays.items()
            if int(k.split("_")[0]) == case["index"]
        }
        for case in listed
    }


def check(case):
    """Assert that a case of the reference comes out the same."""
    source, target = case["src_ids"].tolist(), case["tgt_ids"].tolist()
    score, moves = alignment_table(source, target)
    assert score == case["nw_matrix"].tolist()
    assert moves == case["nw_trace"].tolist()
    partner = align(source, target)
    assert partner == case["nw_pairs"][:, 1].tolist()
    states = torch.from_numpy(case["src_embeds"]), torch.from_numpy(case["tgt_embeds"])
    linked = link_similar(partner, *states, compat=True)
    mix = refine_mix(linked, 77)
    known = [t for t, s in enumerate(linked) if s >= 0]
    assert [linked[t] for t in known] == case["mapper"][known].tolist()
    assert torch.equal(1 - mix.own, torch.from_numpy(case["alphas"]))


@pytest.mark.parametrize("index", [0, 2, 3, 5, 7])
def test_alignment_as_in_the_reference(cases, index):
    check(cases[index])


def test_every_alignment_of_the_reference(shared_files):
    with np.load(shared_files / "parity/multi-edits/aligner.npz") as file:
        arrays = {name: file[name] for name in file.files}
    for index in range(12):
        prefix = f"{index}_"
        check({k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)})


def test_the_most_alike_tokens_of_a_run_are_linked():
    partner = align([0, 5, 6, 9], [0, 7, 8, 9])
    assert partner == [0, -1, -1, 3]
    source, target = torch.eye(4), torch.eye(4)[[0, 2, 3, 1]]  # target 1 is like source 2
    assert link_similar(partner, source, target) == [0, 2, -1, 3]
    assert link_similar(partner, source, target, compat=True) == [0, -1, 1, 3]


def test_new_tokens_without_a_gap_before_stay_unlinked():
    partner = align([0, 5, 9], [0, 5, 7, 9])
    assert link_similar(partner, torch.eye(4), torch.eye(4)) == [0, 1, -1, 2]


@given(
    source=st.lists(st.integers(0, 4), max_size=8), target=st.lists(st.integers(0, 4), max_size=8)
)
def test_alignment_is_the_longest_common_subsequence(source, target):
    partner = align(source, target)
    kept = [s for s in partner if s >= 0]
    assert kept == sorted(set(kept))
    assert all(source[s] == target[t] for t, s in enumerate(partner) if s >= 0)
    best = [[0] * (len(target) + 1) for _ in range(len(source) + 1)]
    for s, a in enumerate(source, 1):
        for t, b in enumerate(target, 1):
            best[s][t] = max(best[s - 1][t], best[s][t - 1], best[s - 1][t - 1] + (a == b))
    assert len(kept) == best[-1][-1]


def probabilities(seed, length=10):
    return torch.randn(3, 5, length, generator=torch.Generator().manual_seed(seed)).softmax(-1)


@given(partner=st.lists(st.integers(-1, 9), min_size=1, max_size=10, unique=True))
def test_refining_takes_linked_columns_and_keeps_the_others(partner):
    before, own = probabilities(0), probabilities(1)
    mixed = refine_mix(partner, 10)(before, own)
    for j, s in enumerate([*partner, *range(len(partner), 10)]):
        assert torch.equal(mixed[..., j], own[..., j] if s < 0 else before[..., s])


def test_no_link_is_own_attention_and_the_same_prompt_that_before():
    before, own = probabilities(0), probabilities(1)
    assert torch.equal(refine_mix([-1] * 10, 10)(before, own), own)
    assert torch.equal(refine_mix(list(range(10)), 10)(before, own), before)


def prompt(*lengths, size=10):
    """Return a prompt whose words have these numbers of tokens, after a start token."""
    ends = np.cumsum([1, *lengths]).tolist()
    spans = tuple(pairwise(ends))
    return TokenizedPrompt(("w",) * len(lengths), tuple(range(ends[-1] + 1)), spans, size)


def test_words_of_equal_length_are_replaced_one_to_one():
    mix = replace_mix(prompt(1, 2, 1), prompt(1, 2, 1))
    assert torch.equal(mix.matrix, torch.eye(10))
    assert mix.replace


def test_words_of_other_lengths_share_and_later_words_move():
    before, after = prompt(1, 1, 1), prompt(1, 2, 1)
    attention = probabilities(0)
    mixed = replace_mix(before, after)(attention, attention)
    assert torch.equal(mixed[..., 1], attention[..., 1])
    for j in (2, 3):
        torch.testing.assert_close(mixed[..., j], attention[..., 2] / 2)
    assert torch.equal(mixed[..., 4], attention[..., 3])
    with pytest.raises(ValueError, match="equally many words, got 3 and 2"):
        replace_mix(before, prompt(1, 1))
