from __future__ import annotations

import json

import pytest
from papercommons.errors import DataError
from semforge.entries import join
from semforge.graph import LabelGraph
from semforge.layouts import LAYOUTS, open_faces

FFSC, FFPP = LabelGraph.ffsc(), LabelGraph.ffpp()
REAL = "0" * 12


@pytest.fixture
def make(tmp_path):
    def make(*names):
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        return tmp_path

    return make


def table(faces):
    return {
        name: ("".join(map(str, label)), split, method, video)
        for name, label, split, method, video in zip(
            faces.names, faces.labels, faces.splits, faces.methods, faces.videos, strict=True
        )
    }


def test_ffsc_has_the_official_strings(make):
    root = make(
        "Train/Real/c/0.png",
        "Train/diffae-age/0.png",
        "Train/diffae-gender/Male/0.png",
        "Train/BlendFace/v1/0.png",
        "Train/fomm-pose/0.png",
        "Train/StyleRes-expr/surprise/0.png",
        "Train/fomm-expr/0.png",
        "Val/fsgan/0.png",
        "Test/Real/0.png",
        "Test/Protocol-1/HFGI-smile/0.png",
        "Test/Protocol-1/FNeVR/0.png",
    )
    faces = open_faces(root, FFSC)
    found = table(faces)
    assert found == {
        "Train/Real/c/0.png": (REAL, "train", "real", "Train/Real/c"),
        "Train/diffae-age/0.png": ("110000100001", "train", "diffae-age", ""),
        "Train/diffae-gender/Male/0.png": ("120110111101", "train", "diffae-gender", ""),
        "Train/BlendFace/v1/0.png": ("120010111111", "train", "BlendFace", "Train/BlendFace/v1"),
        "Train/fomm-pose/0.png": ("100001111111", "train", "fomm-pose", ""),
        "Train/StyleRes-expr/surprise/0.png": (
            "101000101111",
            "train",
            "StyleRes-expr",
            "Train/StyleRes-expr/surprise",
        ),
        "Train/fomm-expr/0.png": ("101000201122", "train", "fomm-expr", ""),
        "Val/fsgan/0.png": ("120010111111", "val", "fsgan", ""),
        "Test/Real/0.png": (REAL, "test", "real", ""),
        "Test/Protocol-1/HFGI-smile/0.png": ("101000001100", "test", "HFGI-smile", ""),
        "Test/Protocol-1/FNeVR/0.png": ("1" + "2" * 11, "test", "FNeVR", ""),
    }
    assert any("FNeVR" in note for note in faces.notes)


def test_labels_go_by_name_to_other_graphs(make):
    root = make("Train/diffae-age/0.png", "Train/Real/0.png", "Train/fomm-expr/smile.png")
    faces = open_faces(root, FFPP)
    found = table(faces)
    assert found["Train/Real/0.png"][0] == "0" * 10
    assert found["Train/fomm-expr/smile.png"][0] == "1102001100"
    assert found["Train/diffae-age/0.png"][0] == "1" + "2" * 9
    assert faces.notes == (
        "diffae-age: ffpp has no place for what it alters; only the root is labelled",
    )


FFPP_FILES = (
    "original_sequences/youtube/c23/videos/000.mp4",
    "original_sequences/youtube/c23/videos/003.mp4",
    "manipulated_sequences/Deepfakes/c23/videos/000_003.mp4",
    "manipulated_sequences/Deepfakes/c40/videos/000_003.mp4",
    "manipulated_sequences/NeuralTextures/c23/videos/003_000.mp4",
    "manipulated_sequences/FaceShifter/c23/videos/000_003.mp4",
)


def test_ffpp_takes_c23_and_the_published_pairs(make):
    root = make(*FFPP_FILES, "manipulated_sequences/Face2Face/c23/frames/001_002/0000.png")
    (root / "train.json").write_text(json.dumps([["000", "003"]]))
    (root / "test.json").write_text(json.dumps([["001", "002"]]))
    faces = open_faces(root, FFPP)
    found = table(faces)
    assert len(found) == 6
    assert not any("c40" in name for name in found)
    assert found[FFPP_FILES[0]] == ("0" * 10, "train", "real", FFPP_FILES[0])
    assert found[FFPP_FILES[2]][:3] == ("1010111111", "train", "Deepfakes")
    assert found[FFPP_FILES[4]][0] == "1100001100"
    (frames,) = (name for name in found if "Face2Face" in name)
    assert found[frames][1] == "test"
    assert dict(zip(faces.names, faces.identities, strict=True))[FFPP_FILES[4]] == ("003", "000")
    # another graph: what FaceForensics++ does not label stays unknown
    assert table(open_faces(root, FFSC))[FFPP_FILES[2]][0] == "120212111111"
    only = open_faces(root, FFPP, layout="faceshifter")
    assert set(only.methods) == {"real", "FaceShifter"}


def test_ffpp_faults(make):
    root = make(*FFPP_FILES)
    (root / "train.json").write_text(json.dumps([["000", "001"]]))
    with pytest.raises(DataError, match=r"003.mp4: is in none of"):
        open_faces(root, FFPP)
    (root / "train.json").write_text("{]")
    with pytest.raises(DataError, match="expected pairs of videos"):
        open_faces(root, FFPP)
    make("manipulated_sequences/Mine/c23/videos/000_003.mp4")
    (root / "train.json").unlink()
    with pytest.raises(DataError, match="Mine: no method of FaceForensics"):
        open_faces(root, FFPP)


def test_celeb_df(make):
    root = make(
        "Celeb-real/id0_0000.mp4",
        "Celeb-synthesis/id0_id1_0000.mp4",
        "YouTube-real/00001.mp4",
        "Celeb-synthesis/id2_id3_0001.mp4",
    )
    text = "1 YouTube-real/00001.mp4\n0 Celeb-synthesis/id2_id3_0001.mp4\n"
    (root / "List_of_testing_videos.txt").write_text(text)
    faces = open_faces(root, FFPP)
    assert {k: v[:2] for k, v in table(faces).items()} == {
        "Celeb-real/id0_0000.mp4": ("0" * 10, "train"),
        "Celeb-synthesis/id0_id1_0000.mp4": ("1010111111", "train"),
        "Celeb-synthesis/id2_id3_0001.mp4": ("1010111111", "test"),
        "YouTube-real/00001.mp4": ("0" * 10, "test"),
    }
    assert faces.identities[1] == ("id0", "id1")


def test_deeperforensics(make):
    root = make("manipulated_videos/end_to_end/000_M101.mp4", "source_videos/M004/a/b.mp4")
    (root / "lists/splits").mkdir(parents=True)
    (root / "lists/splits/test.txt").write_text("000_M101.mp4\n")
    faces = open_faces(root, FFPP)
    found = table(faces)
    assert found["manipulated_videos/end_to_end/000_M101.mp4"][:2] == ("1010111111", "test")
    assert found["source_videos/M004/a/b.mp4"][0] == "0" * 10
    assert faces.identities == (("000", "M101"), ("M004",))


def test_dfdc(make):
    root = make("a.mp4", "videos/b.mp4")
    (root / "labels.csv").write_text("filename,label\na.mp4,0\nb.mp4,1\n")
    faces = open_faces(root, FFSC)
    assert [row[0] for row in table(faces).values()] == [REAL, "1" + "2" * 11]
    assert faces.longer
    for line, what in (
        ("../a.mp4,0", "file's name"),
        ("c.mp4,1", "no such file"),
        ("a.mp4,x", "0 or 1"),
    ):
        (root / "labels.csv").write_text(f"filename,label\n{line}\n")
        with pytest.raises(DataError, match=f"line 2: .*{what}"):
            open_faces(root, FFSC)


def test_folders_and_lists_in_folders(make):
    root = make("train/real/a.png", "train/fake/b.png", "test/real/c.png", "test/fake/d/e.png")
    found = table(open_faces(root, FFSC))
    assert found["test/fake/d/e.png"][:3] == ("1" + "2" * 11, "test", "fake")
    assert found["train/real/a.png"][:2] == (REAL, "train")
    (root / "list.txt").write_text(f"train/real/a.png {REAL}\n")
    assert len(open_faces(root, FFSC)) == 1
    assert len(open_faces(root, FFSC, layout="folders")) == 4
    assert len(open_faces([root / "list.txt", root], FFSC)) == 1


def test_joined_lists_must_agree(make):
    root = make("a.png", "b.png")
    (root / "one.txt").write_text("a.png 0\n")
    (root / "two.txt").write_text("a.png 1\nb.png 1\n")
    one, two = (open_faces(root / f"{name}.txt", FFSC) for name in ("one", "two"))
    with pytest.raises(DataError, match=r"a.png has label 12+, and 0+ at"):
        join([one, two])


def test_faults(make, tmp_path):
    with pytest.raises(DataError, match="no such file or folder"):
        open_faces(tmp_path / "none", FFSC)
    with pytest.raises(DataError, match="no layout fits"):
        open_faces(tmp_path, FFSC)
    with pytest.raises(ValueError, match="no layout 'ffs'; did you mean ffsc"):
        open_faces(tmp_path, FFSC, layout="ffs")
    for layout in LAYOUTS[2:]:
        with pytest.raises(DataError):
            open_faces(tmp_path, FFSC, layout=layout)
