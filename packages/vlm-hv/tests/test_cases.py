from __future__ import annotations

import gzip
import shutil
from pathlib import Path

import numpy as np
import pytest
from papercommons.data.pairs import make_pairs
from papercommons.data.words import open_words
from papercommons.errors import DataError
from vlm_hv.cases import Case, from_pairs, read_cases

SAME = "w00/00_0.png,w00/00_1.png"
OTHER = "w00/00_0.png,w01/01_0.png"


def write(folder: Path, text: str, name: str = "pairs.csv") -> Path:
    path = folder / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return path


@pytest.mark.parametrize("header", ["known,questioned", "left,right", "sample1,sample2"])
@pytest.mark.parametrize("name", ["pairs.csv", "pairs.csv.gz"])
def test_columns_and_writers(words: Path, tmp_path: Path, header: str, name: str) -> None:
    path = write(tmp_path, f"{header},label\n{SAME},1\n{OTHER},0\n", name)
    found = read_cases(path, words)
    assert found.cases == [
        Case("w00/00_0.png", "w00/00_1.png", 1, ("w00", "w00")),
        Case("w00/00_0.png", "w01/01_0.png", 0, ("w00", "w01")),
    ]
    assert found.read("w00/00_0.png").size == (64, 64)
    assert len(found.drawn(1).cases) == 1
    assert found.labelled


def test_jsonl_and_parquet(words: Path, tmp_path: Path) -> None:
    text = '{"known": "w00/00_0.png", "questioned": "w00/00_1.png", "label": true}\n'
    text += '\n{"known": "w00/00_0.png", "questioned": "w01/01_0.png"}\n'
    found = read_cases(write(tmp_path, text, "pairs.jsonl"), words)
    assert [case.label for case in found.cases] == [1, None]
    pyarrow = pytest.importorskip("pyarrow", reason="needs pyarrow (vlm-hv[parquet])")
    parquet = pytest.importorskip("pyarrow.parquet")
    names = {"shuffled_sample1": ["x"], "sample1": ["w00/00_0.png"], "sample2": ["w01/01_0.png"]}
    parquet.write_table(pyarrow.table(names | {"label": [0.0]}), tmp_path / "pairs.parquet")
    assert read_cases(tmp_path / "pairs.parquet", words).cases[0].label == 0


def test_folder_of_unknown_writers(words: Path, tmp_path: Path) -> None:
    folder = tmp_path / "case"
    folder.mkdir()
    for name, source in (("letter.png", "w00/00_0.png"), ("cheque.png", "w01/01_0.png")):
        shutil.copy(words / source, folder / name)
    found = read_cases(write(tmp_path, "known,questioned\nletter.png,cheque.png\n"), folder)
    assert found.cases == [Case("letter.png", "cheque.png", None, None)]
    assert np.asarray(found.read("letter.png")).shape == (64, 64, 3)
    for name, said in (("../secret.png", "lies outside"), ("absent.png", "no image absent.png")):
        path = write(tmp_path, f"known,questioned\nletter.png,{name}\n", "wrong.csv")
        with pytest.raises(DataError, match=f"row 1: .*{said}"):
            read_cases(path, folder)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a,b,label\nx,y,1\n", "expected the columns known,questioned .* got a, b, label"),
        ("a,b\n", "expected the columns"),
        ("left,right,label\n", "no pairs in it"),
        ("", "expected the columns .* got label|got nothing|no pairs"),
        (f"left,right,label\n{SAME},2\n", "row 1: label '2'; expected 0, 1 or nothing"),
        (f"left,right,label\n{SAME},0\n", "row 1: label 0 does not agree with the writers"),
        ("left,right\nw00/00_0.png,w00/00_0.png\n", "row 1: .* is paired with itself"),
        ("left,right\nw00/00_0.png,w09/9.png\n", "row 1: names what is not there"),
        ("left,right\nw00/00_0.png,\n", "row 1: a name is missing"),
        ("left,right\nw00/00_0.png\n", "row 1: expected the columns"),
        ("left,right\n\xff\xfe\0", "no pairs|not a readable csv|columns|missing"),
    ],
)
def test_wrong_lists(words: Path, tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        read_cases(write(tmp_path, text), words)


def test_files_that_are_no_lists(words: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file; --pairs"):
        read_cases(tmp_path / "absent.csv", words)
    with pytest.raises(DataError, match=r"expected \.csv, \.csv\.gz, \.jsonl or \.parquet"):
        read_cases(write(tmp_path, "x", "pairs.xlsx"), words)
    with pytest.raises(DataError, match="line 1: not JSON"):
        read_cases(write(tmp_path, "{", "pairs.jsonl"), words)
    with pytest.raises(DataError, match="line 1: expected an object"):
        read_cases(write(tmp_path, "[1]", "pairs.jsonl"), words)
    with pytest.raises(DataError, match="--data takes the folder"):
        read_cases(write(tmp_path, f"left,right\n{SAME}\n"), tmp_path / "absent")
    broken = tmp_path / "broken.csv.gz"
    broken.write_bytes(b"no gzip")
    with pytest.raises(DataError, match="not a readable csv"):
        read_cases(broken, words)


def test_pairs_of_papercommons(words: Path) -> None:
    opened = open_words(words)
    pairs = make_pairs(opened, range(len(opened)))
    found = from_pairs(pairs, opened)
    assert len(found.cases) == len(pairs)
    for case in found.cases[::17]:
        assert case.writers is not None
        assert (case.writers[0] == case.writers[1]) == bool(case.label)
        assert case.known.startswith(case.writers[0])
    with pytest.raises(ValueError, match="--limit"):
        found.drawn(0)
    with pytest.raises(DataError, match="no pairs"):
        from_pairs(pairs.take([]), opened)


def test_a_packed_list_of_gigabytes_is_not_unpacked(words: Path, tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        for _ in range(130):
            file.write(b" " * (1 << 20))
    with pytest.raises(DataError, match="more than 128 MiB; split it"):
        read_cases(path, words)


def test_a_parquet_of_very_many_rows_is_not_unpacked(words: Path, tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="needs pyarrow (vlm-hv[parquet])")
    parquet = pytest.importorskip("pyarrow.parquet")
    index = pyarrow.array(np.zeros(2_000_001, np.int8))
    column = pyarrow.DictionaryArray.from_arrays(index, ["w00/00_0.png"])
    table = pyarrow.table({"known": column, "questioned": column})
    parquet.write_table(table, tmp_path / "pairs.parquet")
    with pytest.raises(DataError, match="more than 2,000,000 rows"):
        read_cases(tmp_path / "pairs.parquet", words)
