"""Edits derived from two prompts, made word by word, and read from JSON."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multi_edits import Edit, apply_edits, derive_edits
from multi_edits.edits import edits_from_actions, edits_from_json, edits_to_json, locate_edits
from multi_edits.words import strip_brackets
from papercommons.errors import DataError

pieces = st.sampled_from(["a", "b", "c", "d", "[e", "f]", "g"])
prompts = st.lists(pieces, min_size=1, max_size=9).map(" ".join)


@given(source=prompts, target=prompts)
def test_making_all_derived_edits_gives_the_target(source, target):
    source, plain = strip_brackets(source), strip_brackets(target)
    edits = derive_edits(source, target)
    assert apply_edits(source, edits).text == plain
    assert apply_edits(source, edits, made=[]).text == source
    assert locate_edits(source, edits) == edits or any(edit.old for edit in edits)
    assert bool(edits) == (source != plain)


@given(source=prompts, target=prompts, chosen=st.sets(st.integers(0, 4)))
def test_places_hold_the_phrases_whatever_is_made(source, target, chosen):
    source = strip_brackets(source)
    edits = derive_edits(source, target)
    made = [k for k in chosen if k < len(edits)]
    state = apply_edits(source, edits, made)
    for k, (edit, (first, count)) in enumerate(zip(edits, state.places, strict=True)):
        phrase = edit.new if k in made else edit.old
        assert list(state.words[first : first + count]) == phrase.split()


def test_edits_are_swaps_additions_and_deletions():
    edits = derive_edits(
        "a slanted mountain bicycle on the road in front of a building",
        "a slanted rusty mountain motorcycle in front of a fence",
    )
    assert [(str(e), e.action, e.position) for e in edits] == [
        ("+ rusty", "add", 2),
        ("bicycle on the road -> motorcycle", "swap", 3),
        ("building -> fence", "swap", 11),
    ]
    assert [str(e) for e in derive_edits("a big red cat", "a cat")] == ["- big red"]


def test_brackets_say_where_an_aspect_ends():
    edits = derive_edits(
        "a cat sitting on a wooden chair",
        "a [red] [dog] [with flowers in mouth] [standing] on a [metal] chair",
    )
    assert [(str(e), e.position) for e in edits] == [
        ("+ red", 1),
        ("cat -> dog", 1),
        ("+ with flowers in mouth", 2),
        ("sitting -> standing", 2),
        ("wooden -> metal", 5),
    ]


def test_words_not_substrings():
    edits = locate_edits("a category of cat", [Edit("cat", "dog", 0)])
    assert apply_edits("a category of cat", edits).text == "a category of dog"
    last = locate_edits("a chair with a cat", [Edit("with a cat", "", 2)])
    assert apply_edits("a chair with a cat", last).text == "a chair"


def test_published_records(shared_files):
    records = json.loads((shared_files / "data/pie-bench/annotation_examples.json").read_text())
    for name, record in records.items():
        source, target = map(strip_brackets, (record["source_prompt"], record["target_prompt"]))
        edits = edits_from_actions(record["edit_action"], record["aspect_mapping"])
        if name == "figure9_b":
            with pytest.raises(DataError, match="'bird' is not in the prompt"):
                locate_edits(source, edits)
            continue
        made = apply_edits(source, locate_edits(source, edits))
        # the two others have targets that their own edits do not give
        assert (made.text == target) == (name not in ("figure9_c", "demo_notebook"))
    edits = edits_from_actions(
        records["project_page_example"]["edit_action"],
        records["project_page_example"]["aspect_mapping"],
    )
    assert [e.object for e in edits] == ["dog", "dog", "flowers", "dog", "chair"]


def test_an_edit_of_no_object_is_marked():
    style = {"in the style of x": {"position": 2, "action": "+"}}
    assert edits_from_actions(style, {"cat": []})[0].object == ""
    assert edits_from_actions(style)[0].object is None


def test_json_and_back():
    edits = [Edit("cat", "dog", 1, "dog", 0.5), Edit("", "red", 0), Edit("x", "", 3, "")]
    assert edits_from_json(json.loads(json.dumps(edits_to_json(edits)))) == edits
    assert edits_from_json([{"old": "cat", "new": "dog"}]) == [Edit("cat", "dog", 0)]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "must be a list"),
        ({"old": "cat"}, "must be a list"),
        (["cat"], "edit 1: expected an object"),
        ([{"old": "cat", "colour": 1}], "edit 1: expected an object with old, new"),
        ([{"old": 3, "new": "x"}], "edit 1: old, new and object are text"),
        ([{"new": "x"}], "position is a number"),
        ([{"old": "a", "new": "x"}, {"new": "x", "position": True}], "edit 2: .* position"),
        ([{"old": "a", "strength": "much"}], "edit 1: strength must be a number"),
        ([{"old": "a", "strength": -1}], "edit 1: strength must be a number >= 0, got -1"),
        ([{"old": " ", "position": 0}], "edit 1: an edit needs an old phrase"),
        ([{"old": "a", "position": -1}], "edit 1: position must be >= 0"),
    ],
)
def test_wrong_json_is_named(value, message):
    with pytest.raises(DataError, match=message):
        edits_from_json(value)


def test_wrong_actions_are_named():
    with pytest.raises(DataError, match="edit 'dog': expected position and action"):
        edits_from_actions({"dog": {"action": "cat"}})


@pytest.mark.parametrize(
    ("edits", "message"),
    [
        ([Edit("dog", "cat", 0)], "'dog' is not in the prompt"),
        ([Edit("", "dog", 5)], "position 5 is beyond the prompt of 4 words"),
        ([Edit("red cat", "dog", 1), Edit("cat", "cow", 2)], "another edit changes 'cat' too"),
        ([Edit("red cat", "dog", 1), Edit("", "big", 2)], "inserted inside a phrase"),
    ],
)
def test_edits_that_do_not_fit_are_named(edits, message):
    with pytest.raises(DataError, match=message):
        locate_edits("a red cat sleeps", edits)


def test_empty_prompts_are_refused():
    with pytest.raises(DataError, match="must have words"):
        derive_edits("a cat", " [] ")
