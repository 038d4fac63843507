from __future__ import annotations

import logging
from pathlib import Path

import pytest
from cmdfd.entries import ClipEntry
from cmdfd.splits import check_leaks, find_leaks, split_by_identity
from hypothesis import given
from hypothesis import strategies as st
from papercommons.errors import DataError


def clip(name, fake=0, face="", voice="", **more):
    method = more.pop("method", "fake" if fake else "real")
    return ClipEntry(Path("/x") / name, fake, name, face=face, voice=voice, method=method, **more)


def test_people_genuine_clips_and_files_are_found():
    train = [clip("a", 1, "ann", "bob"), clip("b", source="s"), clip("c", people=("cem",))]
    test = [clip("d", face="bob"), clip("s2", source="s"), clip("c"), clip("e", audio=Path("/x/b"))]
    (leak,) = find_leaks({"train": train, "val": [], "test": test})
    assert (leak.one, leak.other) == ("train", "test")
    assert leak.people == ["bob"]
    assert leak.sources == ["s"]
    assert leak.files == ["/x/b", "/x/c"]
    with pytest.raises(DataError, match=r"share 1 people, 1 genuine clips and 2 files.*allow-leak"):
        check_leaks({"train": train, "test": test})


def test_a_leak_can_be_allowed(caplog):
    with caplog.at_level(logging.WARNING, "papercommons"):
        found = check_leaks({"a": [clip("x")], "b": [clip("x")], "c": [clip("y")]}, allow=True)
    assert found == {"a and b": 1}
    assert "look better than they are" in caplog.text


PEOPLE = [f"id{k:05d}" for k in range(60)]


@given(st.integers(0, 1000), st.lists(st.tuples(*[st.sampled_from(PEOPLE)] * 2), max_size=80))
def test_no_two_parts_share_anybody(seed, pairs):
    clips = [clip(f"r{who}", 0, who, who) for who in PEOPLE]
    clips += [clip(f"s{who}", 1, who, who) for who in PEOPLE]
    clips += [clip(f"f{k}", 1, *pair) for k, pair in enumerate(pairs)]
    splits, crossing = split_by_identity(clips, {"train": 0.6, "val": 0.2, "test": 0.2}, seed=seed)
    assert find_leaks(splits) == []
    kept = [entry for members in splits.values() for entry in members]
    assert sorted(e.name for e in [*kept, *crossing]) == sorted(e.name for e in clips)
    assert all(entry.face != entry.voice for entry in crossing)
    again = split_by_identity(clips[::-1], {"train": 0.6, "val": 0.2, "test": 0.2}, seed=seed)
    assert {e.name for e in again.splits["val"]} == {e.name for e in splits["val"]}


def test_what_is_left_out_is_counted():
    clips = [clip(f"r{who}", 0, who) for who in PEOPLE]
    clips += [clip(f"{a}{b}", 1, a, b, method="swap") for a in PEOPLE[:30] for b in PEOPLE[30:]]
    split = split_by_identity(clips, {"train": 0.5, "test": 0.5})
    assert len(split.crossing) == pytest.approx(450, abs=120)  # half of the pairs
    assert f"left out, for people of two splits: {len(split.crossing)} swap" in split.words


def test_without_people_the_genuine_clip_counts():
    clips = [clip(f"r{k}", 0, source=f"s{k}") for k in range(40)]
    clips += [clip(f"f{k}", 1, source=f"s{k}") for k in range(40)]
    splits = split_by_identity(clips, {"train": 0.5, "test": 0.5}).splits
    assert find_leaks(splits) == []
    assert {e.name[1:] for e in splits["test"] if e.entire} == {
        e.name[1:] for e in splits["test"] if not e.entire
    }


def test_a_part_of_one_class_is_refused():
    clips = [clip("r", 0, "ann"), clip("f", 1, "bob"), clip("g", 1, "cem"), clip("h", 1, "dan")]
    with pytest.raises(DataError, match=r"not of both classes|would be empty"):
        split_by_identity(clips, {"train": 0.5, "test": 0.5})
    for seed in range(9):
        with pytest.raises(DataError, match=r"would get 0 clips; 1 have|would be empty"):
            split_by_identity([clip("r", 0, "ann", "bob")], {"train": 0.5, "test": 0.5}, seed=seed)
    with pytest.raises(ValueError, match="sum to 1"):
        split_by_identity(clips, {"train": 0.5, "test": 0.4})
