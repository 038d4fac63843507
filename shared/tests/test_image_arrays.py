from __future__ import annotations

import os
import struct
import zipfile

import numpy as np
import pytest
from papercommons.data.images import read_image_arrays
from papercommons.errors import DataError

GOOD = {"images": np.zeros((3, 4, 4), np.uint8), "labels": np.array([0, 2, 1])}


@pytest.fixture
def npz(tmp_path):
    def save(**arrays):
        np.savez_compressed(tmp_path / "a.npz", **arrays)
        return tmp_path / "a.npz"

    return save


def test_arrays(npz):
    names, split = np.array([b"x", b"y", b"z"]), np.array(["train", "val", "test"])
    arrays = read_image_arrays(npz(**GOOD, class_names=names, split=split))
    assert arrays["images"].shape == (3, 4, 4)
    assert arrays["labels"].tolist() == [0, 2, 1]
    assert arrays["class_names"].tolist() == ["x", "y", "z"]
    assert arrays["split"].tolist() == ["train", "val", "test"]
    assert read_image_arrays(npz(**GOOD | {"images": np.zeros((3, 4, 5, 3), np.uint8)}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": None}, "no array images; has .'labels'"),
        ({"images": None, "labels": None, "x": np.zeros(1)}, "no array images and labels"),
        ({"images": np.zeros((3, 4, 4))}, "images must be uint8 .* got float64"),
        ({"images": np.zeros((3, 4), np.uint8)}, "images must be uint8"),
        ({"images": np.zeros((3, 4, 4, 4), np.uint8)}, "images must be uint8"),
        ({"images": np.zeros((3, 3, 4, 4), np.uint8)}, "images must be uint8"),
        ({"images": np.zeros((3, 0, 4), np.uint8)}, "holds no images, its shape is"),
        (
            {"images": np.zeros((0, 4, 4), np.uint8), "labels": np.zeros(0, int)},
            "holds no images",
        ),
        ({"labels": np.array([0, 1])}, r"labels must be integers \(3,\), got int64 \(2,\)"),
        ({"labels": np.array([0.0, 1, 2])}, "labels must be integers .* got float64"),
        ({"labels": np.array([[0], [1], [2]])}, "labels must be integers"),
        ({"labels": np.array([True, False, True])}, "labels must be integers"),
        ({"labels": np.array([0, -1, 2])}, "labels must be >= 0, got -1 at 1"),
        ({"labels": np.array([0, 1, 2**40])}, "label 1099511627776 at 2; number the classes"),
        ({"class_names": np.array(["a", "b"])}, "label 2 at 1, but class_names has 2"),
        ({"class_names": np.array("abc")}, "class_names must be strings, one-dimensional"),
        ({"class_names": np.array([1, 2, 3])}, "class_names must be strings"),
        ({"split": np.array(["train"])}, r"split must be \(3,\), got \(1,\)"),
        ({"split": np.array(["train", "tset", "val"])}, "split holds 'tset'; expected train"),
        ({"split": np.array([0, 1, 2])}, "split must be strings"),
    ],
)
def test_arrays_not_as_described(npz, change, message):
    arrays = {name: value for name, value in (GOOD | change).items() if value is not None}
    with pytest.raises(DataError, match=r"a\.npz: " + message):
        read_image_arrays(npz(**arrays))


class Malicious:
    """Leaves a file where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_pickles_are_not_run(npz, tmp_path):
    trap = np.array([Malicious(str(tmp_path / "trap"))], dtype=object)
    for arrays in ({**GOOD, "labels": trap}, {**GOOD, "extra": trap}):
        with pytest.raises(DataError, match=r"not a readable \.npz .*allow_pickle=False"):
            read_image_arrays(npz(**arrays))
    assert not (tmp_path / "trap").exists()


def test_array_bombs(npz, tmp_path):
    path = npz(**GOOD | {"images": np.zeros((3, 1000, 1000), np.uint8)})
    with pytest.raises(DataError, match=r"unpacks to 3,\d+,\d+ bytes, above 1,000,000; split it"):
        read_image_arrays(path, max_bytes=1_000_000)
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (%d, 4, 4), }" % 2**50
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(
            "images.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header
        )
    with pytest.raises(DataError, match="not a readable"):
        read_image_arrays(path)


@pytest.mark.parametrize("content", [b"", b"no zip", None])
def test_files_that_are_no_npz(tmp_path, content):
    path = tmp_path / "a.npz"
    if content is None:
        np.save(path.with_suffix(".npy"), np.zeros(3))
        path.with_suffix(".npy").rename(path)
    else:
        path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.npz: not a readable \.npz \(.+\)"):
        read_image_arrays(path)
    with pytest.raises(DataError, match=r"no such file; expected an \.npz file"):
        read_image_arrays(tmp_path / "nope.npz")
