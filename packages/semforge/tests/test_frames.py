from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from papercommons.faces.boxes import Face
from PIL import Image
from semforge import crops
from semforge.crops import Cropper, read_face_image
from semforge.entries import Entry, FaceList
from semforge.frames import expand


@pytest.fixture
def film(tmp_path):
    """A film of 20 frames, frame k of brightness 10 k."""
    pytest.importorskip("av")
    from papercommons.video.writing import write_clip

    write_clip(tmp_path / "film.mp4", [np.full((48, 64, 3), 10 * k, np.uint8) for k in range(20)])
    return tmp_path / "film.mp4"


def listed(*files, longer=False):
    entries = [Entry(Path(file), (0,), Path(file).name, Path(file).name) for file in files]
    return FaceList(tuple(entries), "list", longer=longer)


def brightness(entries):
    return [round(float(np.asarray(Image.open(entry.file)).mean()) / 10) for entry in entries]


def test_frames_are_spaced_over_the_whole_video(film, tmp_path):
    found = expand(listed(film), Cropper(size=32), tmp_path / "cache", n_frames=5)
    assert [entry.name for entry in found.entries] == [f"film.mp4#{k}" for k in range(5)]
    assert brightness(found.entries) == [0, 4, 9, 14, 19]
    assert {entry.video for entry in found.entries} == {"film.mp4"}
    assert all(read_face_image(entry.file)[0].shape == (32, 32, 3) for entry in found.entries)


def test_boxes_choose_among_the_frames_they_name(film, tmp_path):
    boxes = tmp_path / "boxes.csv"
    rows = [f"film.mp4,10,10,30,30,{k}\n" for k in (2, 3, 7, 11, 16)]
    boxes.write_text("path,left,top,right,bottom,frame\n" + "".join(rows))
    cropper = Cropper("boxes", 32, boxes=str(boxes))
    found = expand(listed(film), cropper, tmp_path / "cache", n_frames=3)
    assert [entry.name for entry in found.entries] == ["film.mp4#2", "film.mp4#7", "film.mp4#16"]
    assert brightness(found.entries) == [2, 7, 16]


def test_short_videos_are_left_out_where_the_set_wants_that(film, tmp_path):
    found = expand(listed(film, longer=True), Cropper(size=32), tmp_path / "c", n_frames=21)
    assert found.entries == ()
    assert "has 20 frames, fewer than 21" in found.faults["film.mp4"]
    assert len(expand(listed(film), Cropper(size=32), tmp_path / "c", n_frames=21).entries) == 20


def test_frames_without_a_face_are_counted(film, tmp_path, monkeypatch):
    def bright(image):
        return [Face(np.array([10.0, 10, 30, 30]), 1)] if image.mean() > 95 else []

    monkeypatch.setattr(crops, "open_detector", lambda name: bright)
    crops._detector.cache_clear()
    try:
        found = expand(listed(film), Cropper("detect", 32), tmp_path / "c", n_frames=5)
        assert [entry.name for entry in found.entries] == ["film.mp4#3", "film.mp4#4"]
        assert found.notes == ("3 frames of 1 videos show no face and are left out",)
        none = expand(listed(film), Cropper("detect", 32), tmp_path / "c", n_frames=1)
        assert "film.mp4: no face found" in none.faults["film.mp4"]
    finally:
        crops._detector.cache_clear()


def test_what_is_cut_out_is_kept_until_something_changes(film, tmp_path):
    def cut(**options):
        found = expand(
            listed(film), Cropper(size=options.pop("size", 32)), tmp_path / "c", **options
        )
        return {entry.file: entry.file.stat().st_mtime_ns for entry in found.entries}

    first = cut(n_frames=3)
    assert cut(n_frames=3) == first
    assert not set(cut(n_frames=2)) & set(first)
    assert not set(cut(n_frames=3, size=40)) & set(first)
    next(iter(first)).unlink()  # half lost: made again
    again = cut(n_frames=3)
    assert set(again) == set(first)
    (next(iter(first)).parent / "done.json").write_text("{")
    assert set(cut(n_frames=3)) == set(first)
    os.utime(film, (1, 1))
    assert not set(cut(n_frames=3)) & set(first)


def test_faults_are_told_apart(tmp_path):
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    (tmp_path / "broken.png").write_bytes(b"no image")
    (tmp_path / "empty").mkdir()
    Image.new("RGB", (40, 40)).save(tmp_path / "fine.png")
    names = ("broken.mp4", "broken.png", "empty", "fine.png")
    found = expand(listed(*(tmp_path / n for n in names)), Cropper(size=32), tmp_path / "c")
    assert [entry.name for entry in found.entries] == ["fine.png"]
    assert set(found.faults) == {"broken.mp4", "broken.png", "empty"}
    assert "no images in it" in found.faults["empty"]


@pytest.mark.slow
def test_more_processes_change_nothing(tmp_path):
    for name in "ab":
        Image.fromarray(np.random.default_rng(3).integers(0, 256, (60, 60, 3), np.uint8)).save(
            tmp_path / f"{name}.png"
        )
    (tmp_path / "boxes.csv").write_text(
        "path,left,top,right,bottom\na.png,5,5,30,30\nb.png,9,9,40,40\n"
    )
    cropper = Cropper("boxes", 32, boxes=str(tmp_path / "boxes.csv"))
    faces = listed(tmp_path / "a.png", tmp_path / "b.png")
    one = expand(faces, cropper, tmp_path / "one")
    two = expand(faces, cropper, tmp_path / "two", num_workers=2)
    assert [e.file.read_bytes() for e in one.entries] == [e.file.read_bytes() for e in two.entries]
