from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from cmdfd.entries import people_in
from cmdfd.lips import read_lip_features
from cmdfd.lists import OFFICIAL, parse_segments, read_list, text_of_segments
from papercommons.errors import DataError

HEADER = ",".join(OFFICIAL)
OTHERS = "/data2/them/My_Test"
ROWS = [
    f"wav2lip+id07434-id07445,{OTHERS}/origin/id07445_cK.wav,{OTHERS}/wav2lip/id07434-id07445.mp4,"
    "1,0,1,0,1,670.0,430080,25.0,16000",
    f"origin+id03188_wIJ,{OTHERS}/origin/id03188_wIJ.wav,{OTHERS}/origin/id03188_wIJ.mp4,"
    "0,0,0,1,1,661.0,423936,25.0,16000",
]
FAV = (
    "id01216+00025_id01217_7lV+ARVF,/p/TRAIN/FAKE_FSGAN_C/American/WOMEN/id01216/IRx/00025_16khz"
    ".wav,/p/TRAIN/FAKE_FSGAN_C/American/WOMEN/id01216/IRx/00025_id01217_7lV.mp4,"
    "1,0,1,1,1,146.0,94208,25.0,16000"
)
GOOD = "x,a.mp4,a.mp4,1,0,1,1,1,50.0,32000,25.0,16000"


def write(folder, *rows, header=HEADER, name="clips.csv", mark=""):
    (folder / name).write_text("\n".join([mark + header, *rows]) + "\n", encoding="utf-8")
    return folder / name


def test_official_rows_with_a_byte_order_mark(tmp_path):
    fake, real = read_list(write(tmp_path, *ROWS, mark="\ufeff"), files=False)
    assert (fake.entire, fake.audio_fake, fake.video_fake) == (1, 0, 1)
    assert (fake.same_person, fake.in_sync) == (0, 1)
    assert (fake.face, fake.voice, fake.method) == ("id07434", "id07445", "wav2lip")
    assert (fake.frames, fake.samples, fake.fps, fake.sample_rate) == (670, 430_080, 25.0, 16_000)
    assert fake.offset == pytest.approx(430_080 / 16_000 - 670 / 25)
    assert str(fake.audio) == f"{OTHERS}/origin/id07445_cK.wav"
    assert (real.entire, real.method, real.face, real.voice) == (0, "real", "id03188", "id03188")
    assert fake.where == "line 2"


def test_rows_of_fakeavceleb_say_method_people_and_clip(tmp_path):
    (entry,) = read_list(write(tmp_path, FAV), files=False)
    assert entry.method == "fsgan_c"
    assert entry.identities == ("id01216", "id01217")
    assert (entry.face, entry.voice) == ("id01216", "")
    assert entry.source == "id01216/IRx"


def test_root_takes_the_place_of_the_authors_folders(tmp_path):
    for name in ("origin/id07445_cK.wav", "wav2lip/id07434-id07445.mp4"):
        (tmp_path / "mine" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "mine" / name).touch()
    (tmp_path / "mine/origin/id03188_wIJ.wav").touch()
    (tmp_path / "mine/origin/id03188_wIJ.mp4").touch()
    path = write(tmp_path, *ROWS)
    fake, real = read_list(path, tmp_path / "mine")
    assert fake.video == tmp_path / "mine/wav2lip/id07434-id07445.mp4"
    assert real.audio == tmp_path / "mine/origin/id03188_wIJ.wav"
    with pytest.raises(DataError, match=r"2 of 2 lines .*line 2: .*is not below .*--root"):
        read_list(path)
    (tmp_path / "mine/origin/id03188_wIJ.mp4").unlink()
    with pytest.raises(DataError, match=r"1 of 2 lines .*line 3: no end of .*id03188_wIJ.mp4"):
        read_list(path, tmp_path / "mine")
    with pytest.raises(DataError, match="no such folder"):
        read_list(path, tmp_path / "gone")


def test_sound_in_the_video_and_columns_of_ours(tmp_path):
    (tmp_path / "a.mp4").touch()
    header = HEADER + ",Split,Method,Face,Voice,Segments"
    (entry,) = read_list(
        write(tmp_path, GOOD + ",valid,partial,p1,p2,0.4-1.2;1.5-2", header=header)
    )
    assert entry.audio is None
    assert (entry.split, entry.method, entry.face, entry.voice) == ("val", "partial", "p1", "p2")
    assert entry.segments == ((0.4, 1.2), (1.5, 2.0))
    assert text_of_segments(entry.segments) == "0.4-1.2;1.5-2"
    assert parse_segments(text_of_segments(entry.segments)) == entry.segments


@pytest.mark.parametrize(
    ("row", "what"),
    [
        (GOOD.replace(",1,0,1,1,1,", ",2,0,1,1,1,"), r"ENtire_Label must be 0 or 1, is '2'"),
        (GOOD.replace(",1,0,1,1,1,", ",1,0.0,1,1,1,"), r"Audio_Label must be 0 or 1, is '0.0'"),
        (GOOD.replace(",1,0,1,1,1,", ",,0,1,1,1,"), "ENtire_Label must be 0 or 1"),
        (GOOD.replace(",1,0,1,1,1,", ",0,0,1,1,1,"), "labelled real, but its sound or its picture"),
        (GOOD.replace("25.0", "0"), "FPS must be above 0, is 0"),
        (GOOD.replace("25.0", "nan"), "FPS must be a number, is 'nan'"),
        (GOOD.replace("50.0", "3.0"), "3 frames at 25 per second; a clip has at least 5"),
        (GOOD.replace("50.0", "5.0").replace("25.0", "50.0"), "2 frames at 25 per second"),
        (GOOD.replace("50.0", "50.5"), "Frame_Len must be a whole number, is 50.5"),
        (GOOD.replace("32000", "-1"), "-1 samples of sound"),
        (GOOD.replace("32000", "many"), "Audio_Len must be a number"),
        (GOOD.replace("a.mp4", "../a.mp4"), r"\.\./a.mp4 leads out of"),
        (GOOD.replace("a.mp4", "/etc/passwd"), "/etc/passwd is not below"),
        (GOOD.replace("a.mp4", "out.mp4"), "out.mp4 leads out of"),
        (GOOD.replace("a.mp4,a.mp4", "a.mp4,"), "names no file"),
        (GOOD.replace("a.mp4", "gone.mp4"), "no such file: .*gone.mp4"),
        (GOOD.replace("a.mp4", "./"), "names no file"),
        (GOOD.replace("a.mp4", "a" * 300), "no file has so long a name"),
    ],
)
def test_each_defect_is_one_line_and_counted(tmp_path, row, what):
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "a.mp4").touch()
    (tmp_path / "b.mp4").touch()
    (inside / "out.mp4").symlink_to(tmp_path / "b.mp4")
    path = write(inside, GOOD, row)
    with pytest.raises(DataError, match=rf"1 of 2 lines cannot be used: line 3: .*{what}") as error:
        read_list(path)
    assert "\n" not in str(error.value)
    clips = read_list(path, skip_bad=True)
    assert len(clips) == len(clips.faults) == 1
    with pytest.raises(DataError, match="no clips that can be used; line 2: "):
        read_list(write(inside, row), skip_bad=True)


def test_many_defects_are_counted_and_the_first_are_shown(tmp_path):
    rows = [f"{k},{k}.mp4,{k}.mp4,1,0,1,1,1,3,32000,25.0,16000" for k in range(9)]
    with pytest.raises(DataError, match=r"9 of 9 lines .*line 6: .*\(and 4 more\); .*--skip-bad"):
        read_list(write(tmp_path, *rows), files=False)


def test_few_frames_that_last_long_enough_are_a_clip(tmp_path):
    slow = GOOD.replace("50.0", "4.0").replace("25.0", "5.0")
    assert read_list(write(tmp_path, slow), files=False).entries[0].video_seconds == 0.8


def test_what_can_be_dealt_with_is_noted(tmp_path):
    odd = "y,b.mp4,b.mp4,0,0,0,1,1,50.0,28000,30.0,44100"
    notes = read_list(write(tmp_path, GOOD, odd), files=False).notes
    assert len(notes) == 3
    assert "1 clips: sound and picture differ by more than 0.2 s" in notes[0]
    assert "25 frames per second" in notes[1]
    assert "16 kHz" in notes[2]


def test_files_that_are_no_lists(tmp_path):
    header = HEADER.replace("Sync_Label,", "").replace("FPS,", "")
    with pytest.raises(DataError, match="no column Sync_Label and FPS"):
        read_list(write(tmp_path, "1", header=header), files=False)
    with pytest.raises(DataError, match="neither path and label nor the official columns"):
        read_list(write(tmp_path, "1,2", header="a,b"))
    with pytest.raises(DataError, match="no such file"):
        read_list(tmp_path / "gone.csv")
    (tmp_path / "b.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="not UTF-8 text"):
        read_list(tmp_path / "b.csv")
    with pytest.raises(DataError, match="not readable as CSV"):
        read_list(write(tmp_path, '"a.mp4,1', header="path,label"))
    with pytest.raises(DataError, match="no clips that can be used"):
        read_list(write(tmp_path))


def test_plain_lists(tmp_path):
    for name in ("a b.mp4", "id00017.mp4", "c.mp4"):
        (tmp_path / name).touch()
    path = tmp_path / "clips.txt"
    path.write_text("# mine\na b.mp4 0\n\nid00017.mp4\tTest 1\nc.mp4 train 1\n")
    clips = read_list(path)
    assert [entry.name for entry in clips] == ["a b.mp4", "id00017.mp4", "c.mp4"]
    assert clips.labels == (0, 1, 1)
    assert [entry.split for entry in clips] == ["", "test", "train"]
    assert [entry.method for entry in clips] == ["real", "fake", "fake"]
    assert clips.of_split("test")[0].identities == ("id00017",)
    rows = ["a b.mp4,1,dub,ann", "c.mp4,0,,"]
    fake, real = read_list(write(tmp_path, *rows, header="path,label,method,face"))
    assert (fake.method, fake.face, real.method) == ("dub", "ann", "real")
    path.write_text("a b.mp4 5\n")
    with pytest.raises(DataError, match="line 1: label must be 0 or 1, is '5'"):
        read_list(path)


def test_a_clip_twice(tmp_path):
    again = GOOD.replace("x,", "y,", 1)
    clips = read_list(write(tmp_path, GOOD, again), files=False)
    assert len(clips) == 1
    assert clips.notes == (f"{tmp_path / 'clips.csv'}: 1 clips are there again and count once",)
    other = again.replace(",1,0,1,1,1,", ",0,0,0,1,1,")
    with pytest.raises(DataError, match="line 3: y has label 0, and 1 at line 2; keep one"):
        read_list(write(tmp_path, GOOD, other), files=False)


@pytest.mark.parametrize("text", ["2-1", "1", "a-b", "1-2-3", "-1-2", "1-1", "1-inf"])
def test_segments_that_are_none(text):
    with pytest.raises(DataError, match="expected begin < end in seconds"):
        parse_segments(text)


def test_people_are_whole_words():
    assert people_in("wid00017 id12 00025_id01217_7lV+id00018-id00018") == ("id01217", "id00018")
    assert people_in(Path("x/id01216/IRx/00025.mp4").as_posix()) == ("id01216",)


def test_lip_features_beside_a_video(tmp_path, caplog):
    video, path = tmp_path / "a.mp4", tmp_path / "a.npy"
    assert read_lip_features(video, 9) is None
    values = np.random.default_rng(0).normal(size=(10, 512)).astype(np.float16)
    np.save(path, values)
    assert np.array_equal(read_lip_features(video, 10), values.astype(np.float32))
    with caplog.at_level(logging.WARNING, "papercommons"):
        found = read_lip_features(video, 9)
    assert found.shape == (9, 512)
    assert found.dtype == np.float32
    assert "10 rows of lip features for 9 frames" in caplog.text
    assert read_lip_features(video, 12).shape == (10, 512)
    np.save(path, np.zeros((10, 256), np.float32))
    with pytest.raises(DataError, match=r"expected float \(T, 512\), got float32 \(10, 256\)"):
        read_lip_features(video, 10)
    np.save(path, np.full((10, 512), np.nan, np.float32))
    with pytest.raises(DataError, match="not finite"):
        read_lip_features(video, 10)
    np.save(path, np.array([{"a": 1}], object), allow_pickle=True)
    with pytest.raises(DataError, match="not readable as an array"):
        read_lip_features(video, 10)
    for content in (b"\x93NUMPY", b"PK\x03\x04", b"PK\x05\x06" + bytes(18)):  # the last: a zip
        path.write_bytes(content)
        with pytest.raises(DataError, match="not readable as an array"):
            read_lip_features(video, 10)
    with path.open("wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": (1 << 40, 512)}
        np.lib.format.write_array_header_1_0(file, header)
    with pytest.raises(DataError, match="not readable as an array"):
        read_lip_features(video, 10)


@pytest.mark.parametrize(
    ("column", "number"),
    [(-4, "1e300"), (-3, "1" + "0" * 300), (-2, "1e300"), (-2, "1e-300"), (-1, "1e-300")],
)
def test_numbers_that_no_clip_has(tmp_path, column, number):
    cells = GOOD.split(",")
    cells[column] = number
    with pytest.raises(DataError, match="no clip has a length or rate of"):
        read_list(write(tmp_path, ",".join(cells)), files=False)


def test_a_list_of_very_many_columns(tmp_path):
    header = "path,label," + ",".join(map(str, range(100_000)))
    assert len(read_list(write(tmp_path, "a.mp4,1", header=header), files=False)) == 1
