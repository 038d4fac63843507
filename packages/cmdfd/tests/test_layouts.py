from __future__ import annotations

import json

import pytest
from cmdfd.layouts import open_clips
from papercommons.errors import DataError


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_folders(tmp_path):
    touch(tmp_path, "real/id00012_a.mp4", "fake/x.mp4", "fake/w2l/deep/y.MP4", "fake/notes.txt")
    clips = open_clips(tmp_path)
    assert [(e.name, e.entire, e.method) for e in clips] == [
        ("fake/w2l/deep/y.MP4", 1, "w2l"),
        ("fake/x.mp4", 1, "fake"),
        ("real/id00012_a.mp4", 0, "real"),
    ]
    assert clips.entries[2].identities == ("id00012",)


def test_folders_with_splits_and_four_classes(tmp_path):
    touch(tmp_path, "train/RealVideo-FakeAudio/a.mp4", "Test/FakeVideo-RealAudio/b.mp4")
    touch(tmp_path, "Test/RealVideo-RealAudio/c.mp4")
    clips = open_clips(tmp_path)
    assert {(e.name, e.split, e.audio_fake, e.video_fake, e.entire) for e in clips} == {
        ("train/RealVideo-FakeAudio/a.mp4", "train", 1, 0, 1),
        ("Test/FakeVideo-RealAudio/b.mp4", "test", 0, 1, 1),
        ("Test/RealVideo-RealAudio/c.mp4", "test", 0, 0, 0),
    }
    touch(tmp_path, "val/whatever/a.mp4")
    with pytest.raises(DataError, match="whatever: expected folders such as real and fake"):
        open_clips(tmp_path)


META = """source,target1,target2,method,category,type,race,gender,path,
id00076,-,-,real,A,RealVideo-RealAudio,African,men,00109.mp4,FakeAVCeleb/RealVideo-RealAudio/African/men/id00076
id00166,id00178,10,wav2lip,D,FakeVideo-FakeAudio,African,men,1_id02_wavtolip.mp4,FakeAVCeleb/FakeVideo-FakeAudio/African/men/id00166
"""


def test_fakeavceleb(tmp_path):
    real = "RealVideo-RealAudio/African/men/id00076/00109.mp4"
    fake = "FakeVideo-FakeAudio/African/men/id00166/1_id02_wavtolip.mp4"
    touch(tmp_path, real, fake)
    (tmp_path / "meta_data.csv").write_text(META)
    one, other = open_clips(tmp_path)
    assert (one.video, one.entire, one.method) == (tmp_path / real, 0, "real")
    assert (one.face, one.voice) == ("id00076", "id00076")
    assert (other.audio_fake, other.video_fake, other.method) == (1, 1, "wav2lip")
    assert other.identities == ("id00166", "id00178")
    (tmp_path / fake).unlink()
    with pytest.raises(DataError, match="1 of 2 lines cannot be used: line 3: no such file"):
        open_clips(tmp_path)
    (tmp_path / "meta_data.csv").write_text(META.replace("RealVideo-RealAudio,", "?,"))
    with pytest.raises(DataError, match="line 2: expected a type such as RealVideo-RealAudio"):
        open_clips(tmp_path, files=False)
    (tmp_path / "meta_data.csv").write_text(META.replace("race", "x"))
    with pytest.raises(DataError, match="no column race"):
        open_clips(tmp_path)
    (tmp_path / "meta_data.csv").write_text('a"b,"c"d\n')
    with pytest.raises(DataError, match="not readable as CSV"):
        open_clips(tmp_path)
    (tmp_path / "meta_data.csv").write_text(META.replace(".mp4", ".MP4"))
    assert open_clips(tmp_path, files=False).entries[0].video.suffix == ".MP4"


LAV = {"n_fakes": 1, "modify_video": True, "modify_audio": False, "split": "test"}
LAV |= {"file": "test/1.mp4", "fake_periods": [[2.4, 3.88], [0.5, 1]], "original": "test/0.mp4"}
LAV |= {"duration": 8.52, "video_frames": 213, "audio_frames": 136_320}
REAL = {"file": "test/0.mp4", "modify_video": False, "modify_audio": False, "fake_periods": []}
DF1M = {"file": "id00012/21U/00001/both.mp4", "split": "train", "modify_type": "both_modified"}
DF1M |= {"fake_segments": [[1, 2]], "video_frames": 100, "original": "id00012/21U/00001/real.mp4"}


def write_json(folder, *items):
    (folder / "metadata.json").write_text(json.dumps(items))
    return folder / "metadata.json"


def test_lists_with_forged_parts(tmp_path):
    touch(tmp_path, "test/1.mp4", "test/0.mp4", "train/id00012/21U/00001/both.mp4")
    fake, real, both = open_clips(write_json(tmp_path, LAV, REAL, DF1M))
    assert fake.segments == ((0.5, 1.0), (2.4, 3.88))
    assert (fake.entire, fake.audio_fake, fake.video_fake, fake.method) == (1, 0, 1, "video")
    assert fake.offset == pytest.approx(0.0)
    assert (real.entire, real.method) == (0, "real")
    assert fake.source == real.source == "test/0.mp4"
    assert (both.method, both.split, both.identities) == ("audio+video", "train", ("id00012",))
    assert both.video == tmp_path / "train/id00012/21U/00001/both.mp4"  # in its split's folder
    assert both.offset is None
    with pytest.raises(DataError, match=r"clip 1: x+\.\.\.: no file has so long a name"):
        open_clips(write_json(tmp_path, LAV | {"file": "x" * 300}))


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"file": 3}, "clip 1: expected an object with the text file"),
        ({"file": "../1.mp4"}, "leads out of"),
        ({"file": "x" * 300}, "no file has so long a name"),
        ({"fake_periods": [[3, 2]]}, r"forged part \[3, 2\]: expected begin < end"),
        ({"fake_periods": "no"}, r"expected \[\[begin, end\], ...\]"),
        ({"fake_periods": [[1, 99]]}, "ends after the clip, which lasts 8.52 s"),
        ({"modify_video": False}, "labelled real, but has forged parts"),
        ({"modify_video": "yes"}, "expected modify_type, or modify_audio and modify_video"),
        ({"modify_type": "x"}, "modify_type must be one of real, audio_modified"),
        ({"split": "maybe"}, "split must be train, val or test"),
        ({"video_frames": 2}, "2 frames at 25 per second; a clip has at least 5"),
        ({"video_frames": "9"}, "video_frames must be a whole number"),
    ],
)
def test_broken_parts(tmp_path, change, what):
    with pytest.raises(DataError, match=rf"1 of 1 lines cannot be used: .*{what}"):
        open_clips(write_json(tmp_path, LAV | change), files=False)


def test_what_is_no_set_of_clips(tmp_path):
    with pytest.raises(DataError, match="no such file or folder"):
        open_clips(tmp_path / "gone")
    with pytest.raises(DataError, match="nor folders real and fake in it"):
        open_clips(tmp_path)
    (tmp_path / "a.MPG").touch()
    with pytest.raises(DataError, match=r"which of its videos are real; .* with --label real"):
        open_clips(tmp_path)
    with pytest.raises(ValueError, match="no layout 'lists'; did you mean list"):
        open_clips(tmp_path, layout="lists")
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(DataError, match="not readable as JSON"):
        open_clips(tmp_path / "a.json")
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(DataError, match="expected a list of clips"):
        open_clips(tmp_path / "a.json")


def test_several_places_become_one(tmp_path):
    touch(tmp_path, "one/real/a.mp4", "one/fake/b.mp4", "two/c.mp4")
    (tmp_path / "two/list.csv").write_text("path,label\nc.mp4,1\n")
    clips = open_clips([tmp_path / "one", open_clips(tmp_path / "two")])
    assert [entry.name for entry in clips] == ["fake/b.mp4", "real/a.mp4", "c.mp4"]
