from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from papercommons.errors import DataError
from PIL import Image
from vlm_hv import prompts
from vlm_hv.checklist import (
    checklist_request,
    checklist_schema,
    read_checklist,
    read_codes,
    score_checklist,
)
from vlm_hv.images import encode
from vlm_hv.modes import AskOptions

WORDS = prompts.load("forensic_v1")
FEATURES = WORDS.features
FIRST = {feature.name: next(iter(feature.answers)) for feature in FEATURES}


def test_request_lists_every_answer_and_one_picture() -> None:
    picture = encode(Image.new("RGB", (4, 4)), "a")
    request = checklist_request(WORDS, picture, AskOptions())
    assert request.pictures == (picture,)
    assert request.schema == checklist_schema(FEATURES)
    for feature in FEATURES:
        for answer in feature.answers.values():
            assert json.dumps(answer) in request.messages[-1].text
    with pytest.raises(DataError, match="no features"):
        checklist_request(prompts.load("paligemma_v1"), picture, AskOptions())


@given(st.tuples(*(st.sampled_from(sorted(feature.answers)) for feature in FEATURES)))
def test_round_trip(codes: tuple[int, ...]) -> None:
    said = {f.name: f.answers[code] for f, code in zip(FEATURES, codes, strict=True)}
    loose = {key.replace("_", " ").title(): value.upper() for key, value in said.items()}
    expected = {f.name: code for f, code in zip(FEATURES, codes, strict=True)}
    assert read_checklist(f"```json\n{json.dumps(said)}\n```", FEATURES) == expected
    assert read_checklist(json.dumps(loose), FEATURES) == expected


def test_what_is_not_an_answer() -> None:
    text = json.dumps({"slantness": "sideways", "is_lowercase": True, "tilt": None, "size": [1]})
    found = read_checklist(text, FEATURES)
    assert found["is_lowercase"] == 2
    assert [found[name] for name in ("slantness", "tilt", "size", "constancy")] == [None] * 4
    assert set(read_checklist("no json", FEATURES).values()) == {None}


def test_hand_counts() -> None:
    tilt = [feature for feature in FEATURES if feature.name == "tilt"]
    coded = [{"tilt": code} for code in (1, 1, 1, 2, None)]
    said: list[dict[str, Any]] = [{"tilt": code} for code in (1, 2, None, 2, 1)]
    (row,) = score_checklist(said, coded, tilt)
    assert row == {"feature": "tilt", "samples": 4, "answered": 3} | {
        "accuracy": 0.5,
        "balanced_accuracy": pytest.approx((1 / 3 + 1) / 2),
        "majority": 0.75,
        "majority_balanced": 0.5,
    }
    (empty,) = score_checklist(said[:1], [{"tilt": None}], tilt)
    assert (empty["samples"], empty["accuracy"]) == (0, None)
    with pytest.raises(ValueError, match="1 answers, but codes of 2"):
        score_checklist(said[:1], coded[:2], tilt)


def test_real_codes(shared_files: Path) -> None:
    path = shared_files / "data" / "cedar-and" / "features15.csv"
    if not path.is_file():
        pytest.skip(f"{path} is absent")
    codes = read_codes(path, FEATURES)
    assert codes["0001a_num1.png"]["exit_stroke_d"] == 2
    coded = list(codes.values())
    rows = score_checklist([FIRST] * len(coded), coded, FEATURES)
    assert all(row["samples"] > 0 and row["accuracy"] <= row["majority"] for row in rows)


@pytest.mark.parametrize(
    ("change", "said"), [("9", "pen_pressure is '9', expected one of 1, 2"), ("x", "is 'x'")]
)
def test_codes_that_are_wrong(tmp_path: Path, change: str, said: str) -> None:
    path, names = tmp_path / "codes.csv", [feature.name for feature in FEATURES]
    values = [change, *["1"] * (len(names) - 1)]
    path.write_text(f"file_name,{','.join(names)}\na.png,{','.join(values)}\n")
    with pytest.raises(DataError, match=said):
        read_codes(path, FEATURES)
    path.write_text("file_name,tilt\na.png,1\n")
    with pytest.raises(DataError, match="no column"):
        read_codes(path, FEATURES)
    with pytest.raises(DataError, match="not a readable csv"):
        read_codes(tmp_path / "absent.csv", FEATURES)
