"""Edits, strengths, masks and groups as commands are given them; none of it needs torch."""

from __future__ import annotations

import json

import numpy as np
import pytest
from multi_edits.edits import Edit
from multi_edits.reading import (
    GivenGroup,
    find_edit,
    read_edits,
    read_groups,
    read_masks,
    wanted_edits,
)
from papercommons.errors import DataError
from PIL import Image

SOURCE = "a cat on a red chair"
EDITS = (Edit("cat", "dog", 1), Edit("red", "blue", 4), Edit("", "and a hat", 6))
RECORD = {
    "edit_action": {
        "dog": {"position": 1, "edit_type": 1, "action": "cat"},
        "wooden": {"position": 4, "edit_type": 7, "action": "+"},
    },
    "aspect_mapping": {"dog": [], "chair": ["wooden"]},
}


@pytest.fixture
def write(tmp_path):
    """Write a value as JSON and give the path; text is written as it is."""

    def write(value, name="file.json"):
        path = tmp_path / name
        path.write_text(value if isinstance(value, str) else json.dumps(value))
        return str(path)

    return write


def test_edits_come_in_four_forms(write):
    plain = [{"old": "cat", "new": "dog", "position": 1}]
    expected = [Edit("cat", "dog", 1)]
    assert read_edits(write(plain)) == expected
    assert read_edits(write({"edits": plain})) == expected
    assert read_edits(write({"rows": [], "metrics": {"edits": plain}})) == expected
    assert read_edits(write(RECORD)) == [
        Edit("cat", "dog", 1, "dog"),
        Edit("", "wooden", 4, "chair"),
    ]
    assert read_edits(write(RECORD["edit_action"]))[1].object is None


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("{", "not readable JSON"),
        ("[" * 5000, "not readable JSON"),
        ([], "edits must be a list"),
        ([{"olde": "cat"}], "edit 1: expected an object with old, new"),
        ([{"old": "cat", "strength": -1, "new": "dog"}], "edit 1: strength must be a number >= 0"),
        ({}, "expected a list of edits, or edit_action"),
        ({"edit_action": []}, "expected a list of edits, or edit_action"),
        ({"edit_action": {"dog": {"position": "x", "action": "cat"}}}, "expected position"),
        (RECORD | {"aspect_mapping": {"dog": 1}}, "aspect_mapping must be object -> list"),
        (RECORD | {"aspect_mapping": [1]}, "aspect_mapping must be object -> list"),
        ({"edits": 3}, "edits must be a list"),
    ],
)
def test_broken_files_of_edits(write, value, message):
    path = write(value)
    with pytest.raises(DataError, match=message) as caught:
        read_edits(path)
    assert str(caught.value).startswith(path)


def test_what_is_wanted_follows_from_two_prompts(write):
    wanted = wanted_edits("a [cat] on a red chair", "a [dog] on a [blue] chair", None)
    assert wanted == EDITS[:2]
    scaled = wanted_edits(SOURCE, "a dog on a blue chair", None, ["dog=0.5", "2=2"])
    assert [edit.strength for edit in scaled] == [0.5, 2.0]
    misplaced = write([{"old": "red", "new": "blue", "position": 0}])
    assert wanted_edits(SOURCE, None, misplaced) == (EDITS[1],)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((SOURCE, None, None), "either --target, a prompt, or --edits"),
        ((SOURCE, "a dog", "edits.json"), "either --target, a prompt, or --edits"),
        (("[] ", "a dog", None), "--source is empty"),
        ((SOURCE, " ", None), "--target is empty"),
        ((SOURCE, "A [cat] on a red chair", None), "no edits"),
        ((SOURCE, None, "none.json"), "none.json: no such file"),
        ((SOURCE, "a dog on a red chair", None, ["dog=0"]), "no edits: all have strength 0"),
        ((SOURCE, "a dog on a red chair", None, ["dog=x"]), "--strength dog: must be a number"),
        ((SOURCE, "a dog on a red chair", None, ["dog=nan"]), "--strength dog: must be a number"),
        ((SOURCE, "a dog on a red chair", None, ["dog"]), "--strength takes EDIT=VALUE"),
        ((SOURCE, "a dog on a red chair", None, ["dgo=1"]), "did you mean dog"),
        ((SOURCE, "a dog on a red chair", None, ["2=1"]), r"there is no edit 2: 1 \(cat -> dog\)"),
    ],
)
def test_what_cannot_be_wanted(given, message):
    with pytest.raises(ValueError, match=message):
        wanted_edits(*given)


def test_a_phrase_that_is_not_in_the_prompt_is_named(write):
    path = write([{"old": "cta", "new": "dog"}])
    with pytest.raises(DataError, match=r"'cta' is not in the prompt .*did you mean cat"):
        wanted_edits(SOURCE, None, path)


def test_an_edit_is_meant_by_number_or_phrase():
    for word in ("1", "cat", "Dog", "cat -> dog"):
        assert find_edit(EDITS, word) == 0
    assert find_edit(EDITS, "and a  hat") == 2
    with pytest.raises(DataError, match=r"may be several edits: 1 .*give its number"):
        find_edit([EDITS[0], Edit("bird", "dog", 3)], "dog")
    for word in ("0", "4"):
        with pytest.raises(DataError, match=f"no edit {word}"):
            find_edit(EDITS, word)


def test_masks_are_white_where_an_edit_may_change(tmp_path):
    pixels = np.zeros((4, 6), np.uint8)
    pixels[1:3, 2:] = 200
    for mode in ("L", "1", "RGB"):
        Image.fromarray(pixels).convert(mode).save(tmp_path / f"{mode}.png")
        (mask,) = read_masks([f"2={tmp_path / mode}.png"], EDITS, (6, 4)).values()
        if mode != "1":  # which dithers
            assert (mask == (pixels > 127)).all()
        assert mask.shape == (4, 6)
    path = tmp_path / "L.png"
    with pytest.raises(DataError, match="6 x 4 pixels and the image 4 x 6"):
        read_masks([f"dog={path}"], EDITS, (4, 6))
    with pytest.raises(ValueError, match=r"edit 1 \(cat -> dog\) has two masks"):
        read_masks([f"dog={path}", f"1={path}"], EDITS, (6, 4))
    with pytest.raises(DataError, match="no such file"):
        read_masks(["dog=none.png"], EDITS, (6, 4))
    Image.fromarray(pixels * 0).save(path)
    with pytest.raises(DataError, match="marks nothing"):
        read_masks([f"dog={path}"], EDITS, (6, 4))


def test_groups_are_numbered_from_one(write, tmp_path):
    groups = [{"kind": "rigid", "edits": [2, 1]}, {"kind": "global", "edits": [3], "area": 0.9}]
    expected = [GivenGroup("rigid", (1, 0)), GivenGroup("global", (2,), None, 0.9)]
    assert read_groups(write(groups), EDITS) == expected
    write({"metrics": {"groups": groups}}, "result.json")
    assert read_groups(tmp_path, EDITS) == expected
    without = (*EDITS[:2], Edit("", "and a hat", 6, strength=0.0))
    assert read_groups(write(groups), without) == expected[:1]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"metrics": 3}, "expected a list of groups"),
        ({}, "expected a list of groups"),
        ([3], "group 1: kind must be rigid, non-rigid, global"),
        ([{"kind": "soft", "edits": [1, 2, 3]}], "group 1: kind must be"),
        ([{"kind": ["rigid"], "edits": [1, 2, 3]}], "group 1: kind must be"),
        ([{"kind": "rigid", "edits": ["dog"]}], "edits must be a list of numbers"),
        ([{"kind": "rigid", "edits": [True, 2, 3]}], "edits must be a list of numbers"),
        ([{"kind": "rigid", "edits": [1, 2, 3], "area": "x"}], "must be numbers"),
        ([{"kind": "rigid", "edits": [1, 2, 2]}], "hold the edits 1, 2, 2, and there are"),
        ([{"kind": "rigid", "edits": [0, 1, 2]}], "hold the edits 0, 1, 2"),
        ([{"kind": "rigid", "edits": [1, 2, 3, 4]}], "hold the edits 1, 2, 3, 4"),
    ],
)
def test_broken_groups(write, value, message):
    with pytest.raises(DataError, match=message):
        read_groups(write(value), EDITS)


def test_a_group_has_one_strength(write):
    path = write([{"kind": "rigid", "edits": [1, 2]}])
    edits = (EDITS[0], Edit("red", "blue", 4, strength=0.5))
    with pytest.raises(DataError, match=r"several strengths \(cat -> dog: 1, red -> blue: 0.5\)"):
        read_groups(path, edits)
