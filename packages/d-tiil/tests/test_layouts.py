"""Data sets of pairs as they lie on a disk, whole and broken."""

from __future__ import annotations

import io
import json
import subprocess
import sys

import numpy as np
import pytest
from d_tiil.layouts import open_pairs
from d_tiil.records import BoxMask
from papercommons.data.defects import DEFECTS, defect_notes, write_defects
from papercommons.errors import DataError
from PIL import Image

CAPTION = "The mayor of Paris opens the bridge"
SQUARE = {"size": [6, 8], "counts": [7, 2, 39]}  # rows 1 and 2 of column 1


def picture(path, size=(6, 8), value=90, mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    color = (value, value // 2, 10) if mode == "RGB" else value
    Image.new(mode, size[::-1], color).save(path)


def said(pairs):
    return [str(defect) for defect in pairs.defects]


@pytest.fixture
def listed(tmp_path):
    """Writes rows as pairs.jsonl beside an image a.png and masks of the right and a wrong size."""
    picture(tmp_path / "a.png")
    mask = np.zeros((6, 8), np.uint8)
    mask[1:3, 1] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    Image.fromarray(np.zeros((6, 8), np.uint8)).save(tmp_path / "empty.png")
    picture(tmp_path / "small.png", (3, 4), 255, "L")

    def write(*rows):
        text = "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows)
        (tmp_path / "pairs.jsonl").write_text(text, encoding="utf-8")
        return tmp_path

    return write


GOOD = {"image": "a.png", "caption": CAPTION, "label": 1, "mask": "mask.png", "words": ["paris"]}


def test_a_neutral_list(listed):
    rows = [
        GOOD | {"id": "one", "kind": "place", "edited": "caption", "split": "Validation"},
        GOOD | {"mask": SQUARE, "words": [[13, 18]], "source": "s"},
        GOOD | {"mask": [[1, 1, 2, 1, 2, 3, 1, 3]], "label": "inconsistent", "changed": SQUARE},
        {"image": "a.png", "caption": "a b", "label": 0, "edited": "image", "changed": "mask.png"},
        {"image": "a.png", "caption": "a b"},
    ]
    folder = listed(*rows, "")
    pairs = open_pairs(folder, check="full", strict=True)
    assert (pairs.layout, len(pairs)) == ("jsonl", 5)
    first, runs, polygon, control, unknown = pairs
    for record in (first, runs, polygon):
        mask = record.true_mask((6, 8))
        assert np.argwhere(mask).tolist() == [[1, 1], [2, 1]]
        assert [word.text for word in record.true_words()] == ["Paris"]
        assert record.inconsistent is True
    assert (first.name, first.kind, first.edited, first.split) == (
        "one",
        "place",
        "caption",
        "val",
    )
    assert (runs.name, runs.source, polygon.source) == ("line 2", "s", "a.png")
    assert polygon.changed.read((6, 8)).sum() == control.changed.read((6, 8)).sum() == 2
    assert (control.inconsistent, control.edited, control.true_words()) == (False, "image", ())
    assert not control.true_mask((6, 8)).any()
    assert (unknown.inconsistent, unknown.true_mask((6, 8)), unknown.true_words()) == (None,) * 3
    assert first.open_image().size == (8, 6)
    assert len({record.digest() for record in pairs}) == 5
    assert open_pairs(folder / "pairs.jsonl", check="paths").records[1].name == "line 2"
    assert pairs.of_split("val") == (first,)
    with pytest.raises(DataError, match="it has val"):
        pairs.of_split("test")


@pytest.mark.parametrize(
    ("change", "why", "fatal"),
    [
        ({"image": "no.png"}, "no such file", True),
        ({"image": "../a.png"}, "leads out", True),
        ({"image": "/etc/passwd"}, "leads out", True),
        ({"image": "link.png"}, "leads out", True),
        ({"image": None}, "names no file", True),
        ({"image": "pairs.jsonl"}, "not a readable image", True),
        ({"image": "cut.png"}, "not a readable image", True),
        ({"caption": " "}, "no caption", True),
        ({"caption": 3}, "no caption", True),
        ({"caption": "a \ud800"}, "not valid Unicode", True),
        ({"caption": "a " * 10_001}, "give at most 20,000", True),
        ({"image": "a" * 5000}, "names no file", True),
        ({"image": "a\ud800.png"}, "names no file", True),
        ({"image": "loop.png"}, "loop.png", True),
        ({"label": 2}, "label '2'", True),
        ({"words": ["London"]}, "'London' is not in the caption", False),
        ({"words": [[0, 99]]}, "not within", False),
        ({"mask": "small.png"}, "3 x 4", False),
        ({"mask": "empty.png"}, "mask is empty", False),
        ({"mask": "no.png"}, "no such file", False),
        ({"mask": "../mask.png"}, "leads out", False),
        ({"mask": {"size": [8, 6], "counts": [48]}}, "8 x 6", False),
        ({"mask": {"size": [6, 8], "counts": [48]}}, "mask is empty", False),
        ({"label": 0, "words": None}, "consistent, but its mask has 2 pixels", False),
        ({"label": 0, "mask": None}, "consistent, but it has inconsistent words", False),
        ({"split": "holdout"}, "split 'holdout'", False),
        ({"edited": "both ways"}, "edited is", False),
        ({"segmentation": []}, "unknown keys segmentation", False),
    ],
)
def test_what_is_wrong_in_a_row(listed, change, why, fatal):
    folder = listed(GOOD | {"id": "bad"} | change, GOOD)
    (folder / "link.png").symlink_to("/etc/hostname")
    (folder / "loop.png").symlink_to("loop.png")
    noise = np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noise).save(stream, "PNG")
    (folder / "cut.png").write_bytes(stream.getvalue()[:5000])
    pairs = open_pairs(folder, check="full")
    (defect,) = pairs.defects
    assert why in str(defect)
    assert "\n" not in str(defect)
    assert (defect.record, defect.fatal) == ("bad", fatal)
    assert len(pairs) == 2 - fatal
    with pytest.raises(DataError, match="1 defects in all"):
        open_pairs(folder, check="full", strict=True)


def test_truncated_images_are_found_only_where_they_are_decoded(listed):
    folder = listed(GOOD | {"image": "cut.jpg", "mask": None})
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8)).save(
        stream, "JPEG"
    )
    (folder / "cut.jpg").write_bytes(stream.getvalue()[:1500])
    assert len(open_pairs(folder)) == 1
    with pytest.raises(DataError, match=r"no records.*truncated"):
        open_pairs(folder, check="full")


def test_lists_that_cannot_be_read(listed, tmp_path):
    for rows, why in (
        (["{", "}"], "line 1: no JSON"),
        (['{"picture": "a.png"}'], "found picture"),
        (["[" * 100_000], "no JSON"),
        ([], "no records"),
        (["[]", json.dumps(GOOD | {"caption": ""})], "no records"),
    ):
        with pytest.raises(DataError, match=why):
            open_pairs(listed(*rows))
    (tmp_path / "pairs.jsonl").write_bytes(b"\xff\xfe{}")
    with pytest.raises(DataError, match="UTF-8"):
        open_pairs(tmp_path)
    with pytest.raises(DataError, match="no such file"):
        open_pairs(tmp_path / "nothing")
    with pytest.raises(ValueError, match="did you mean jsonl"):
        open_pairs(tmp_path, layout="json")
    with pytest.raises(ValueError, match="check must be"):
        open_pairs(tmp_path, check="all")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no layout fits"):
        open_pairs(tmp_path / "empty")


def test_names_that_are_there_twice(listed):
    pairs = open_pairs(listed(GOOD | {"id": "x"}, GOOD | {"id": "x"}, GOOD | {"id": "x_2"}))
    assert [record.name for record in pairs] == ["x", "x_2", "x_2_2"]
    assert said(pairs)[0] == "x: the name is there twice; expected unique names; it becomes x_2"
    assert len(pairs.defects) == 2


def test_mask_files_of_several_forms(tmp_path, listed):
    inside = np.zeros((6, 8), bool)
    inside[2:4, 3:6] = True
    Image.fromarray(inside).save(tmp_path / "bits.png")
    Image.fromarray(inside.astype(np.uint8)).save(tmp_path / "ones.png")
    palette = Image.fromarray(inside.astype(np.uint8) * 3).convert("P")
    palette.putpalette([0, 0, 0] * 256)
    palette.save(tmp_path / "palette.png")
    Image.fromarray(inside.astype(np.uint16) * 65535).save(tmp_path / "deep.png")
    Image.fromarray(np.dstack([inside * 255] * 3).astype(np.uint8)).save(tmp_path / "rgb.png")
    names = ("bits", "ones", "palette", "deep", "rgb")
    for record in open_pairs(
        listed(*[GOOD | {"mask": f"{name}.png"} for name in names]), check="full", strict=True
    ):
        assert (record.true_mask((6, 8)) == inside).all()


@pytest.fixture
def tiil(tmp_path):
    """Writes a folder of TIIL with two consistent and some inconsistent annotations."""

    def write(annotations, images=None, consistent=True):
        names = [f"new/{number}.jpg" for number in (1, 2, 3)]
        for name in names:
            picture(tmp_path / name)
        images = images or [{"id": k, "file_name": name} for k, name in enumerate(names, 1)]
        lists = {"inconsistent": {"images": images, "annotations": annotations}}
        if consistent:
            entries = [{"image_id": k, "caption": CAPTION, "segmentation": []} for k in (1, 2)]
            lists["consistent"] = {"images": images[:2], "annotations": entries}
        for name, value in lists.items():
            (tmp_path / f"{name}.json").write_text(json.dumps(value))
        return tmp_path

    return write


def annotation(image, **more):
    return {"image_id": image, "caption": CAPTION, "ori_word": "Rome"} | more


def test_tiil(tiil):
    compressed = SQUARE | {"counts": "72W1"}  # 7, 2, and 39 as 7 + 32 * 1
    folder = tiil(
        [
            annotation(1, segmentation=[[1, 1, 2, 1, 2, 3, 1, 3]], fake_word="PARIS"),
            annotation(2, segmentation=compressed, fake_word=["paris", "mayor"]),
            annotation(3, segmentation=SQUARE, fake_word="bridge"),
            annotation(3, segmentation=[[3, 0, 4, 0, 4, 1, 3, 1]], fake_word="opens"),
        ]
    )
    pairs = open_pairs(folder, strict=True)
    names = ["consistent/1", "consistent/2", "inconsistent/1", "inconsistent/2", "inconsistent/3"]
    assert [record.name for record in pairs] == names
    areas = [int(record.true_mask((6, 8)).sum()) for record in pairs]
    assert areas == [0, 0, 2, 2, 3]
    words = [[word.text for word in record.true_words()] for record in pairs]
    assert words == [[], [], ["Paris"], ["mayor", "Paris"], ["opens", "bridge"]]
    assert [record.label for record in pairs][1:3] == ["consistent", "inconsistent"]


def test_tiil_with_mask_files_and_names_of_ones_own(tiil, tmp_path):
    entries = [annotation(k, region="masks/m.png", wrong="Paris") for k in (1, 2, 3)]
    folder = tiil(entries, consistent=False)
    picture(folder / "masks" / "m.png", value=255, mode="L")
    with pytest.raises(DataError, match=r"masks under .*; keys found: caption, image_id, ori_word"):
        open_pairs(folder)
    with pytest.raises(DataError, match=r"words under .*keys found: .*region, wrong; name"):
        open_pairs(folder, mask_key="region")
    with pytest.raises(DataError, match="masks under mask"):
        open_pairs(folder, mask_key="mask")
    pairs = open_pairs(folder, mask_key="region", word_key="wrong", strict=True)
    assert [record.true_mask((6, 8)).all() for record in pairs] == [True] * 3
    without = open_pairs(folder, mask_key="none", word_key="none", strict=True)
    assert [(record.mask, record.words) for record in without] == [(None, None)] * 3


def test_what_is_wrong_in_tiil(tiil):
    images = [{"id": k, "file_name": "new/1.jpg", "height": 6, "width": 8} for k in (1, 2, 3, 3)]
    images[1] |= {"width": 9}
    images += [{"id": 5, "file_name": "new/9.jpg"}, {"id": 6, "file_name": "new/1.jpg"}, {}]
    entries = [
        annotation(1, segmentation=SQUARE, word="Paris"),
        annotation(2, segmentation=[], word="London"),
        annotation(3, segmentation={"size": [6, 8], "counts": [48]}),
        annotation(4, segmentation=SQUARE, word="Paris"),
        annotation(5, segmentation=SQUARE, word="Paris"),
        annotation(1, segmentation=SQUARE, word="Paris") | {"caption": None},
        7,
    ]
    pairs = open_pairs(tiil(entries, images, consistent=False))
    assert [record.name for record in pairs] == [f"inconsistent/{k}" for k in (1, 2, 3)]
    text = "\n".join(said(pairs))
    for why in (
        "image 4: the id 3 is there twice",
        "image 7: no id",
        "annotation 4: image_id '4' is that of no image",
        "annotation 7: image_id",
        "inconsistent/6: the image has no annotation",
        "inconsistent/2: the list says 6 x 9 pixels; expected the image's 6 x 8",
        "inconsistent/2: no mask",
        "inconsistent/2: the word 'London' is not in the caption",
        "inconsistent/3: inconsistent, but its mask is empty",
        "inconsistent/3: no words",
        "inconsistent/5: no such file",
        "inconsistent/1_2: no caption",
    ):
        assert why in text
    assert len(pairs.defects) == 12
    notes = defect_notes(pairs.defects)
    assert notes[0] == "12 defects; 6 records left out"
    assert notes[1].startswith("left out: ")
    assert (len(notes), notes[-1]) == (12, "2 more in defects.csv")
    folder = pairs.path
    write_defects(folder, pairs.defects)
    assert len((folder / DEFECTS).read_text().splitlines()) == 13
    write_defects(folder, [])
    assert not (folder / DEFECTS).exists()
    assert defect_notes([]) == []


def test_dgm4(tmp_path):
    root = tmp_path / "DGM4"
    picture(root / "origin" / "a.jpg")
    (root / "metadata").mkdir()
    row = {"id": 7, "image": "DGM4/origin/a.jpg", "text": CAPTION, "fake_cls": "orig"}
    row |= {"fake_image_box": [], "fake_text_pos": []}
    both = row | {"fake_cls": "face_swap&text_attribute", "fake_image_box": [2, 1, 5, 20]}
    rows = [
        row,
        both | {"fake_text_pos": [1, 3]},
        row | {"fake_cls": "text_swap", "fake_text_pos": [3]},
        row | {"fake_cls": "face_swap", "fake_image_box": [5, 1, 2, 3]},
        row | {"fake_cls": "text_swap", "fake_text_pos": [7]},
        row | {"fake_cls": None},
    ]
    (root / "metadata" / "val.json").write_text(json.dumps(rows))
    for place in (root, tmp_path, root / "metadata" / "val.json"):
        pairs = open_pairs(place)
        assert (pairs.layout, len(pairs)) == ("dgm4", 5)
        assert len(pairs.defects) == 4
    original, altered, text, face, _ = pairs
    assert (original.label, original.edited, original.split) == ("consistent", "none", "val")
    mask = altered.true_mask((6, 8))
    assert mask[1:, 2:5].all()
    assert mask.sum() == 15
    assert altered.mask == BoxMask((2, 1, 5, 20))
    assert [word.text for word in altered.true_words()] == ["mayor", "Paris"]
    assert (altered.edited, text.edited, face.edited) == ("both", "caption", "image")
    assert (text.mask, face.mask, face.words) == (None, None, None)
    text = "\n".join(said(pairs))
    for why in ("[5, 1, 2, 3]", "no mask", "7 of 7 words", "no fake_cls"):
        assert why in text
    (root / "metadata" / "val.json").write_text('[{"text": "a"}]')
    with pytest.raises(DataError, match="keys found: text"):
        open_pairs(root)


def test_newsclippings(tmp_path):
    news = [
        {"id": k, "caption": f"caption {k}", "image_path": f"./bbc/{k}.jpg", "topic": "x"}
        for k in (1, 2, 3)
    ]
    for k in (1, 2):
        picture(tmp_path / "origin" / "bbc" / f"{k}.jpg")
    (tmp_path / "origin" / "data.json").write_text(json.dumps(news))
    rows = [
        {"id": 1, "image_id": 1, "similarity_score": 0.3, "falsified": False},
        {"id": 1, "image_id": 2, "similarity_score": 0.3, "falsified": True},
        {"id": 2, "image_id": 2, "falsified": True},
        {"id": 1, "image_id": 3, "falsified": True},
        {"id": 9, "image_id": 2, "falsified": True},
        {"id": 2, "image_id": 2},
    ]
    file = tmp_path / "merged" / "val.json"
    file.parent.mkdir()
    file.write_text(json.dumps({"annotations": rows}))
    for visual_news in (tmp_path / "origin", tmp_path / "origin" / "data.json"):
        pairs = open_pairs(file, visual_news=visual_news)
    shown = [(r.caption, r.image.name, r.inconsistent, r.split, r.source) for r in pairs]
    assert shown[:2] == [
        ("caption 1", "1.jpg", False, "val", "1"),
        ("caption 1", "2.jpg", True, "val", "1"),
    ]
    assert len(pairs) == 3
    text = "\n".join(said(pairs))
    for why in ("the ids are 2 and 2", "no such file", "no article 9", "no falsified"):
        assert why in text
    with pytest.raises(DataError, match="--visual-news"):
        open_pairs(file)
    with pytest.raises(DataError, match="one list"):
        open_pairs(file.parent, layout="newsclippings")


def test_reading_lists_needs_no_torch():
    code = "import sys, d_tiil.layouts; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
