from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vlm_hv import parse_decision, parse_decision_compat
from vlm_hv.parsing import read_json

DATA = Path(__file__).parent / "data"


def rows(name: str) -> list[dict[str, str]]:
    with (DATA / name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_compat_is_the_official_rule() -> None:
    for row in rows("decision_texts.csv"):
        assert parse_decision_compat(row["text"]) == row["official_result"], row["text"]


def test_reference_texts_are_read_as_a_careful_reader_does() -> None:
    for row in rows("decision_texts.csv"):
        assert parse_decision(row["text"]) == row["sensible_result"], row["text"]


def test_own_texts() -> None:
    table = rows("decisions_own.csv")
    wrong = [row for row in table if parse_decision(row["text"]) != row["decision"]]
    assert len(wrong) <= 2, wrong


@pytest.mark.parametrize(
    ("text", "decision"),
    [
        ("There is no doubt it is the same person.", "same"),  # the authors' script: No
        ("They are by different individuals.", "different"),  # the authors' script: Unknown
        ("Yes, there is no difference.", "same"),  # the authors' script: Both
    ],
)
def test_traps_of_the_authors_script(text: str, decision: str) -> None:
    assert parse_decision(text) == decision


@given(st.text())
def test_any_text_has_a_decision(text: str) -> None:
    assert parse_decision(text) in ("same", "different", "unknown")
    assert parse_decision_compat(text) in ("Yes", "No", "Both", "Unknown")


@given(st.sampled_from(["same", "different", "unknown"]), st.text(alphabet="abc .\n", max_size=30))
def test_json_wins_over_words_around_it(decision: str, words: str) -> None:
    said = json.dumps({"explanation": "No. The same writer.", "decision": decision})
    assert parse_decision(f"{words}{said}\nYes, the same writer.") == decision


@given(st.sampled_from(["Yes", "No"]), st.sampled_from(["", "*", "**", '"', " "]))
def test_mark_up_does_not_matter(word: str, mark: str) -> None:
    expected = {"Yes": "same", "No": "different"}[word]
    assert parse_decision(f"{mark}Decision:{mark} {mark}{word}{mark}") == expected


@pytest.mark.parametrize("unit", ["decision ", "decision is for to ", "{", '{"a":', "not ", "< "])
def test_repetitions_are_read_quickly(unit: str) -> None:
    """A model caught in a loop: a rule of quadratic time would take minutes here."""
    assert parse_decision(unit * 20_000) == "unknown"


def test_last_json_object_counts() -> None:
    assert read_json('{"a": 1} and ```json\n{"a": {"b": 2}}\n```') == {"a": {"b": 2}}
    assert read_json("no object, {broken") is None
