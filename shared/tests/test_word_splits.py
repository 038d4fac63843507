from __future__ import annotations

import logging
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from papercommons.data.word_layouts import WordFile
from papercommons.data.words import (
    Words,
    check_disjoint,
    first_writers,
    hold_out_writers,
    open_words,
    split_words,
)
from papercommons.errors import DataError


def words_of(writers, published=None):
    """Words by these writers, without images."""
    files = [WordFile(f"{n:05d}.png", writer, Path("x")) for n, writer in enumerate(writers)]
    return Words(Path("words"), files, published or {})


def written_by(words, indices):
    return {words.writers[index] for index in indices}


def test_published_splits_test_on_val_and_never_train_on_it():
    words = words_of("aabbc", {"seen": {"train": [0, 1, 2, 3], "val": [3, 4]}})
    assert split_words(words, "seen") == {"train": [0, 1, 2], "test": [3, 4]}


def test_a_folder_with_three_parts_keeps_them():
    words = words_of("abc", {"published": {"train": [0], "val": [1], "test": [2]}})
    assert split_words(words, "published") == {"train": [0], "val": [1], "test": [2]}


def test_paper_takes_the_last_writers():
    words = words_of([f"{n % 1551:04d}" for n in range(3102)])
    parts = split_words(words, "paper")
    assert written_by(words, parts["test"]) == {f"{n:04d}" for n in range(1551 - 368, 1551)}
    assert len(parts["train"]) + len(parts["test"]) == 3102


def test_writers_are_split_whole_and_the_same_each_time():
    words = words_of([f"w{n // 3}" for n in range(300)])
    parts = split_words(words, "writers")
    assert not written_by(words, parts["train"]) & written_by(words, parts["test"])
    assert 30 < len(parts["test"]) < 90
    assert split_words(words, "writers") == parts
    assert split_words(words, "writers", seed=1) != parts
    assert len(split_words(words, "writers", share=0.5)["test"]) > len(parts["test"])


def test_unknown_and_empty_splits_are_named():
    words = words_of("aab", {"unseen": {"train": [0], "val": []}})
    with pytest.raises(DataError, match=r"no split 'unsen', it has unseen, paper, writers; did"):
        split_words(words, "unsen")
    with pytest.raises(DataError, match="test of split unseen is empty"):
        split_words(words, "unseen")
    with pytest.raises(DataError, match="train of split seen is empty"):
        split_words(words_of("ab", {"seen": {"train": [0, 1], "val": [0, 1]}}), "seen")


def test_writers_in_both_parts_are_named(caplog):
    words = words_of("aabbcc")
    assert check_disjoint(words, [0, 1], [2, 5]) == []
    with pytest.raises(DataError, match=r"2 writers are in both train and test \(a, b\)"):
        check_disjoint(words, [0, 2, 4], [1, 3])
    with caplog.at_level(logging.WARNING, logger="papercommons"):
        assert check_disjoint(words, [0], [1], allow=True) == ["a"]
    assert "nothing about new writers" in caplog.text


@given(count=st.integers(4, 60), share=st.floats(0.01, 0.99), seed=st.integers(0, 9))
def test_held_out_writers(count, share, seed):
    words = words_of([f"w{n % count}" for n in range(2 * count)])
    rest, dev = hold_out_writers(words, range(2 * count), share=share, seed=seed)
    assert sorted(rest + dev) == list(range(2 * count))
    assert not written_by(words, rest) & written_by(words, dev)
    held = len(written_by(words, dev))
    assert 2 <= held <= count - 2
    assert held in (round(share * count), 2, count - 2)
    assert (rest, dev) == hold_out_writers(words, range(2 * count), share=share, seed=seed)


def test_another_seed_holds_out_others():
    words = words_of([f"w{n}" for n in range(50)])
    drawn = [hold_out_writers(words, range(50), seed=seed)[1] for seed in (0, 1)]
    assert drawn[0] != drawn[1]


def test_holding_out_needs_four_writers():
    with pytest.raises(DataError, match="writers: 3; at least 4 are needed"):
        hold_out_writers(words_of("abc"), [0, 1, 2])
    with pytest.raises(ValueError, match=r"share must be in \(0, 1\), got 1"):
        hold_out_writers(words_of("abcd"), [0, 1, 2, 3], share=1)


def test_first_writers_are_the_first_by_id():
    words = words_of([f"{n:02d}" for n in reversed(range(39))])
    chosen = first_writers(words, range(39), 0.1)
    assert written_by(words, chosen) == {"00", "01", "02"}  # int(3.9)
    assert written_by(words, first_writers(words, range(39), 0.01)) == {"00", "01"}
    assert first_writers(words, range(39), 1.0) == list(range(39))
    for fraction in (0, 1.5):
        with pytest.raises(ValueError, match=r"fraction must be in \(0, 1\]"):
            first_writers(words, range(39), fraction)


def test_the_splits_of_cedar(shared_files):
    root = shared_files / "data" / "cedar-and"
    words = open_words(root)
    sizes = {
        split: [
            (len(part), len(written_by(words, part))) for part in split_words(words, split).values()
        ]
        for split in ("unseen", "seen", "shuffled")
    }
    assert sizes == {
        "unseen": [(11763, 1288), (792, 105)],
        "seen": [(11682, 1393), (871, 458)],
        "shuffled": [(10806, 1391), (1749, 696)],
    }
    parts = split_words(words, "unseen")
    assert check_disjoint(words, parts["train"], parts["test"]) == []
    tenth = first_writers(words, parts["train"], 0.1)
    assert (len(tenth), len(written_by(words, tenth))) == (1143, 128)
    everything = open_words(root, variant="all")
    parts = split_words(everything, "paper")
    assert [len(written_by(everything, part)) for part in parts.values()] == [1079, 335]
