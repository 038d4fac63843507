from __future__ import annotations

import json
from itertools import chain

import numpy as np
import pytest
import torch
from papercommons.errors import DataError
from PIL import Image
from semforge.data import FaceForgeryData
from semforge.edits import edit_face
from semforge.fingerprints import TRAIN_FAMILIES, UNSEEN_FAMILIES, camera
from semforge.graph import LabelGraph
from semforge.layouts import open_faces
from semforge.synthesis import divide, find_people, synthesize

GRAPH = LabelGraph.ffsc()


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    """Eight people, two pictures each."""
    root = tmp_path_factory.mktemp("faces")
    for person in "abcdefgh":
        (root / person).mkdir()
        for k in range(2):
            rng = np.random.default_rng((ord(person), k))
            coarse = Image.fromarray(rng.integers(40, 210, (8, 8, 3), np.uint8))
            coarse.resize((48, 48), Image.Resampling.BICUBIC).save(root / person / f"{k}.png")
    return root


def make(faces, out, count=80, **options):
    options = {
        "graph": GRAPH,
        "size": 32,
        "crop": "none",
        "test_fraction": 0.25,
        "val_fraction": 0.25,
    } | options
    return synthesize(faces, out, count, **options)


@pytest.fixture(scope="module")
def made(faces, tmp_path_factory):
    out = tmp_path_factory.mktemp("made") / "set"
    return out, make(faces, out, unknown=0.4, count=160)


def test_the_set_is_a_data_set(made):
    out, facts = made
    listed = open_faces(out, GRAPH)
    assert len(listed) == 160
    assert {listed.splits.count(split) for split in ("val", "test")} == {40}
    assert GRAPH.is_legal(torch.from_numpy(listed.labels)).all()
    assert json.loads((out / "facts.json").read_text()) == facts
    plain = open_faces(out / "list.txt", GRAPH)
    assert np.array_equal(plain.labels, listed.labels)
    assert plain.splits == listed.splits
    data = FaceForgeryData(out, graph=GRAPH, size=32)  # so nobody is in two splits
    assert data.has_val
    assert data.facts["leaks"] == {}
    assert sum(data.facts["splits"][split]["pictures"] for split in data.splits) == 160


def test_people_families_and_hidden_labels_are_where_they_belong(made):
    out, facts = made
    listed = open_faces(out, GRAPH)
    people = facts["people"]
    assert sorted(chain(*people.values())) == list("abcdefgh")
    for who, split, method, label in zip(
        listed.identities, listed.splits, listed.methods, listed.labels, strict=True
    ):
        assert set(who) <= set(people[split])
        kind, _, family = method.partition("-")
        assert len(who) == (2 if kind == "identity" else 1)
        assert (label[0] == 0) == (method == "real")
        if family in UNSEEN_FAMILIES:
            assert split == "test"
        if split != "train" or method == "real":
            assert not (label == 2).any()
    fakes = listed.labels[(listed.labels[:, 0] == 1) & (np.array(listed.splits) == "train")]
    assert (fakes[:, 0] == 1).all()
    assert 0.3 < (fakes[:, 1:] == 2).mean() < 0.5
    used = {method.partition("-")[2] for method in facts["methods"]} - {""}
    assert used == {*TRAIN_FAMILIES, *UNSEEN_FAMILIES}
    assert 50 < sum(facts["methods"]["real"].values()) < 110


def test_pictures_are_edited_then_taken_by_the_camera(faces, tmp_path):
    options = {
        "kinds": ["age"],
        "families": ["levels"],
        "unseen": [],
        "test_fraction": 0,
        "val_fraction": 0,
    }
    make(faces, tmp_path / "one", count=6, **options)
    listed = open_faces(tmp_path / "one", GRAPH)
    for number, (file, who) in enumerate(zip(listed.files, listed.identities, strict=True)):
        rng = np.random.default_rng((0, 0, number))
        person = "abcdefgh"[rng.integers(8)]
        assert who == (person,)
        picture = Image.open(faces / person / f"{rng.integers(2)}.png")
        small = np.asarray(picture.resize((32, 32), Image.Resampling.BILINEAR))
        label = np.zeros(12)
        if rng.random() >= 0.5:
            rng.integers(1), rng.integers(1)  # kind and family
            small, label = edit_face(small, rng, GRAPH, kind="age", family="levels")
            rng.random(11)  # hidden labels
        assert np.array_equal(listed.labels[number], label)
        assert np.array_equal(np.asarray(Image.open(file)), camera(small, rng))


def test_the_same_again_and_nothing_overwritten(faces, tmp_path):
    one = make(faces, tmp_path / "one", count=20)
    two = make(faces, tmp_path / "two", count=20)
    assert one == two
    with pytest.raises(DataError, match="not empty; pass --overwrite"):
        make(faces, tmp_path / "one", count=20)
    assert make(faces, tmp_path / "one", count=10, overwrite=True)["data_hash"] != two["data_hash"]
    assert len(list((tmp_path / "one/images").rglob("*.png"))) == 10
    assert make(faces, tmp_path / "three", count=20, seed=1)["data_hash"] != two["data_hash"]


def test_who_is_who(faces, tmp_path):
    for name in ("clips/v1.mp4", "clips/v2.mp4", "clips/ann/x.png", "clips/ann/y.png", "solo.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = find_people([tmp_path / "clips", tmp_path / "solo.png", tmp_path / "clips/v1.mp4"])
    assert {e.name: e.identity[0] for e in found} == {
        "v1.mp4": "v1",
        "v2.mp4": "v2",
        "ann/x.png": "ann",
        "ann/y.png": "ann",
        "solo.png": "solo",
    }
    with pytest.raises(DataError, match="no such file or folder"):
        find_people([tmp_path / "gone"])


def test_division():
    people = [f"p{k}" for k in range(10)]
    splits = divide(people, {"val": 0.2, "test": 0.1}, least=2)
    assert {k: len(v) for k, v in splits.items()} == {"train": 6, "val": 2, "test": 2}
    assert sorted(chain(*splits.values())) == sorted(people)
    assert divide(people[::-1], {"val": 0.2, "test": 0.1}, least=2) == splits
    assert list(divide(people, {"val": 0, "test": 0.5})) == ["train", "test"]
    with pytest.raises(
        DataError, match=r"5 people are too few for train, val and test: .* 6 or more"
    ):
        divide(people[:5], {"val": 0.2, "test": 0.2}, least=2)


def test_faults(faces, tmp_path):
    out = tmp_path / "out"
    for options, what in (
        ({"count": 0}, "count must be >= 1"),
        ({"real_share": 1.0}, "real_share must be in"),
        ({"val_fraction": 0.6, "test_fraction": 0.4}, "must leave train some"),
        ({"kinds": ["pose"]}, "kinds must be some of expression, age, identity"),
        ({"families": ["gan"]}, "families must be some of"),
        ({"families": ["half"], "unseen": ["half"]}, "each once"),
        ({"crop": "boxes"}, "crop must be detect or none"),
    ):
        with pytest.raises(ValueError, match=what):
            make(faces, out, **options)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad/x.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"1 of 1 cannot be used: .*x.png"):
        make(tmp_path / "bad", out, skip_bad=True)
    with pytest.raises(DataError, match=r"1 of 17 cannot be used: .*x.png"):
        make([faces, tmp_path / "bad"], out)
    assert make([faces, tmp_path / "bad"], out, count=8, skip_bad=True)["left_out"] == ["x.png"]


def test_parts_can_be_chosen(faces, tmp_path):
    splits = {"test": ["b", "a"], "train": ["c", "d", "e", "f"]}
    facts = make(faces, tmp_path / "out", count=30, splits=splits)
    assert facts["people"] == {"train": ["c", "d", "e", "f"], "test": ["a", "b"]}
    listed = open_faces(tmp_path / "out", GRAPH)
    assert [listed.splits.count(split) for split in ("train", "test")] == [20, 10]
    for wrong, what in (
        ({"train": ["a", "zz"]}, "no 'zz' among the faces"),
        ({"train": ["a", "b"], "test": ["b", "c"]}, "in two splits"),
        ({"train": ["a"]}, "has 1 people, fewer than 2"),
        ({"test": ["a", "b"]}, "splits must be train"),
    ):
        with pytest.raises(ValueError, match=what):
            make(faces, tmp_path / "no", splits=wrong)
