from __future__ import annotations

import io
import os
import struct
import zlib

import numpy as np
import pytest
from papercommons.data.images import (
    ImageFolder,
    drop_unreadable,
    find_images,
    find_splits,
    list_image_folder,
    read_image,
)
from papercommons.errors import DataError
from PIL import Image
from PIL.PngImagePlugin import PngInfo

links = pytest.mark.skipif(os.name == "nt", reason="links need rights")


@pytest.fixture
def put(tmp_path):
    """Write small images at the paths given, below one folder, and return the folder."""

    def write(*paths):
        for path in paths:
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (4, 4)).save(tmp_path / path)
        return tmp_path

    return write


def pixel(path, at=(0, 0)):
    return read_image(path).getpixel(at)


def test_classes_are_sorted_and_labels_index_them(put):
    folder = list_image_folder(put("b/2.png", "b/1.JPG", "a/x.webp", "a/deep/er/y.bmp"))
    assert folder.classes == ["a", "b"]
    assert folder.paths == ["a/deep/er/y.bmp", "a/x.webp", "b/1.JPG", "b/2.png"]
    assert folder.labels == [0, 0, 1, 1]
    assert len(folder) == 4


def test_what_systems_leave_behind_is_passed_over(put):
    root = put(
        "a/1.png", "a/._1.png", "a/.ipynb_checkpoints/1.png", "__MACOSX/a/._1.png", ".t/1.png"
    )
    (root / "a" / "Thumbs.db").write_text("x")
    (root / "a" / "folder.png").mkdir()
    (root / "loose.txt").write_text("x")
    folder = list_image_folder(root)
    assert folder.classes == ["a"]
    assert folder.paths == ["a/1.png"]
    assert [path.name for path in find_images([root])] == ["1.png"]


def test_layout_without_splits(put):
    assert list(find_splits(put("a/1.png", "b/1.png"))) == ["all"]


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (("train", "val", "test"), {"train", "val", "test"}),
        (("Train", "Valid"), {"train", "val"}),
        (("training", "testing", "validation"), {"train", "val", "test"}),
    ],
)
def test_layout_with_splits(put, names, splits):
    found = find_splits(put(*(f"{name}/{c}/1.png" for name in names for c in "ab")))
    assert set(found) == splits
    assert all(split.classes == ["a", "b"] for split in found.values())
    assert found["train"].root.name == names[0]


def test_a_class_may_be_called_train(put):
    found = find_splits(put("train/1.png", "car/1.png"))
    assert found["all"].classes == ["car", "train"]


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        ((), "no sub-folders; expected one sub-folder of images per class"),
        (("1.png",), "no sub-folders"),
        (("train/1.png", "test/1.png"), "no sub-folders"),
        (("train/a/1.png", "val/a/1.png", "valid/a/1.png"), "val and valid both mean val"),
        (("val/a/1.png", "test/a/1.png"), "has test and val but no train; add"),
        (
            ("train/a/1.png", "train/b/1.png", "val/a/1.png", "val/c/1.png"),
            r"val: its classes differ from those of .*train: b, c; they must agree",
        ),
    ],
)
def test_layouts_that_cannot_be_meant(put, paths, message):
    with pytest.raises(DataError, match=message):
        find_splits(put(*paths))


def test_class_without_images(put):
    root = put("a/1.png")
    (root / "b").mkdir()
    (root / "b" / "1.txt").write_text("x")
    with pytest.raises(DataError, match=r"b: class without images \(\.bmp, \.jpeg, "):
        find_splits(root)


@pytest.mark.parametrize("function", [find_splits, list_image_folder])
def test_missing_folder(tmp_path, function):
    with pytest.raises(DataError, match=r"nope: no such folder; expected .*nope/CLASS/\*\.png"):
        function(tmp_path / "nope")


@links
@pytest.mark.parametrize("link", ["in/a/2.png", "in/b", "in/a/deep"])
def test_links_out_of_the_folder_are_refused(put, link):
    root = put("in/a/1.png", "out/1.png")
    target = root / "out" / "1.png" if link.endswith("png") else root / "out"
    (root / link).symlink_to(target)
    with pytest.raises(DataError, match="link out of the folder; copy what it means"):
        list_image_folder(root / "in")


@links
def test_links_inside_the_folder(put):
    root = put("a/1.png", "b/1.png")
    (root / "a" / "2.png").symlink_to(root / "b" / "1.png")
    (root / "a" / "loop").symlink_to(root)
    (root / "a" / "dead.png").symlink_to(root / "nope.png")
    assert list_image_folder(root).paths == ["a/1.png", "a/2.png", "b/1.png"]
    outer = root / "outer"
    outer.symlink_to(root)
    assert len(list_image_folder(outer)) >= 3


@links
def test_a_pipe_that_is_named_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(DataError, match="no such file"):
        read_image(tmp_path / "pipe.png")


def test_pipes_are_no_images(put):
    root = put("a/1.png")
    os.mkfifo(root / "a" / "2.png")
    assert list_image_folder(root).paths == ["a/1.png"]
    assert [path.name for path in find_images([root])] == ["1.png"]


def test_unreadable_folder_is_no_silent_loss(put, monkeypatch):
    root, scandir = put("a/1.png", "a/deep/2.png"), os.scandir

    def refuse(path):
        if str(path).endswith("deep"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(PermissionError):
        list_image_folder(root)


def test_find_images_keeps_the_order_given(put):
    root = put("z.png", "b/2.png", "b/1.png", "b/c/3.png")
    found = find_images([str(root / "z.png"), root / "b"])
    assert [path.name for path in found] == ["z.png", "1.png", "2.png", "3.png"]
    (root / "empty").mkdir()
    with pytest.raises(DataError, match="empty: no images in it"):
        find_images([root / "empty"])
    with pytest.raises(DataError, match="nope: no such file or folder"):
        find_images([root / "nope"])


def test_read_image_is_rgb(tmp_path):
    Image.new("RGB", (3, 2), (1, 2, 3)).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    assert (image.mode, image.size, image.getpixel((0, 0))) == ("RGB", (3, 2), (1, 2, 3))


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.new("L", (2, 2), 7), (7, 7, 7)),
        (Image.new("1", (2, 2), 1), (255, 255, 255)),
        (Image.new("RGBA", (2, 2), (10, 20, 30, 0)), (255, 255, 255)),
        (Image.new("RGBA", (2, 2), (10, 20, 30, 255)), (10, 20, 30)),
        (Image.new("LA", (2, 2), (100, 51)), (224, 224, 224)),
        (Image.fromarray(np.full((2, 2), 0x8040, np.uint16)), (0x80, 0x80, 0x80)),
        (Image.fromarray(np.full((2, 2), 0xFFFF, np.uint16)), (255, 255, 255)),
    ],
)
def test_modes(tmp_path, image, expected):
    image.save(tmp_path / "a.png")
    assert pixel(tmp_path / "a.png") == expected


def test_palette_with_transparent_colour(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 0, 0] + [0] * 762)
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "a.png", transparency=bytes([0, 255]))
    assert pixel(tmp_path / "a.png", (0, 0)) == (255, 255, 255)
    assert pixel(tmp_path / "a.png", (1, 0)) == (200, 0, 0)


def test_grey_tiff_of_32_bits(tmp_path):
    Image.fromarray(np.full((2, 2), 0x8000, np.int32)).save(tmp_path / "a.tif")
    assert pixel(tmp_path / "a.tif") == (128, 128, 128)
    for values in (np.full((2, 2), 70_000, np.int32), np.full((2, 2), 0.5, np.float32)):
        Image.fromarray(values).save(tmp_path / "b.tif")
        with pytest.raises(DataError, match="32-bit pixels; convert it to 8 or 16 bits"):
            read_image(tmp_path / "b.tif")


def test_cmyk(tmp_path):
    Image.new("CMYK", (8, 8), (0, 0, 0, 0)).save(tmp_path / "a.jpg")
    assert pixel(tmp_path / "a.jpg") == (255, 255, 255)


def test_exif_rotation(tmp_path):
    image = Image.new("RGB", (16, 8))
    image.paste((255, 255, 255), (0, 0, 8, 8))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "a.jpg", exif=exif, quality=95)
    upright = read_image(tmp_path / "a.jpg")
    assert upright.size == (8, 16)
    assert upright.getpixel((4, 2))[0] > 200
    assert upright.getpixel((4, 13))[0] < 50


def png_of(width, height):
    """Return a PNG that claims a size and holds one row."""

    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = zlib.compress(bytes(width + 1))
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", pixels), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize(("width", "height"), [(20_000, 9_000), (50_000, 50_000)])
def test_bombs_are_not_unpacked(tmp_path, width, height):
    (tmp_path / "a.png").write_bytes(png_of(width, height))
    with pytest.raises(DataError, match=r"a\.png: has more than 170,000,000 pixels; make it"):
        read_image(tmp_path / "a.png")


def test_large_photographs_are_read_without_warnings(tmp_path):
    Image.new("1", (10_000, 10_000)).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").size == (10_000, 10_000)


def broken(kind):
    buffer = io.BytesIO()
    if kind in ("jpeg", "png"):
        noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
        Image.fromarray(noise).save(buffer, kind)
        return buffer.getvalue()[:1000]
    if kind == "text bomb":
        text = PngInfo()
        text.add_text("a", "x" * 80_000_000, zip=True)
        Image.new("L", (2, 2)).save(buffer, "png", pnginfo=text)
        return buffer.getvalue()
    if kind == "eps":  # Pillow gives it to Ghostscript, a program
        Image.new("L", (2, 2)).save(buffer, "eps")
        return buffer.getvalue()
    return {"text": b"no image", "empty": b"", "header": png_of(8, 8)[:40]}[kind]


@pytest.mark.parametrize("kind", ["jpeg", "text", "empty", "png", "header", "text bomb", "eps"])
def test_broken_images(tmp_path, kind):
    path = tmp_path / "a.jpg"
    path.write_bytes(broken(kind))
    with pytest.raises(DataError, match=r"a\.jpg: not a readable image \(.+\); remove it, or pass"):
        read_image(path)


def test_the_reason_is_told(tmp_path):
    (tmp_path / "a.jpg").write_bytes(broken("jpeg"))
    with pytest.raises(DataError, match="truncated"):
        read_image(tmp_path / "a.jpg")
    (tmp_path / "b.jpg").write_bytes(broken("text"))
    with pytest.raises(DataError, match="not in a format that Pillow knows"):
        read_image(tmp_path / "b.jpg")
    for path in (tmp_path / "nope.png", tmp_path):
        with pytest.raises(DataError, match="no such file"):
            read_image(path)


def test_drop_unreadable(put):
    root = put("a/1.png", "a/2.png", "b/1.png")
    (root / "a" / "1.png").write_bytes(b"x")
    folder = list_image_folder(root)
    kept, bad = drop_unreadable(folder)
    assert kept == ImageFolder(root, ["a/2.png", "b/1.png"], [0, 1], ["a", "b"])
    assert bad == [str(root / "a" / "1.png")]
    (root / "b" / "1.png").write_bytes(b"x")
    with pytest.raises(DataError, match="b: no image of this class can be read"):
        drop_unreadable(folder)
