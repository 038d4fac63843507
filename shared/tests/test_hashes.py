"""What files and models are known by, and which model folders are refused."""

from __future__ import annotations

import os

import pytest
from papercommons.errors import DataError
from papercommons.files import hash_files, hash_model, refuse_code


def test_hash_follows_names_contents_and_order(tmp_path):
    for name, text in (("a", "1"), ("b", "2"), ("c", "1")):
        (tmp_path / name).write_text(text)
    a, b, c = (tmp_path / name for name in "abc")
    assert hash_files([a, b]) == hash_files([str(a), str(b)])
    different = {hash_files(paths) for paths in ([a], [c], [a, b], [b, a], [a, c], [])}
    assert len(different) == 6
    before = hash_files([a, b])
    b.write_text("3")
    assert hash_files([a, b]) != before


def test_hash_does_not_follow_the_folder(tmp_path):
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a").write_text("1")
    assert hash_files([tmp_path / "x" / "a"]) == hash_files([tmp_path / "y" / "a"])


def test_hash_of_large_files_sees_both_ends_and_the_size(tmp_path):
    path = tmp_path / "large"
    seen = set()
    for data in (
        bytes(1 << 21),
        bytes((1 << 21) + 1),
        b"\x01" + bytes((1 << 21) - 1),
        bytes((1 << 21) - 1) + b"\x01",
    ):
        path.write_bytes(data)
        seen.add(hash_files([path]))
    assert len(seen) == 4


@pytest.mark.skipif(os.name == "nt", reason="names are text there")
def test_hash_of_a_name_that_is_no_text(tmp_path):
    path = tmp_path / os.fsdecode(b"\xff.png")
    path.write_text("x")
    assert len(hash_files([path])) == 16


def test_a_models_hash_is_of_its_files_or_of_its_hub_id(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name / "unet").mkdir(parents=True)
        (tmp_path / name / "unet" / "config.json").write_text('{"beta": 0.012}')
        (tmp_path / name / "README.md").write_text(name)
    first = hash_model(str(tmp_path / "a"))
    assert first == hash_model(str(tmp_path / "b"))
    (tmp_path / "b" / "unet" / "config.json").write_text('{"beta": 0.013}')
    assert hash_model(str(tmp_path / "b")) != first
    assert hash_model("some/model") == hash_model("some/model") != hash_model("some/other")


def test_a_models_folder_with_code_is_refused(tmp_path):
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "config.json").write_text("{}")
    refuse_code(tmp_path)
    refuse_code("some/model")
    (tmp_path / "unet" / "net.py").write_text("")
    with pytest.raises(DataError, match=r"net\.py: a model's folder must hold no Python file"):
        refuse_code(tmp_path)
