"""One reader, whose lists and tables are all written by the helpers here: so over 400 lines."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from multi_edits.benchmark import CATEGORIES, decode_mask, encode_mask, open_benchmark
from multi_edits.benchmark_checks import read_literal
from papercommons.errors import DataError
from PIL import Image

GOOD = {
    "id": "1",
    "image_path": "1_change_object_80/cat.png",
    "source_prompt": "a cat, sitting on a wooden chair",
    "target_prompt": "a [red] [dog], sitting on a chair",
    "edit_action": {
        "red": {"position": 1, "edit_type": 6, "action": "+"},
        "dog": {"position": 1, "edit_type": 1, "action": "cat"},
        "wooden": {"position": 5, "edit_type": 3, "action": "-"},
    },
    "aspect_mapping": {"dog": ["red"], "chair": []},
    "blended_words": ["cat,dog"],
    "mask": "9 3 17 2",
    "mask_size": [8, 8],
}


def png(height=8, width=8, color=(200, 30, 30)):
    stream = io.BytesIO()
    Image.new("RGB", (width, height), color).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
def listed(tmp_path):
    """Writes records as a list, with an image at each image_path that has none."""

    def write(*records, name="list.json"):
        for record in records:
            place = record.get("image_path")
            if isinstance(place, str) and place.startswith(tuple("0123456789")):
                image = tmp_path / place
                image.parent.mkdir(parents=True, exist_ok=True)
                image.write_bytes(png())
        path = tmp_path / name
        path.write_text(json.dumps(list(records)))
        return path

    return write


def only(path, **options):
    benchmark = open_benchmark(path, **options)
    assert len(benchmark) == 1
    return benchmark.records[0], [str(defect) for defect in benchmark.defects], benchmark


def test_masks_of_the_reference(shared_files):
    with np.load(shared_files / "parity/multi-edits/editing_metrics.npz") as file:
        values = {name: file[name] for name in file.files}
    sizes = [(f"rle{k}", (512, 512)) for k in range(5)]
    sizes += [(f"small_rle{k}", (64, 64)) for k in range(3)]
    for name, size in sizes:
        wanted = values.get(f"{name}_mask")
        if wanted is None:
            wanted = np.unpackbits(values[f"{name}_mask_packed"]).reshape(size)
        assert (decode_mask(values[name], size) == wanted.astype(bool)).all(), name
        text = " ".join(map(str, values[name]))
        assert (decode_mask(text, size) == wanted.astype(bool)).all(), name


@given(st.lists(st.lists(st.booleans(), min_size=5, max_size=5), min_size=1, max_size=6))
def test_masks_come_back(rows):
    mask = np.array(rows)
    runs = encode_mask(mask)
    assert (decode_mask(runs, mask.shape, border=False, strict=True) == mask).all()
    brute = np.zeros(mask.size, dtype=bool)
    for start, length in zip(runs[::2], runs[1::2], strict=True):
        brute[start : start + length] = True
    assert (brute.reshape(mask.shape) == mask).all()


def test_overlapping_runs_and_the_border():
    inside = decode_mask([6, 3, 7, 3], (4, 5), border=False)
    assert np.flatnonzero(inside).tolist() == [6, 7, 8, 9]
    with_border = decode_mask([], (4, 5))
    assert with_border.sum() == 14
    assert not with_border[1:3, 1:4].any()


@pytest.mark.parametrize(
    ("runs", "why"),
    [
        ([1, 2, 3], "pairs"),
        ("1 x", "numbers"),
        ("-1 2", "numbers"),
        ([64, 1], "outside"),
        ([60, 5], "past"),
    ],
)
def test_bad_masks(runs, why):
    with pytest.raises(DataError, match=why):
        decode_mask(runs, (8, 8), strict=True)


def test_a_good_record(listed):
    record, defects, benchmark = only(listed(GOOD), strict=True)
    assert not defects
    assert (record.key, record.target) == ("1_change_object_80/1", "a red dog, sitting on a chair")
    found = [(e.old, e.new, e.position, e.object) for e in record.edits]
    # the comma leans on the word that is replaced, and stays
    assert found == [
        ("", "red", 1, "dog"),
        ("cat,", "dog,", 1, "dog"),
        ("wooden", "", 5, ""),
    ]
    assert record.types == (6, 1, 3)
    assert record.open_image().size == (8, 8)
    assert record.mask is not None
    assert record.mask.shape == (8, 8)
    assert record.has_background
    assert benchmark.usable == benchmark.records


def test_the_digest_tells_records_apart(listed):
    first = only(listed(GOOD))[0].digest()
    assert first == only(listed(GOOD))[0].digest()
    other = [GOOD | {"mask": "9 4"}, GOOD | {"target_prompt": "a [red] [dog] sitting on a chair"}]
    others = [only(listed(record))[0].digest() for record in other]
    path = listed(GOOD)
    (path.parent / GOOD["image_path"]).write_bytes(png(color=(0, 0, 0)))
    assert len({first, *others, only(path)[0].digest()}) == 4


def edited(**changes):
    action = {"dog": {"position": 1, "edit_type": 1, "action": "cat"} | changes}
    return GOOD | {
        "edit_action": action,
        "target_prompt": "a dog, sitting on a wooden chair",
        "aspect_mapping": {"dog": []},
    }


@pytest.mark.parametrize(
    ("record", "says", "fatal"),
    [
        (GOOD | {"source_prompt": ""}, "the source prompt has 0 characters", True),
        (GOOD | {"target_prompt": 3}, "the target prompt has 0 characters", True),
        (GOOD | {"source_prompt": "a " * 2000}, "source prompt has 3,999 characters", True),
        (edited(action="cow"), "'cow' is not in the source prompt", True),
        (edited() | {"target_prompt": "a cow"}, "'dog' is not in the target prompt", False),
        (edited(position=4), "position 4 is not where the phrase begins; expected 1", False),
        (edited(position=99), "position 99 is out of range; expected 1", False),
        (edited(position=99, action="+"), "position 99 is out of range; expected at most 7", True),
        (edited(position=-1), "position -1, action 'cat'; expected a number >= 0", True),
        (edited(position=None), "position None", True),
        (edited(position=1e400), "position inf", True),
        (edited(action=["cat"]), "action ['cat']", True),
        (edited(edit_type=10), "edit_type is 10; expected a number from 1 to 9", False),
        (edited(edit_type="?"), "edit_type is '?'", False),
        (GOOD | {"edit_action": "__import__('os')"}, "neither JSON nor a Python literal", True),
        (GOOD | {"edit_action": "[" * 30_000}, "at most 20,000 are read", True),
        (GOOD | {"edit_action": ["cat"]}, "'cat' is no edit", True),
        (GOOD | {"edit_action": None, "target_prompt": GOOD["source_prompt"]}, "no edits", True),
        (GOOD | {"mask": "1 2 3"}, "3 numbers; expected pairs", False),
        (GOOD | {"mask": {"a": 1}}, "mask: expected a list", False),
        (GOOD | {"mask": "60 9"}, "a run ends at 69, past the 8 x 8 pixels", False),
        (GOOD | {"mask": "64 1"}, "a run lies outside the 8 x 8", False),
        (GOOD | {"mask_size": [0, 3]}, "mask_size is [0, 3]", False),
        (GOOD | {"mask_size": [8, 9]}, "has 8 x 8 pixels; expected the mask's 8 x 9", False),
        (GOOD | {"image_path": "gone.png"}, "no such file", True),
        (GOOD | {"image_path": "../../etc/hosts"}, "leads out of", True),
        (GOOD | {"image_path": "list.json"}, "not a readable image", True),
        (GOOD | {"image_path": None}, "names no image", True),
        (GOOD | {"aspect_mapping": {"chair": ["blue"]}}, "the attribute 'blue'", False),
        (GOOD | {"aspect_mapping": "{"}, "aspect_mapping: neither JSON", False),
        (
            GOOD | {"target_prompt": "a red dog, sitting on a wooden chair"},
            "'wooden' is deleted and still in the target prompt",
            False,
        ),
        (
            GOOD | {"target_prompt": "a red dog, sitting on a big chair"},
            "its edits give 'a red dog, sitting on a chair'",
            False,
        ),
        (
            edited() | {"edit_action": [
                {"phrase": "dog", "position": 1, "edit_type": 1, "action": "cat"},
                {"a dog": {"position": 0, "edit_type": 1, "action": "a cat"}},
            ]},
            "another edit changes",
            True,
        ),
    ],
)  # fmt: skip
def test_defects(listed, record, says, fatal):
    path = listed(record)
    _, defects, benchmark = only(path)
    assert any(says in defect for defect in defects), defects
    assert (benchmark.usable == ()) == fatal
    assert all(len(defect.splitlines()) == 1 for defect in defects)
    with pytest.raises(DataError, match="defects in all"):
        open_benchmark(path, strict=True)


def test_a_picture_of_very_many_pixels_is_left_out(listed, tmp_path):
    Image.new("1", (8000, 6000)).save(tmp_path / "large.png")
    _, defects, benchmark = only(listed(GOOD | {"image_path": "large.png"}))
    assert "8000 x 6000 pixels, more than 40,000,000; make it smaller" in defects[0]
    assert not benchmark.usable


def test_the_published_examples(shared_files):
    benchmark = open_benchmark(shared_files / "data/pie-bench/annotation_examples.json")
    assert len(benchmark) == 6
    assert not benchmark.usable  # no image is published with them
    found = {str(d) for d in benchmark.defects if d.expected != "a readable image"}
    wanted = {
        "figure9_b: edit bird -> square: 'bird' is not in the source prompt",
        "figure9_c: 'on the road' is deleted and still in the target prompt",
        "figure9_c: aspect_mapping gives 'fence' the attribute 'red'",
        "demo_notebook: edit man sitting -> man standing: position 2 is not where the phrase "
        "begins",
        "demo_notebook: its edits give 'a man standing in a boat is silhouetted against the sunset "
        "ducks on the water with Alps mountain in the background'",
    }
    assert {text.split(";")[0] for text in found} == wanted
    page = next(record for record in benchmark if record.id == "project_page_example")
    assert [str(edit) for edit in page.edits] == [
        "+ red",
        "cat -> dog",
        "+ with flowers in mouth",
        "sitting -> standing",
        "wooden -> metal",
    ]
    assert [edit.object for edit in page.edits] == ["dog", "dog", "flowers", "dog", "chair"]
    assert page.types == (6, 1, 2, 5, 7)
    assert not page.has_background  # its mask is the whole image


def test_pie_bench(tmp_path):
    images = tmp_path / "data" / "annotation_images"
    place = "8_change_background_80/1_artificial/1_animal/000.jpg"
    (images / place).parent.mkdir(parents=True)
    Image.new("RGB", (512, 512)).save(images / place)
    record = {
        "image_path": place,
        "original_prompt": "a dog on a [beach]",
        "editing_prompt": "a dog on a [green meadow]",
        "editing_instruction": "change the beach",
        "editing_type_id": "8",
        "blended_word": "beach meadow",
        "mask": [0, 10],
    }
    (tmp_path / "data" / "mapping_file.json").write_text(json.dumps({"000": record}))
    found, defects, _ = only(tmp_path)
    assert not defects
    assert found.key == "8_change_background_80/000"
    assert found.source == "a dog on a beach"
    assert [str(edit) for edit in found.edits] == ["beach -> green meadow"]
    assert found.types == (8,)
    assert found.blended_words == ("beach,meadow",)
    assert not found.has_background
    assert only(tmp_path, border=False)[0].mask.sum() == 10


def test_lists_of_records_may_repeat_ids(listed):
    (path := listed(GOOD)).write_text(json.dumps([GOOD, GOOD]))
    benchmark = open_benchmark(path)
    assert [record.id for record in benchmark] == ["1", "1_2"]
    assert "its id is another record's too" in str(benchmark.defects[0])


@pytest.fixture
def parquet(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    tables = pytest.importorskip("pyarrow.parquet")

    def write(rows, config=CATEGORIES[1]):
        path = tmp_path / config / "V1-00000-of-00001.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        tables.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=2)
        return tmp_path

    return write


def row(number, image, quote=json.dumps):
    texts = ("source_prompt", "target_prompt", "mask")
    values = {name: GOOD[name] for name in texts} | {"id": f"{number:03d}"}
    values |= {name: quote(GOOD[name]) for name in ("edit_action", "aspect_mapping")}
    values["blended_words"] = quote(GOOD["blended_words"])
    return values | {"mask": "5000 9", "image": {"bytes": image, "path": "../../secret.png"}}


@pytest.mark.parametrize("quote", [json.dumps, repr])
def test_pie_bench_plus_plus(parquet, quote):
    colors = [(40 * k, 0, 0) for k in range(5)]
    root = parquet([row(k, png(512, 512, colors[k]), quote) for k in range(5)])
    parquet([row(0, png(512, 512), quote)], CATEGORIES[2])
    benchmark = open_benchmark(root, strict=True)
    assert [record.id for record in benchmark] == ["000", "001", "002", "003", "004", "000"]
    assert len({record.key for record in benchmark}) == 6
    for record, color in zip(benchmark, colors, strict=False):
        assert record.open_image().getpixel((3, 3)) == color
        assert record.types == (6, 1, 3)
        assert record.aspect_mapping == {"dog": ("red",), "chair": ()}
        assert record.blended_words == ("cat,dog",)
        assert record.mask is not None
        assert record.mask.sum() == 4 * 511 + 9
    assert len({record.digest() for record in benchmark}) == 6


def test_broken_parquet(parquet):
    rows = [row(0, b"no image"), row(1, None), row(2, png(8, 8))]
    root = parquet(rows, "11_unknown")
    benchmark = open_benchmark(root)
    found = "\n".join(map(str, benchmark.defects))
    assert "row 0: not a readable image" in found
    assert "row 1: no image bytes" in found
    assert "8 x 8 pixels; expected the mask's 512 x 512" in found
    assert "unknown configuration '11_unknown'" in found
    assert [record.id for record in benchmark.usable] == ["002"]
    (root / "11_unknown" / "more.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(DataError, match=r"more\.parquet: not a readable parquet file"):
        open_benchmark(root)


@pytest.mark.parametrize(("rows", "size"), [(1, 1 << 30), (9, 100)])
def test_a_parquet_that_states_too_much_is_not_read(parquet, monkeypatch, rows, size):
    monkeypatch.setattr("multi_edits.benchmark_parquet.MAX_ROWS", rows)
    monkeypatch.setattr("multi_edits.benchmark_parquet.MAX_GROUP_BYTES", size)
    with pytest.raises(DataError, match="are read; split it"):
        open_benchmark(parquet([row(0, png(512, 512)), row(1, png(512, 512))]))


def test_a_parquet_file_without_columns(parquet):
    with pytest.raises(DataError, match="no column source_prompt, target_prompt"):
        open_benchmark(parquet([{"image": {"bytes": png(), "path": ""}}]))


def test_an_image_that_breaks_later(parquet):
    image = png(512, 512)
    (record,) = open_benchmark(parquet([row(0, image[: len(image) // 2])]), strict=True)
    with pytest.raises(DataError, match=r"V1-00000-of-00001\.parquet row 0: not a readable image"):
        record.open_image()


@pytest.mark.parametrize(
    ("text", "why"),
    [("{", "not readable as JSON"), ("3", "an object of records"), ("[3]", "entry 1 is '3'")],
)
def test_broken_lists(tmp_path, text, why):
    (tmp_path / "list.json").write_text(text)
    with pytest.raises(DataError, match=why):
        open_benchmark(tmp_path / "list.json")


def test_no_benchmark(tmp_path):
    with pytest.raises(DataError, match="no mapping_file"):
        open_benchmark(tmp_path)
    with pytest.raises(DataError, match="no such file or folder"):
        open_benchmark(tmp_path / "gone")
    (tmp_path / "mapping_file.json").write_text("{}")
    with pytest.raises(DataError, match="no records"):
        open_benchmark(tmp_path)


def test_nothing_in_a_text_is_run(monkeypatch):
    monkeypatch.setattr("builtins.eval", lambda *a: pytest.fail("evaluated"))
    assert read_literal("{'a': (1, 'b')}") == {"a": (1, "b")}
    for text in ("print(1)", "1 if 1 else 2", "[i for i in (1, 2)]", "a", "", "(" * 9_000):
        with pytest.raises(DataError):
            read_literal(text)


def test_needs_no_torch():
    code = (
        "import sys, multi_edits.benchmark, multi_edits.metrics.columns\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_images_that_are_none(tmp_path, listed):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    assert only(listed(GOOD | {"mask_size": [16_384, 16_384]}))[0].mask is None
    for place in ("pipe.png", "loop.png", "\ud800.png", "a\0b.png", "x" * 300, "../x.png"):
        _, defects, benchmark = only(listed(GOOD | {"image_path": place}))
        assert not benchmark.usable
        assert "readable image" in defects[0]


@pytest.mark.parametrize("key", ["category", "id"])
def test_odd_names_and_prompts_are_only_text(listed, key):
    record, _, _ = only(listed(GOOD | {key: "../../x"}))
    assert getattr(record, key) == "../../x"
    assert only(listed(GOOD | {"source_prompt": "a \ud800 cat"}))[0].source == "a ? cat"
