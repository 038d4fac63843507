from __future__ import annotations

import json

import numpy as np
import pytest
from defi_net.layouts import Sample, find_samples, read_manifest
from papercommons.errors import DataError
from PIL import Image


def touch(root, *names):
    """Write small pictures; layouts look at names alone."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((16, 16), np.uint8)).save(path)
    return root


def test_pairs_by_stem_whatever_the_order(tmp_path):
    touch(tmp_path, "images/b.jpg", "images/a.png", "labels/a.png", "labels/b_mask.png")
    first, second = find_samples(tmp_path)
    assert first == Sample(
        tmp_path / "images/a.png", tmp_path / "labels/a.png", "forged", "", "a", "images/a.png"
    )
    assert second.mask == tmp_path / "labels/b_mask.png"


def test_pairs_in_folders_of_splits(tmp_path):
    touch(tmp_path, "train/images/a.png", "train/masks/a.png", "Test/images/b.png")
    touch(tmp_path, "Test/labels/b.png")
    samples = find_samples(tmp_path, layout="pairs")
    assert [(s.split, s.name) for s in samples] == [
        ("test", "Test/images/b.png"),
        ("train", "train/images/a.png"),
    ]


def test_unmatched_files_are_listed_by_five(tmp_path):
    touch(tmp_path, *(f"images/{k}.png" for k in range(7)), "labels/0.png")
    with pytest.raises(DataError, match=r"6 images without a mask \(1, 2, 3, 4, 5, \.\.\.\)"):
        find_samples(tmp_path)
    samples = find_samples(tmp_path, missing_mask="authentic")
    assert [s.method for s in samples] == ["forged", *["authentic"] * 6]
    touch(tmp_path, "labels/x.png")
    with pytest.raises(DataError, match=r"1 masks without an image \(x\)"):
        find_samples(tmp_path, missing_mask="authentic")


def test_equal_stems_cannot_be_told_apart(tmp_path):
    touch(tmp_path, "images/a.png", "images/a.jpg", "labels/a.png")
    with pytest.raises(DataError, match="has the same stem"):
        find_samples(tmp_path)


def test_mani_dataset(tmp_path):
    touch(tmp_path, "Tp/x.jpg", "Gt/x.png", "Au/y.jpg")
    samples = find_samples(tmp_path)
    assert [(s.name, s.method) for s in samples] == [
        ("Au/y.jpg", "authentic"),
        ("Tp/x.jpg", "forged"),
    ]


def test_csv_manifest(tmp_path):
    touch(tmp_path, "i/a.png", "i/b.png", "i/c.png", "m/a.png")
    (tmp_path / "manifest.csv").write_text(
        "﻿image,mask,method,split,source\n"
        "i/c.png,,,Testing,\ni/a.png,m/a.png,telea,train,coffee\ni/b.png,Negative,,val,\n",
        encoding="utf-8",
    )
    for data in (tmp_path, tmp_path / "manifest.csv"):
        samples = find_samples(data)
        assert [(s.method, s.split, s.source) for s in samples] == [
            ("telea", "train", "coffee"),
            ("authentic", "val", "b"),
            ("authentic", "test", "c"),
        ]


def test_json_manifests(tmp_path):
    touch(tmp_path, "Tp/x.jpg", "Tp/y.jpg", "Gt/x.png")
    path = tmp_path / "list.json"
    path.write_text(json.dumps([["Tp/x.jpg", "Gt/x.png"], ["Tp/y.jpg", "Negative"]]))
    samples = find_samples(path)
    assert [(s.name, s.mask) for s in samples] == [
        ("Tp/x.jpg", tmp_path / "Gt/x.png"),
        ("Tp/y.jpg", None),
    ]
    path.write_text(json.dumps([{"image": "Tp/x.jpg", "mask": "Gt/x.png", "method": "ns"}]))
    assert find_samples(path)[0].method == "ns"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image\n../a.png\n", r"row 1: \.\./a\.png leads out of"),
        ("image\n/etc/a.png\n", "leads out of"),
        ("image\nlink/a.png\n", "leads out of"),
        ("image\na.txt\n", r"a\.txt is no image file"),
        ("image\nb.png\n", "no such file: .*b.png"),
        ("image,split\na.png,dev\n", "split must be train, val or test, is 'dev'"),
        ("image,method\na.png,telea\n", "has no mask, but its method is 'telea'"),
        ("image,mask\n,a.png\n", "names no image"),
        ("file,mask\na.png,a.png\n", "no column image"),
        ("image\na.png\na.png\n", r"a\.png is there 2 times"),
        ("", "no column image"),
        ("image\n", "no images in it"),
        ("image\na\0.png\n", r"CSV|leads out"),
    ],
)
def test_bad_rows_are_named(tmp_path, text, message):
    root = touch(tmp_path / "set", "a.png")
    touch(tmp_path / "other", "a.png")
    (root / "link").symlink_to(tmp_path / "other")
    (root / "manifest.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        find_samples(root)


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[1]",
        '{"image": 1}',
        '[["a"]]',
        "[" * 100_000,
        '[{"image": ' + "9" * 5000 + "}]",
        '[{"image": "\\ud800.png"}]',
    ],
)
def test_bad_json_is_refused(tmp_path, text):
    (tmp_path / "list.json").write_text(text)
    with pytest.raises(DataError, match=r"list\.json"):
        find_samples(tmp_path / "list.json")


def test_manifests_must_be_text_of_a_sane_size(tmp_path, monkeypatch):
    path = tmp_path / "m.csv"
    path.write_bytes(b"image\n\xff\xfe\n")
    with pytest.raises(DataError, match="not UTF-8"):
        read_manifest(path)
    monkeypatch.setattr("defi_net.layouts.MAX_MANIFEST", 3)
    with pytest.raises(DataError, match="larger than"):
        read_manifest(path)


def test_what_is_no_data_set_says_so(tmp_path):
    with pytest.raises(DataError, match="no such file or folder"):
        find_samples(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="no layout 'pair'; did you mean pairs"):
        find_samples(tmp_path, layout="pair")
    touch(tmp_path, "images/a.png")
    with pytest.raises(DataError, match="no folder labels"):
        find_samples(tmp_path)
    touch(tmp_path / "flat", "a.png")
    with pytest.raises(DataError, match="no layout fits"):
        find_samples(tmp_path / "flat")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no images"):
        find_samples(tmp_path / "empty")
