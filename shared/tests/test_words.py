from __future__ import annotations

import csv
import hashlib
import io
import logging
import pickle
import subprocess
import sys
import tarfile

import numpy as np
import pytest
from papercommons.data.words import open_words
from papercommons.errors import DataError
from PIL import Image

COLUMNS = ("file_name", "writer", "page", "sample", "status", "seen", "unseen", "shuffled")
COLUMNS += ("has_15features", "bytes", "sha256")


def png(seed, size=(64, 64), ink=40):
    """Bytes of a PNG, (width, height), with a dark bar that depends on the seed."""
    picture = Image.new("RGB", size, (255, 255, 255))
    at = 1 + seed % (size[0] - 4)
    picture.paste((ink, ink, ink), (at, 2, at + 3, size[1] - 2 - seed // 60))
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def put(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def row(name, content, **columns):
    known = {"file_name": name, "writer": name[:4], "page": "a", "sample": 1, "status": "clean"}
    known |= {"unseen": "train", "bytes": len(content), "has_15features": 1}
    return known | {"sha256": hashlib.sha256(content).hexdigest()} | columns


def write_pack(root, images, *, suffix="", **changed):
    """Write a packed copy; `changed` gives columns of the image of that name, without .png."""
    rows = [row(n, c, **changed.get(n.removesuffix(".png"), {})) for n, c in images.items()]
    with (root / f"index{suffix}.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    with tarfile.open(root / f"images{suffix}.tar", "w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in images.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return root


IMAGES = {f"{w:04d}a_num{n}.png": png(5 * w + n) for w in (1, 2, 3) for n in (1, 2)}
JUNK = {"0001b_num1.png": png(40)}
CHANGED = {
    "0001a_num1": {"seen": "train+val"},
    "0003a_num1": {"unseen": "val"},
    "0003a_num2": {"unseen": "val"},
    "0001b_num1": {"status": "junk", "unseen": ""},
}


@pytest.fixture
def pack(tmp_path):
    return write_pack(tmp_path, IMAGES | JUNK, **CHANGED)


@pytest.fixture
def original(tmp_path):
    root = tmp_path / "original"
    for name, content in IMAGES.items():
        part = "ValidationSet" if name.startswith("0003") else "TrainingSet"
        put(root / "unseen-dataset" / part / name, content)
    for name, content in JUNK.items():
        put(root / "unseen-dataset" / "Junk" / name, content)
    put(root / "unseen-dataset" / "TrainingSet" / ".DS_Store", b"x")
    put(root / "unseen-dataset" / "Junk.zip", b"x")
    return root


def test_a_pack_gives_its_clean_images_and_splits(pack):
    words = open_words(pack)
    assert words.names == sorted(IMAGES)
    assert words.writers == ["0001", "0001", "0002", "0002", "0003", "0003"]
    assert words.pages == ["a"] * 6
    assert words.samples == [1, 2] * 3
    assert set(words.status) == {"clean"}
    assert words.published["unseen"] == {"train": [0, 1, 2, 3], "val": [4, 5]}
    assert words.published["seen"] == {"train": [0], "val": [0]}
    expected = np.asarray(Image.open(io.BytesIO(IMAGES["0002a_num1.png"])).convert("L"))
    np.testing.assert_array_equal(words.read(2), expected)
    assert words.read(2).dtype == np.uint8
    np.testing.assert_array_equal(words.load([5, 2])[1], expected)
    assert words.load().shape == (6, 64, 64)
    assert words.index("0002a_num1.png") == 2


def test_both_layouts_of_cedar_give_the_same_items(pack, original):
    packed, published = open_words(pack), open_words(original)
    assert packed.names == published.names
    assert packed.published["unseen"] == published.published["unseen"]
    assert packed.digest == published.digest
    np.testing.assert_array_equal(packed.load(), published.load())


def test_variant_all_adds_junk_and_the_older_release(pack, original):
    extra = {"0004a_num1.png": png(50)}
    with pytest.raises(DataError, match=r"index_extra\.csv: no such file"):
        open_words(pack, variant="all")
    write_pack(pack, extra, suffix="_extra", **{"0004a_num1": {"status": "extra"}})
    words = open_words(pack, variant="all")
    assert words.status == ["clean", "clean", "junk", "clean", "clean", "clean", "clean", "extra"]
    with pytest.raises(DataError, match="X-2-All-Data"):
        open_words(original, variant="all")
    for part, images in (("TrainingSet", IMAGES | JUNK), ("ValidationSet", extra)):
        for name, content in images.items():
            put(original / "X-2-All-Data" / part / name, content)
    again = open_words(original, variant="all")
    assert (again.names, again.status) == (words.names, words.status)


def test_words_travel_to_workers(pack):
    words = open_words(pack)
    words.index("0001a_num1.png")
    again = pickle.loads(pickle.dumps(words))
    np.testing.assert_array_equal(again.load(), words.load())


def flip_a_byte(pack, name):
    content = bytearray((pack / "images.tar").read_bytes())
    with tarfile.open(pack / "images.tar") as archive:
        content[archive.getmember(name).offset_data + 60] ^= 1
    (pack / "images.tar").write_bytes(content)


def test_a_flipped_byte_is_named_whenever_the_image_is_read(pack, caplog):
    flip_a_byte(pack, "0002a_num1.png")
    message = r"images\.tar: 0002a_num1\.png differs from its sha256"
    with pytest.raises(DataError, match=message):
        open_words(pack, verify=True)
    with pytest.raises(DataError, match=message):
        open_words(pack).load()
    with caplog.at_level(logging.WARNING, logger="papercommons"):
        words = open_words(pack, skip_bad=True)
    assert words.bad == ["0002a_num1.png"]
    assert "0002a_num1.png" in caplog.text
    assert len(words) == 5
    assert words.published["unseen"]["train"] == [0, 1, 2]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (png(1, ink=200), r"0001a_num1\.png: no ink \(no pixel darker than 128\)"),
        (png(1, size=(50, 64)), "64 x 50 pixels, expected 64 x 64; pass --resize 64"),
        (b"no picture", r"not a readable PNG"),
    ],
)
def test_bad_images_are_named(tmp_path, content, message):
    write_pack(tmp_path, IMAGES | {"0001a_num1.png": content})
    with pytest.raises(DataError, match=message):
        open_words(tmp_path).load()
    assert open_words(tmp_path, skip_bad=True).bad == ["0001a_num1.png"]


def test_a_pack_must_agree_with_its_index(pack):
    text = (pack / "index.csv").read_text()
    for wrong, message in (
        (text.replace("sha256", "hash"), "no column sha256"),
        (text.replace("0003a_num2.png,0003", "0003a_num2.png,0004"), "0003a_num2.png is broken"),
        (text.replace("0003a_num2", "0009a_num2").replace(",0003,", ",0009,"), r"broken"),
        (text + text.splitlines()[1] + "\n", "names an image twice"),
        (text.replace(f",{len(IMAGES['0001a_num1.png'])},", ",7,"), "the index says 7"),
    ):
        (pack / "index.csv").write_text(wrong)
        with pytest.raises(DataError, match=message):
            open_words(pack)
    (pack / "index.csv").write_bytes(b"\xff\xfe" + text.encode())
    with pytest.raises(DataError, match="not a readable csv"):
        open_words(pack)


def test_a_missing_member_is_named(pack):
    kept = {name: c for name, c in (IMAGES | JUNK).items() if name != "0002a_num2.png"}
    text = (pack / "index.csv").read_text()
    write_pack(pack, kept)
    (pack / "index.csv").write_text(text)
    with pytest.raises(DataError, match=r"images\.tar: has no 0002a_num2\.png"):
        open_words(pack)


def add_member(path, member):
    with tarfile.open(path, "a") as archive:
        archive.addfile(member, io.BytesIO(b"\0" * member.size))


@pytest.mark.parametrize("name", ["../0009a_num1.png", "/0009a_num1.png", "sub/0009a_num1.png"])
def test_members_that_leave_the_folder_are_refused(pack, name):
    add_member(pack / "images.tar", tarfile.TarInfo(name))
    with pytest.raises(DataError, match="is not a plain file of this folder"):
        open_words(pack)


def test_links_and_giants_in_a_pack_are_refused(pack):
    before = (pack / "images.tar").read_bytes()
    link = tarfile.TarInfo("0009a_num1.png")
    link.type, link.linkname = tarfile.SYMTYPE, "elsewhere"
    giant = tarfile.TarInfo("0009a_num2.png")
    giant.size = (1 << 20) + 1
    for member, message in ((link, "not a plain file"), (giant, "above 1 MiB")):
        add_member(pack / "images.tar", member)
        with pytest.raises(DataError, match=message):
            open_words(pack)
        (pack / "images.tar").write_bytes(before)


def test_a_cut_or_broken_tar_is_an_error(pack):
    content = (pack / "images.tar").read_bytes()
    for broken in (content[:900], b"no tar" * 200):
        (pack / "images.tar").write_bytes(broken)
        with pytest.raises(DataError, match=r"images\.tar"):
            open_words(pack).load()


def test_original_names_must_fit(original):
    put(original / "unseen-dataset" / "TrainingSet" / "1_and.png", png(1))
    with pytest.raises(DataError, match=r"1_and\.png: not a name like 0001a_num1\.png"):
        open_words(original)


def test_a_folder_per_writer(tmp_path):
    for name in ("w2/1.png", "w1/deep/2.png", "w1/1.png"):
        put(tmp_path / name, png(len(name)))
    words = open_words(tmp_path)
    assert words.names == ["w1/1.png", "w1/deep/2.png", "w2/1.png"]
    assert words.writers == ["w1", "w1", "w2"]
    assert words.samples == [1, 2, 1]
    assert words.published == {}
    assert words.index("2.png") == 1
    with pytest.raises(DataError, match=r"no image '1\.png'"):  # two have that name
        words.index("1.png")


def test_a_folder_with_splits(tmp_path):
    for name in ("train/w1/1.png", "train/w2/1.png", "valid/w3/1.png", "test/w1/9.png"):
        put(tmp_path / name, png(len(name)))
    words = open_words(tmp_path)
    assert words.writers == ["w1", "w1", "w2", "w3"]
    assert words.published == {"published": {"test": [0], "train": [1, 2], "val": [3]}}


def test_cvl_names_tell_the_writer(tmp_path):
    names = ("trainset/words/0052/0052-1-0-3-word.tif", "testset/words/0061-6-2-0-a-b.tif")
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True)
        Image.new("L", (90, 30), 255).save(tmp_path / name)
    words = open_words(tmp_path)
    assert words.writers == ["0061", "0052"]
    assert (words.pages, words.samples) == (["6", "1"], [0, 3])
    assert words.published["published"] == {"test": [0], "train": [1]}
    with pytest.raises(DataError, match="no ink"):
        words.read(0)


def test_iam_needs_its_forms(tmp_path):
    put(tmp_path / "words/a01/a01-000u/a01-000u-00-02.png", png(1))
    put(tmp_path / "words/a01/a01-003/a01-003-01-00.png", png(2))
    with pytest.raises(DataError, match=r"without forms\.txt, which names the writers"):
        open_words(tmp_path)
    (tmp_path / "forms.txt").write_text("#--- forms ---\na01-000u 000 2 prt 7 5 52 36\n")
    with pytest.raises(DataError, match=r"form a01-003 is not in forms\.txt"):
        open_words(tmp_path)
    with (tmp_path / "forms.txt").open("a") as file:
        file.write("a01-003 017 2 prt 7 5 52 36\n")
    words = open_words(tmp_path)
    assert words.writers == ["000", "017"]
    assert (words.pages, words.samples) == (["a01-000u", "a01-003"], [2, 100])


def test_sizes_must_agree_unless_resized(tmp_path):
    put(tmp_path / "w1/1.png", png(1))
    put(tmp_path / "w2/2.png", png(2, size=(100, 40)))
    with pytest.raises(DataError, match=r"w2/2\.png is 40 x 100 pixels and w1/1\.png 64 x 64"):
        open_words(tmp_path).load()
    images = open_words(tmp_path, resize=50).load()
    assert images.shape == (2, 50, 50)
    ink = images < 128
    assert ink[0].sum(1).max() == 2
    assert ink[0].any(0).all() or ink[0].any(1).all()  # cut to its ink, so it fills one side
    assert ink[1].any(0).all() or ink[1].any(1).all()
    rows = ink[1].any(1).nonzero()[0]
    assert abs(rows[0] - (49 - rows[-1])) <= 1  # in the middle


def test_resizing_an_image_of_that_size_changes_nothing(pack):
    np.testing.assert_array_equal(open_words(pack, resize=64).load(), open_words(pack).load())


def test_duplicates(tmp_path):
    one, two, three = png(1), png(2), png(3)
    contents = {"w1/1": one, "w1/2": one, "w1/3": one, "w2/1": two, "w3/1": two, "w3/2": three}
    for name, content in contents.items():
        put(tmp_path / f"{name}.png", content)
    words = open_words(tmp_path)
    # of one writer's all but the first; of what two writers claim, all
    assert [words.names[i] for i in words.duplicates()] == [
        "w1/2.png",
        "w1/3.png",
        "w2/1.png",
        "w3/1.png",
    ]


def test_the_digest_follows_contents_and_writers(pack):
    before = open_words(pack).digest
    assert open_words(pack).digest == before
    write_pack(pack, IMAGES | {"0001a_num1.png": png(33)})
    assert open_words(pack).digest != before


def test_what_is_refused(tmp_path):
    with pytest.raises(ValueError, match="variant must be clean or all, got 'junk'"):
        open_words(tmp_path, variant="junk")
    with pytest.raises(ValueError, match="resize must be >= 1, got 0"):
        open_words(tmp_path, resize=0)
    with pytest.raises(DataError, match="no such folder"):
        open_words(tmp_path / "absent")
    with pytest.raises(DataError, match="no images in it"):
        open_words(tmp_path)
    put(tmp_path / "a.png", png(1, ink=255))
    with pytest.raises(DataError, match=r"a\.png: whose writing it is cannot be told"):
        open_words(tmp_path)
    put(tmp_path / "w" / "b.png", png(1, ink=255))
    (tmp_path / "a.png").unlink()
    with pytest.raises(DataError, match="no readable images"):
        open_words(tmp_path, skip_bad=True)
    with pytest.raises(DataError, match="no images are chosen"):
        open_words(tmp_path).load([])


def test_it_needs_no_torch():
    code = "import papercommons.data.pairs, sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_real_images(shared_files):
    words = open_words(shared_files / "data" / "cedar-and")
    assert len(words) == 12555
    assert words.read(0).shape == (64, 64)
    assert [words.names[i] for i in words.duplicates()] == [
        *("0328aa_num1.png", "0330aa_num1.png"),
        *(f"0676b_num{n}.png" for n in (1, 2, 3, 4)),
    ]
