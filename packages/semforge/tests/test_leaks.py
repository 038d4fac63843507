from __future__ import annotations

from pathlib import Path

import pytest
from papercommons.errors import DataError
from semforge.entries import Entry
from semforge.leaks import check_leaks, find_leaks, hold_out


def entry(name, fake=0, video="", who=()):
    return Entry(Path("/nowhere") / name, (fake,), name, video, identity=tuple(who))


def test_files_videos_and_people_are_found():
    train = [entry("a.png"), entry("v/0.png", video="v.mp4"), entry("x.png", who=["ann"])]
    test = [
        entry("a.png"),
        entry("w/0.png", video="other/v.mp4"),
        entry("y.png", who=["bob", "ann"]),
    ]
    assert find_leaks({"train": train, "val": [], "test": test}) == {
        "train and test": ["file /nowhere/a.png", "identity ann", "video v"]
    }
    with pytest.raises(DataError, match=r"train and test share 3 .*identity ann.*--allow-leak"):
        check_leaks({"train": train, "test": test})
    assert check_leaks({"train": train, "test": test}, allow=True) == {"train and test": 3}
    assert check_leaks({"train": train, "test": [entry("z.png")]}) == {}


def test_known_people_count_instead_of_names_of_videos():
    one = entry("a", video="a/0001.mp4", who=["ann"])
    other = entry("b", video="b/0001.mp4", who=["bob"])
    assert find_leaks({"train": [one], "test": [other]}) == {}


@pytest.mark.parametrize("seed", range(5))
def test_what_belongs_together_is_held_out_together(seed):
    entries = [
        entry(f"{person}-{k}.png", fake=k % 2, who=[person, *(["swap"] if person in "ab" else [])])
        for person in "abcdefghij"
        for k in range(4)
    ]
    left, held = hold_out(entries, 0.3, seed=seed)
    assert sorted(e.name for e in left + held) == sorted(e.name for e in entries)
    assert find_leaks({"train": left, "val": held}) == {}
    assert len({e.identity[0] for e in held}) in (3, 4)  # a and b are one group of nine
    assert hold_out(entries[::-1], 0.3, seed=seed)[1] == [e for e in entries[::-1] if e in held]


def test_both_classes_are_held_out():
    entries = [entry(f"r{k}.png") for k in range(30)] + [entry(f"f{k}.png", 1) for k in range(10)]
    left, held = hold_out(entries, 0.1)
    assert sum(e.label[0] == 0 for e in held) == 3
    assert sum(e.label[0] == 1 for e in held) == 1
    assert len(left) == 36


def test_one_group_cannot_be_divided():
    with pytest.raises(DataError, match=r"none can be held out; give --val"):
        hold_out([entry("a", who=["x"]), entry("b", 1, who=["x"])], 0.5)
    with pytest.raises(DataError, match="none can be held out"):  # a class would be lost
        hold_out([entry("a"), entry("b", 1)], 0.5)
