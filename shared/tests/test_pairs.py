from __future__ import annotations

import csv
import gzip
import importlib
import itertools
import logging
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from papercommons.data.pairs import make_pairs, read_pairs, write_pairs
from papercommons.data.word_layouts import WordFile
from papercommons.data.words import Words, open_words, split_words
from papercommons.errors import DataError


def words_of(writers, hashes=None):
    """Words by these writers, without images; each of its own content unless hashes say else."""
    hashes = hashes or [f"hash {n}" for n in range(len(writers))]
    named = zip(writers, hashes, strict=True)
    files = [
        WordFile(f"{n:03d}.png", writer, Path("x"), sha256=digest)
        for n, (writer, digest) in enumerate(named)
    ]
    return Words(Path("words"), files, {})


def as_set(pairs):
    return {frozenset(pair) for pair in zip(pairs.left.tolist(), pairs.right.tolist(), strict=True)}


@given(writers=st.text("abcd", min_size=4, max_size=24), seed=st.integers(0, 99))
def test_all_pairs_of_one_writer_and_as_many_of_two(writers, seed):
    writers = "aab" + writers
    words = words_of(writers)
    pairs = make_pairs(words, range(len(writers)), seed=seed)
    same = pairs.take(pairs.same == 1)
    expected = {
        frozenset((i, j))
        for i, j in itertools.combinations(range(len(writers)), 2)
        if writers[i] == writers[j]
    }
    assert as_set(same) == expected
    assert len(same) == len(expected) == len(pairs) - len(same)
    agree = [writers[i] == writers[j] for i, j in zip(pairs.left, pairs.right, strict=True)]
    np.testing.assert_array_equal(pairs.same, agree)
    np.testing.assert_array_equal(pairs.left[pairs.same == 0], same.left)  # the anchors
    assert {a.dtype for a in (pairs.left, pairs.right, pairs.same)} == {np.dtype(np.int64)}


def test_the_other_writer_is_drawn_evenly():
    words = words_of("b" + "a" * 40 + "c" * 3)
    pairs = make_pairs(words, range(44))
    others = pairs.right[(pairs.same == 0) & (pairs.left > 0) & (pairs.left < 41)]
    counts = np.bincount(others, minlength=44)[[0, 41, 42, 43]]
    assert counts.sum() == 780
    assert (abs(counts - 195) < 50).all()


def test_seeds_and_order_of_the_indices():
    words = words_of("abcabcabc")
    first = make_pairs(words, range(9), seed=3)
    again = make_pairs(words, reversed(range(9)), seed=3)
    np.testing.assert_array_equal(first.right, again.right)
    assert (make_pairs(words, range(9), seed=4).right != first.right).any()


def test_at_most_some_pairs_per_writer():
    words = words_of("a" * 10 + "b" * 3 + "c")
    pairs = make_pairs(words, range(14), max_per_writer=5)
    same = pairs.take(pairs.same == 1)
    writers = np.array(words.writers)[same.left]
    assert (writers == "a").sum() == 5
    assert (writers == "b").sum() == 3
    assert len(as_set(same)) == 8
    assert as_set(same) != as_set(
        make_pairs(words, range(14), max_per_writer=5, seed=1).take(np.arange(8))
    )


def test_images_that_are_there_twice_take_no_part():
    words = words_of("aaabbb", ["x", "x", "y", "z", "u", "v"])
    assert 1 not in np.concatenate(list(as_arrays(make_pairs(words, range(6)))))
    kept = make_pairs(words, range(6), drop_duplicates=False)
    assert 1 in np.concatenate(list(as_arrays(kept)))


def as_arrays(pairs):
    return pairs.left, pairs.right


def test_writers_with_one_image_are_counted(caplog):
    with caplog.at_level(logging.WARNING, logger="papercommons"):
        make_pairs(words_of("aabbcd"), range(6))
    assert "2 of 4 writers have one image only" in caplog.text


@pytest.mark.parametrize("writers", ["aaa", "abc", ""])
def test_too_few_for_pairs(writers):
    with pytest.raises(DataError, match=f"{len(writers)} images by .* make no pairs"):
        make_pairs(words_of(writers), range(len(writers)))


def test_max_per_writer_is_checked():
    with pytest.raises(ValueError, match="max_per_writer must be >= 1, got 0"):
        make_pairs(words_of("aab"), range(3), max_per_writer=0)


@pytest.mark.parametrize("name", ["p.csv", "p.csv.gz", "p.parquet"])
def test_what_is_written_is_read(tmp_path, name):
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    words = words_of("aabbc")
    pairs = make_pairs(words, range(5))
    write_pairs(tmp_path / name, pairs, words)
    again = read_pairs(tmp_path / name, words)
    for ours, theirs in zip(as_arrays(pairs), as_arrays(again), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(pairs.same, again.same)
    before = (tmp_path / name).read_bytes()
    write_pairs(tmp_path / name, pairs, words)
    assert (tmp_path / name).read_bytes() == before


def test_both_styles_of_columns_and_more_of_them(tmp_path):
    words = words_of("aab")
    path = tmp_path / "p.csv"
    for text in (
        "left,right,label\n000.png,001.png,1\n000.png,002.png,0\n",
        ",left,right,label\n0,000.png,001.png,1\n1,000.png,002.png,0.0\n",
        "label,sample2,sample1\r\n1, 001.png,000.png\r\n\r\n0,002.png,000.png\r\n",
        "\ufeffleft,right,label\n000.png,001.png,1\n000.png,002.png,0\n",
    ):
        path.write_text(text, encoding="utf-8", newline="")
        pairs = read_pairs(path, words)
        assert (pairs.left.tolist(), pairs.right.tolist()) == ([0, 0], [1, 2])
        assert pairs.same.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("left,right\n000.png,001.png\n", "expected columns left,right,label or sample1,.* got le"),
        ("", "expected columns"),
        ("left,right,label\n", "holds no pairs"),
        ("left,right,label\n000.png,001.png\n", "'000.png,001.png' has too few columns"),
        ("left,right,label\n000.png,009.png,1\n", r"names what is not there: words: no image '009"),
        ("left,right,label\n000.png,001.png,2\n", "label '2' in row 1; expected 0 or 1"),
        ("left,right,label\n000.png,001.png,\n", "label '' in row 1"),
        ("left,right,label\n000.png,000.png,1\n", "row 1: 000.png is paired with itself"),
        (
            "left,right,label\n000.png,001.png,1\n000.png,002.png,1\n000.png,001.png,0\n",
            r"row 2: 000\.png and 002\.png have a label that does not agree .*; 2 such rows",
        ),
    ],
)
def test_bad_lists_are_named(tmp_path, text, message):
    path = tmp_path / "p.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_pairs(path, words_of("aab"))


def test_unreadable_lists(tmp_path):
    words = words_of("aab")
    with pytest.raises(DataError, match="no such file"):
        read_pairs(tmp_path / "absent.csv", words)
    for name, content in (
        ("p.csv", b"left,right,label\n\xff\xfe,a,1\n"),
        ("p.csv.gz", b"no gzip"),
        ("q.csv.gz", gzip.compress(b"left,right,label\n" * 999)[:40]),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match="not a readable csv"):
            read_pairs(tmp_path / name, words)
    (tmp_path / "p.txt").write_text("x")
    with pytest.raises(DataError, match=r"expected \.csv, \.csv\.gz or \.parquet"):
        read_pairs(tmp_path / "p.txt", words)
    with pytest.raises(DataError, match=r"expected \.csv"):
        write_pairs(tmp_path / "out.txt", make_pairs(words, range(3)), words)


def test_parquet_without_pyarrow_says_so(tmp_path, monkeypatch):
    def absent(name):
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", absent)
    (tmp_path / "p.parquet").write_bytes(b"x")
    with pytest.raises(DataError, match="parquet needs pyarrow"):
        read_pairs(tmp_path / "p.parquet", words_of("aab"))


def test_broken_parquet(tmp_path):
    pytest.importorskip("pyarrow")
    (tmp_path / "p.parquet").write_bytes(b"no parquet")
    with pytest.raises(DataError, match="not a readable parquet"):
        read_pairs(tmp_path / "p.parquet", words_of("aab"))


def test_pairs_with_images_that_are_there_twice_are_dropped(tmp_path, caplog):
    words = words_of("aabb", ["x", "y", "z", "z"])
    path = tmp_path / "p.csv"
    path.write_text("left,right,label\n000.png,001.png,1\n000.png,003.png,0\n")
    with caplog.at_level(logging.WARNING, logger="papercommons"):
        assert read_pairs(path, words).same.tolist() == [1]
    assert "1 pairs hold an image that is there twice" in caplog.text
    assert read_pairs(path, words, drop_duplicates=False).same.tolist() == [1, 0]


def test_the_published_lists_of_cedar(shared_files):
    root = shared_files / "data" / "cedar-and"
    words = open_words(root)
    unseen = read_pairs(root / "pairs_unseen_val.csv", words)
    assert (len(unseen), unseen.same.sum()) == (6680, 3302)
    seen = read_pairs(root / "pairs_seen_val.csv", words, drop_duplicates=False)
    assert len(seen) == 824
    with gzip.open(root / "pairs_shuffled_train.csv.gz", "rt") as file:
        count = sum(1 for _ in csv.reader(file)) - 1
    train = read_pairs(root / "pairs_shuffled_train.csv.gz", words, drop_duplicates=False)
    assert len(train) == count == 93785
    # all pairs of one writer: the same as the published list has
    made = make_pairs(words, split_words(words)["test"])
    assert as_set(made.take(made.same == 1)) == as_set(unseen.take(unseen.same == 1))
    everything = open_words(root, variant="all")
    test = split_words(everything, "paper")["test"]
    assert len(make_pairs(everything, test, drop_duplicates=False)) == 32428


def test_a_packed_list_of_gigabytes_is_not_unpacked(tmp_path):
    path = tmp_path / "pairs.csv.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(b"left,right,label\n")
        for _ in range(140):
            file.write(b"000.png,001.png,1\n" * 60_000)
    with pytest.raises(DataError, match="more than 128 MiB; split it"):
        read_pairs(path, words_of("aab"))
    path.write_bytes(path.read_bytes()[:15] + b"\xff" * 100)
    with pytest.raises(DataError, match="not a readable csv"):
        read_pairs(path, words_of("aab"))


def test_a_parquet_of_very_many_rows_is_not_unpacked(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    index = pyarrow.array(np.zeros(2_000_001, np.int8))
    column = pyarrow.DictionaryArray.from_arrays(index, ["000.png"])
    names = ("left", "right", "label")
    parquet.write_table(pyarrow.table(dict.fromkeys(names, column)), tmp_path / "pairs.parquet")
    with pytest.raises(DataError, match="more than 2,000,000 rows"):
        read_pairs(tmp_path / "pairs.parquet", words_of("aab"))
