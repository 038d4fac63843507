"""Tests of the names and notes of outputs, of what a saved network is known by, and its folder."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from papercommons.errors import DataError
from papercommons.files import hash_saved, hash_texts, name_outputs, read_note, write_text
from papercommons.text_to_image.module import save_pipeline


@pytest.fixture
def saved(tmp_path):
    """The folder of a run with a saved network."""
    (tmp_path / "export").mkdir()
    return tmp_path


@given(
    st.lists(
        st.sampled_from(
            [
                "",
                "a",
                "a_2",
                "a_3",
                "ä b",
                "../x",
                ".a",
                "a\n",
                "a/b",
                "\udcff",
                "ü" * 200,
                "ü" * 201,
            ]
        ),
        max_size=9,
    )
)
def test_names_of_outputs_are_plain_and_unique(stems):
    found = name_outputs(stems, empty="picture")
    assert len(set(found)) == len(found) == len(stems)
    assert all(re.fullmatch(r"[\w-]+", name) and len(name.encode()) < 130 for name in found)
    assert found == name_outputs(stems, empty="picture")
    assert name_outputs(stems[:1], empty="picture") == found[:1]


def test_texts_that_are_no_utf_8_have_a_hash():
    assert hash_texts(["a", "\udcff"]) != hash_texts(["a", "\udcfe"])
    assert hash_texts(["a", "b"]) != hash_texts(["b", "a"])


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ('{"path": "a.png", "hash": "1", "more": 2}', True),
        ('{"path": "b.png", "hash": "1"}', False),
        ('{"path": "a.png", "hash": "2"}', False),
        ("[1]", False),
        ('{"path": "a.png", "ha', False),
        (None, False),
    ],
)
def test_a_note_counts_for_the_same_file_alone(tmp_path, text, kept):
    note = tmp_path / "note.json"
    if text is not None:
        note.write_text(text)
    found = read_note(note, Path("a.png"), "1")
    assert found == (json.loads(text) if kept else None)


@pytest.mark.parametrize("changed", ["config.json", "model.safetensors"])
def test_a_saved_network_is_known_by_its_weights_and_settings(saved, changed):
    for name in ("config.json", "model.safetensors"):
        (saved / "export" / name).write_text(name)
    before = hash_saved(saved)
    assert hash_saved(saved / "export") == before
    (saved / "metrics.csv").write_text("more")
    assert hash_saved(saved) == before
    (saved / "export" / changed).write_text("other")
    assert hash_saved(saved) != before


def test_a_file_of_weights_is_known_by_what_it_holds(tmp_path):
    file = tmp_path / "w.pt"
    file.write_text("a")
    before = hash_saved(file)
    file.write_text("b")
    assert hash_saved(file) != before
    with pytest.raises(DataError):
        hash_saved(tmp_path / "none")


def test_a_model_that_is_replaced_is_never_half_there(tmp_path, monkeypatch):
    def pipeline(text):
        def write(folder):
            for name in ("model_index.json", "weights"):
                write_text(folder / name, text)

        return SimpleNamespace(save_pretrained=write)

    def die(folder, **_):
        (Path(folder) / "model_index.json").unlink(missing_ok=True)
        raise KeyboardInterrupt

    folder = save_pipeline(pipeline("old"), tmp_path / "model")
    monkeypatch.setattr("shutil.rmtree", die)
    with pytest.raises(KeyboardInterrupt):
        save_pipeline(pipeline("new"), folder)
    monkeypatch.undo()
    assert {path.read_text() for path in folder.iterdir()} == {"new"}
    save_pipeline(pipeline("newer"), folder)
    assert {path.read_text() for path in folder.iterdir()} == {"newer"}
