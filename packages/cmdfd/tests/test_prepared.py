from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cmdfd.data import AVData
from cmdfd.entries import ClipEntry
from cmdfd.layouts import open_clips
from cmdfd.options import CropOptions
from cmdfd.preparation import prepare_clip
from cmdfd.prepared import (
    crop_settings,
    detector_for,
    is_prepared,
    open_prepared,
)
from cmdfd.preparing_lists import (
    Preparation,
    detector_of,
    folder_names,
    open_or_prepare,
    prepare_list,
    row_of,
)
from papercommons.errors import DataError

HOW = Preparation("none", 32)


@pytest.fixture(scope="module")
def prepared(striped, tmp_path_factory):
    """The striped clips, prepared; tests leave them as they are."""
    folder = tmp_path_factory.mktemp("prepared") / "out"
    prepare_list(open_clips(striped), folder, HOW)
    return folder


def test_clips_are_read_in_pieces(prepared, striped):
    clips = open_prepared(prepared)
    assert (len(clips), clips.size, is_prepared(prepared)) == (24, 32, True)
    assert clips.labels == [k % 2 for k in range(24)]
    assert clips.entries[3].segments == ((0.4, 1.2),)
    whole = prepare_clip(striped / "val_03.mp4", detector="none", size=32)
    assert clips.lengths[3] == len(whole.frames)
    sample = clips.read(3, 7, 12)
    assert np.array_equal(sample.frames, whole.frames[7:19])
    assert np.array_equal(sample.waveform, whole.waveform[640 * 7 : 640 * 19])
    assert sample.lips is None
    assert clips.classes(3) is None


def test_forged_parts_move_with_the_begin_of_the_picture():
    entry = ClipEntry(Path("a.mp4"), 1, "a", segments=((0.1, 0.3), (0.5, 1.0), (1.8, 9.0)))
    row = row_of(entry, "a", 50, begin=0.4)
    assert row["Segments"] == "0.1-0.6;1.4-2"
    assert row_of(entry, "a", 250)["Segments"] == "0.1-0.3;0.5-1;1.8-9"


def test_parts_and_subsets_keep_their_originals(prepared):
    clips = open_prepared(prepared)
    test = clips.of_split("test")
    assert (len(test), clips.of_split("train")) == (16, None)
    picked = test.select(test.entries[5:7])
    assert [one.video.name for one in picked.originals()] == ["test_13.mp4", "test_14.mp4"]
    assert picked.originals()[0].frames == 50
    assert abs(picked.originals()[0].offset) < 0.1
    data = AVData(test, val=clips.of_split("val"), frames_per_batch=200)
    batch = next(iter(data.loader("train")))
    assert batch.frames.shape[2:] == (32, 32)
    assert batch.mfcc.shape[1:] == (4 * batch.frames.shape[1], 13)


def test_a_second_call_makes_only_what_is_new(striped, tmp_path):
    clips = open_clips(striped)
    some = replace(clips, entries=clips.entries[:3])
    prepare_list(some, tmp_path, HOW)
    places = [tmp_path / "clips" / name for name in folder_names(some.entries)]
    (places[1] / "frames.npy").unlink()
    before = [(place / "sound.npy").stat().st_mtime_ns for place in places]
    relabelled = replace(some, entries=(replace(some.entries[0], method="mine"), *some.entries[1:]))
    prepare_list(relabelled, tmp_path, HOW)
    after = [(place / "sound.npy").stat().st_mtime_ns for place in places]
    assert [a == b for a, b in zip(after, before, strict=True)] == [True, False, True]
    assert open_prepared(tmp_path).entries[0].method == "mine"
    prepare_list(some, tmp_path, replace(HOW, size=16))
    assert open_prepared(tmp_path).read(0, 0, 5).frames.shape == (5, 16, 16)


def test_clips_that_cannot_be_used_are_named(striped, tmp_path):
    clips = open_clips(striped)
    (tmp_path / "bad.mp4").write_text("words")
    bad = replace(clips.entries[0], video=tmp_path / "bad.mp4", name="bad", where="line 7")
    mixed = replace(clips, entries=(bad, *clips.entries[:2]))
    with pytest.raises(DataError, match=r"1 of 3 clips cannot be used: line 7: .*bad.mp4"):
        prepare_list(mixed, tmp_path / "out", HOW)
    report = prepare_list(mixed, tmp_path / "out", HOW, skip_bad=True)
    assert (len(report.kept), len(report.faults)) == (2, 1)
    assert "bad.mp4" in (tmp_path / "out" / "defects.csv").read_text()
    assert len(open_prepared(tmp_path / "out")) == 2
    with pytest.raises(DataError, match="1 of 1 clips"):
        prepare_list(replace(clips, entries=(bad,)), tmp_path / "no", HOW, skip_bad=True)


def test_features_of_lips_beside_a_video_cut_the_clip(striped, tmp_path):
    clips = open_clips(striped)
    video = tmp_path / "clip.mp4"
    video.write_bytes(clips.entries[0].video.read_bytes())
    lips = np.arange(40 * 512, dtype=np.float32).reshape(40, 512)
    np.save(tmp_path / "clip.npy", lips)
    one = replace(clips, entries=(replace(clips.entries[0], video=video),))
    prepare_list(one, tmp_path / "out", HOW)
    found = open_prepared(tmp_path / "out")
    assert found.lengths == [40]
    assert found.read(0, 3, 6).lips is None
    assert np.array_equal(replace(found, with_lips=True).read(0, 3, 6).lips, lips[3:9])
    np.save(tmp_path / "clip.npy", lips[:3])
    with pytest.raises(DataError, match="3 frames have lip features"):
        prepare_list(one, tmp_path / "out", HOW)


def test_a_slow_clip_and_odd_names_are_prepared_and_read_again(striped, tmp_path):
    """4 pictures in 0.8 s are 20 frames; names may be long in bytes, or be no text."""
    from papercommons.video.writing import write_clip

    rng = np.random.default_rng(0)
    sound = rng.standard_normal(12_800).astype(np.float32) / 9
    first = open_clips(striped).entries[0]
    names = ("slow", "\u65e5" * 90, "bad\udcff")
    entries = []
    for name in names:
        video = tmp_path / f"{name[:70]}.mp4"
        pictures = rng.integers(0, 256, (4, 32, 32, 3)).astype(np.uint8)
        write_clip(tmp_path / "made.mp4", pictures, fps=5, waveform=sound, overwrite=True)
        (tmp_path / "made.mp4").rename(video)
        entries.append(replace(first, video=video, name=f"{name}.mp4"))
    prepare_list(replace(open_clips(striped), entries=tuple(entries)), tmp_path / "out", HOW)
    clips = open_prepared(tmp_path / "out")
    assert clips.lengths == [20, 20, 20]
    assert [one.frames for one in clips.originals()] == [4, 4, 4]
    assert all(len(name.encode()) <= 103 for name in folder_names(entries))


def test_broken_folders_are_told(prepared, tmp_path):
    clips = open_prepared(prepared)
    with pytest.raises(DataError, match="not a prepared folder"):
        open_prepared(tmp_path)
    folder = tmp_path / "copy"
    (folder / "clips" / "a").mkdir(parents=True)
    head, row = (prepared / "list.csv").read_text().splitlines()[:2]
    name = clips.entries[0].video.parent.name
    (folder / "list.csv").write_text(f"{head}\n{row.replace(name, 'a')}\n")
    (folder / "facts.json").write_text("{}")
    for file, content in (("frames.npy", b"PK\x05\x06" + bytes(18)), ("sound.npy", b"")):
        (folder / "clips" / "a" / file).write_bytes(content)
    with pytest.raises(DataError, match="does not say how faces were cut"):
        open_prepared(folder)
    (folder / "facts.json").write_text(json.dumps({"crop": dict(clips.crop)}))
    with pytest.raises(DataError, match=r"frames\.npy: not readable"):
        open_prepared(folder).read(0, 0, 5)
    np.save(folder / "clips" / "a" / "frames.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(DataError, match="not readable"):
        open_prepared(folder).read(0, 0, 5)
    np.save(folder / "clips" / "a" / "frames.npy", np.zeros((9, 32, 32), np.uint8))
    with pytest.raises(DataError, match=r"expected uint8 \(\d+, 32, 32\), got uint8 \(9, 32, 32\)"):
        open_prepared(folder).read(0, 0, 5)
    (folder / "facts.json").write_text(
        json.dumps({"crop": crop_settings("lbp", 32, swapped=False)})
    )
    with pytest.raises(DataError, match="prepare both in the same way"):
        open_prepared([prepared, folder])


def test_raw_lists_are_prepared_once(striped, prepared, tmp_path):
    line = (striped / "list.csv").read_text().splitlines()
    (tmp_path / "two.csv").write_text("\n".join(line[:3]))
    places = [prepared, tmp_path / "two.csv"]
    clips = open_or_prepare(places, tmp_path / "cache", how=HOW, root=striped)
    assert len(clips) == 26
    made = sorted((tmp_path / "cache").rglob("frames.npy"))
    assert len(made) == 2
    before = [path.stat().st_mtime_ns for path in made]
    open_or_prepare(places, tmp_path / "cache", how=HOW, root=striped)
    assert [path.stat().st_mtime_ns for path in made] == before


def test_the_detector_of_made_clips(tmp_path):
    made, other = tmp_path / "made", tmp_path / "other"
    made.mkdir(), other.mkdir()
    (made / "facts.json").write_text(json.dumps({"settings": {"kinds": ["real"]}}))
    assert detector_of([made], "auto") == "none"
    assert detector_of([other], "auto") == "lbp"
    assert detector_of([made], "mtcnn") == "mtcnn"
    with pytest.raises(DataError, match="prepare each by itself"):
        detector_of([made, other], CropOptions().detector)
    crop = crop_settings("none", 48, swapped=False, made=True)
    assert detector_for(crop) == "lbp"
    assert detector_for(crop_settings("none", 48, swapped=False)) == "none"


def test_names_of_folders_keep_the_people(striped):
    entry = open_clips(striped).entries[0]
    named = [
        replace(entry, name="wav2lip+id00001-id00002", people=("id00001", "id00002", "id00003")),
        replace(entry, name="a/b.mp4", people=()),
        replace(entry, name="a/b.mp4", people=()),
        replace(entry, name="../../x", people=()),
        replace(entry, name="n" * 300, people=()),
    ]
    names = folder_names(named)
    assert names[0] == "wav2lip_id00001-id00002_id00003"
    assert len(set(names)) == 5
    assert all(name.replace("_", "").replace("-", "").isalnum() for name in names)
    assert len(names[4]) == 100
