from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from papercommons.errors import DataError
from semforge.graph import LabelGraph
from semforge.lists import illegal_rows, known_label, parse_label, read_list

FFSC = LabelGraph.ffsc()
REAL, AGE = "000000000000", "110000100001"


@pytest.fixture
def folder(tmp_path):
    for name in ("a.png", "b c.png", "d.mp4"):
        (tmp_path / name).touch()
    (tmp_path / "frames").mkdir()
    return tmp_path


def write(folder, text, name="list.txt"):
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def test_text_with_comments_blanks_and_splits(folder):
    path = write(
        folder, f"# mine\na.png {REAL}\n\nb c.png\tVal {AGE}\nd.mp4 train 1\nframes 120110111101\n"
    )
    faces = read_list(path, FFSC)
    assert faces.names == ("a.png", "b c.png", "d.mp4", "frames")
    assert faces.files[1] == folder / "b c.png"
    assert faces.splits == ("", "val", "train", "")
    assert faces.videos == ("", "", "d.mp4", "frames")
    assert faces.methods == ("real", "fake", "fake", "fake")
    assert faces.labels.dtype == np.int8
    assert ["".join(map(str, row)) for row in faces.labels] == [
        REAL,
        AGE,
        "1" + "2" * 11,
        "120110111101",
    ]


def test_csv_says_more(folder):
    text = "path,label,split,video,method,identity\n"
    text += f"a.png,{REAL},train,one,,ann\nb c.png,{AGE},TEST,,diffae,ann+bob\n"
    faces = read_list(write(folder, text, "list.csv"), FFSC)
    assert faces.videos == ("one", "")
    assert faces.methods == ("real", "diffae")
    assert faces.splits == ("train", "test")
    assert faces.identities == (("ann",), ("ann", "bob"))


def test_root_is_where_paths_begin(folder):
    (folder / "lists").mkdir()
    path = write(folder / "lists", f"a.png {REAL}\n")
    with pytest.raises(DataError, match="no such file"):
        read_list(path, FFSC)
    assert read_list(path, FFSC, root=folder).files == (folder / "a.png",)


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("a.png", "line 2: expected `path label`"),
        ("a.png 00000000000", "has 11 characters .*leading zeros.*ffsc has 12 nodes: fake, age"),
        ("a.png 0000000000003", "line 2: a.png: label '0000000000003' holds '3'"),
        ("a.png 1100000000000", "has 13 characters;"),
        ("a.png 010000000000", r"\(age altered\) agrees with no legal state of ffsc"),
        ("a.png 110000000000", r"\(fake, age altered\) agrees with no legal"),
        ("gone.png 1", "line 2: no such file: .*gone.png"),
        ("../x.png 1", "leads out of"),
        ("/etc/passwd 1", "leads out of"),
        (f"b.png {AGE}", "no such file"),
        (f"a.png {AGE}", "line 2: a.png has label 110000100001, and 000000000000 at .*line 1"),
        (f"a.png val {REAL}", "has split val, and none at"),
    ],
)
def test_faults_name_file_line_and_rule(folder, line, what):
    path = write(folder, f"a.png {REAL}\n{line}\n")
    with pytest.raises(DataError, match=what) as error:
        read_list(path, FFSC)
    assert "\n" not in str(error.value)
    assert str(folder) in str(error.value)


@pytest.mark.parametrize(
    ("content", "name", "what"),
    [
        (b"", "list.txt", "no entries"),
        (b"# nothing\n\n", "list.txt", "no entries"),
        (b"\xff\xfe\x00", "list.txt", "not UTF-8"),
        (b"file,label\na.png,1\n", "list.csv", "no column path"),
        (b"path,label,split\na.png,1,dev\n", "list.csv", "split must be train, val or test"),
        (b'path,label\n"a.png,1\n', "list.csv", "not readable as CSV"),
        (b"path,label\n,1\n", "list.csv", "line 2: names no path"),
    ],
)
def test_broken_lists(folder, content, name, what):
    (folder / name).write_bytes(content)
    with pytest.raises(DataError, match=what):
        read_list(folder / name, FFSC)
    with pytest.raises(DataError, match="no such file; expected a list"):
        read_list(folder / "none.txt", FFSC)


def test_the_same_entry_again_counts_once(folder):
    faces = read_list(write(folder, f"a.png {REAL}\na.png {REAL}\n"), FFSC)
    assert len(faces) == 1
    assert "1 entries are there again" in faces.notes[0]


def test_links_out_of_the_folder_are_refused(folder, tmp_path_factory):
    other = tmp_path_factory.mktemp("other") / "x.png"
    other.touch()
    (folder / "link.png").symlink_to(other)
    with pytest.raises(DataError, match="leads out of"):
        read_list(write(folder, "link.png 1\n"), FFSC)


def test_check_finds_all_illegal_labels_without_files(folder):
    path = write(folder, f"x.png {AGE}\ny.png 010000000000\nz.png 12\n")
    faults = illegal_rows(path, FFSC)
    assert [where.rpartition(" ")[2] for where, _ in faults] == ["2", "3"]
    assert "y.png" in faults[0][1]
    assert "no legal state" in faults[0][1]


@given(label=st.lists(st.sampled_from([0, 1, 2]), min_size=12, max_size=12))
def test_a_label_is_taken_exactly_if_some_legal_state_agrees(label):
    states = FFSC.states.numpy()
    agrees = any(all(v in (2, s) for v, s in zip(label, state, strict=True)) for state in states)
    text = "".join(map(str, label))
    if agrees:
        assert parse_label(text, FFSC).tolist() == label
    else:
        with pytest.raises(ValueError, match="no legal state"):
            parse_label(text, FFSC)


def test_the_root_alone_says_what_follows_from_it():
    assert parse_label("0", FFSC).tolist() == [0] * 12
    assert parse_label("1", FFSC).tolist() == [1] + [2] * 11
    free = LabelGraph(nodes=("fake", "age"))
    assert parse_label("0", free).tolist() == [0, 2]
    assert parse_label("1", LabelGraph(nodes=("fake",))).tolist() == [1]


def test_what_is_known_goes_by_name():
    small = LabelGraph.soft_or("forged", {"age": ["skin"], "pose": ["skin"]})
    label = known_label(small, {"forged": 1, "age": 1, "nowhere": 1})
    assert label.tolist() == [1, 1, 2, 2]
    with pytest.raises(ValueError, match="forbids"):
        known_label(small, {"forged": 0, "age": 1})
