from __future__ import annotations

import wave

import numpy as np
import pytest
from cmdfd import preparation, tracks
from cmdfd.clips import read_clip, to_gray
from cmdfd.preparation import prepare_clip
from papercommons.errors import DataError
from papercommons.faces.boxes import Face
from papercommons.video.writing import write_clip

BOX = (8.0, 10.0, 24.0, 26.0)


def tone(seconds, rate=16_000):
    return (0.3 * np.sin(2 * np.pi * 440 * np.arange(round(seconds * rate)) / rate)).astype("f4")


def pictures(count, size=48):
    """Grey ramps that get brighter."""
    ramp = np.linspace(0, 60, size)[:, None] + np.linspace(0, 90, size)[None]
    return [(ramp + 3 * k).clip(0, 255).astype(np.uint8) for k in range(count)]


@pytest.fixture
def write(tmp_path):
    """Write a clip of so many frames and seconds of sound."""

    def write(frames=20, seconds=0.8, *, fps=25.0, loud=1.0, name="clip.mp4"):
        waveform = None if seconds is None else tone(seconds) * np.float32(loud)
        write_clip(tmp_path / name, pictures(frames), fps=fps, waveform=waveform)
        return tmp_path / name

    return write


@pytest.fixture
def faces(monkeypatch):
    """Let the detector find given boxes; each call gets the number of the look."""

    def faces(*boxes, still=True):
        looks = []

        def detector(image):
            looks.append(image)
            shift = 0 if still else 2.0 * (len(looks) - 1)
            return [Face(np.add(box, (shift, 0, shift, 0)), 9.0) for box in boxes]

        monkeypatch.setattr(tracks, "_detector", lambda name: detector)
        return looks

    return faces


def test_without_a_detector_the_frame_is_the_face(write):
    path = write(30, 1.0)
    clip, plain = prepare_clip(path, detector="none", size=48), read_clip(path, gray=True)
    assert np.array_equal(clip.frames, plain.frames)
    assert np.array_equal(clip.waveform, plain.waveform)
    assert clip.boxes.shape == (25, 4)
    assert clip.boxes[7].tolist() == [0, 0, 48, 48]
    assert prepare_clip(path, detector="none", size=16).frames.shape == (25, 16, 16)
    assert (clip.facts["decoded_frames"], clip.facts["faces"]) == (30, None)


def test_a_still_head_gets_one_box(write, faces):
    looks = faces(BOX)
    clip = prepare_clip(write(), size=16)
    assert len(looks) == 3  # frames 0, 8 and 16
    assert clip.facts["still"]
    assert (clip.boxes == clip.boxes[0]).all()
    middle, side = (16, 18), 16 * 1.3
    assert clip.boxes[0] == pytest.approx(
        [middle[0] - side / 2, middle[1] - side / 2, middle[0] + side / 2, middle[1] + side / 2]
    )
    whole = prepare_clip(write(name="b.mp4"), detector="none", size=48).frames[4]
    left, top, right, bottom = np.rint(clip.boxes[0]).astype(int)
    assert abs(float(clip.frames[4].mean()) - whole[top:bottom, left:right].mean()) < 2


def test_a_moving_head_is_followed(write, faces):
    faces(BOX, still=False)
    clip = prepare_clip(write(40, 1.6), size=16)
    assert not clip.facts["still"]
    assert (np.diff(clip.boxes[:, 0]) >= 0).all()
    assert clip.boxes[-1, 0] > clip.boxes[0, 0]


def test_frames_that_are_not_kept_are_read_again(write, faces, monkeypatch):
    faces(BOX)
    path = write()
    once = prepare_clip(path, size=16)
    monkeypatch.setattr(preparation, "KEPT_BYTES", 0)
    again = prepare_clip(path, size=16)
    assert np.array_equal(once.frames, again.frames)
    assert once.facts == again.facts


def test_several_faces_are_told(write, faces):
    faces(BOX, (28.0, 28.0, 38.0, 38.0))
    path = write()
    clip = prepare_clip(path, size=16)
    assert clip.facts["faces"] == 2
    assert clip.notes[0].startswith("2 faces were found; the largest was taken")
    other = prepare_clip(path, size=16, face=2)
    assert other.boxes[0, 0] > clip.boxes[0, 0]
    with pytest.raises(DataError, match="--face 3, but 2 faces were found"):
        prepare_clip(path, size=16, face=3)


def test_sound_of_another_file_begins_with_the_picture(write, tmp_path):
    path = write(20, None)
    with wave.open(str(tmp_path / "voice.wav"), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        samples = (tone(0.6) * 32767).astype("<i2")
        file.writeframes(samples.tobytes())
    clip = prepare_clip(path, audio=tmp_path / "voice.wav", detector="none", size=16)
    assert len(clip.frames) == 15
    assert np.array_equal(clip.waveform * 32768, samples)
    with pytest.raises(DataError, match="no audio stream"):
        prepare_clip(path, detector="none")


@pytest.mark.parametrize("fps", [12.5, 29.97])
def test_odd_rates_are_taken_by_their_times(write, fps):
    clip = prepare_clip(write(round(fps), 1.2, fps=fps), detector="none", size=16)
    assert abs(len(clip.frames) - 25) <= 1
    assert any("taken at 25 by their times" in note for note in clip.notes)
    assert len(clip.waveform) == 640 * len(clip.frames)


def test_official_gray_changes_red_and_blue(tmp_path):
    red = np.zeros((10, 32, 32, 3), np.uint8)
    red[..., 0] = 200
    write_clip(tmp_path / "red.mp4", red, waveform=tone(0.4))
    ours = prepare_clip(tmp_path / "red.mp4", detector="none", size=32).frames
    theirs = prepare_clip(tmp_path / "red.mp4", detector="none", size=32, swapped=True).frames
    assert abs(int(ours[5, 16, 16]) - int(to_gray(red[5, 16, 16]))) <= 3
    assert abs(int(theirs[5, 16, 16]) - int(to_gray(red[5, 16, 16], swapped=True))) <= 3


def test_bad_clips_are_told(write, tmp_path, faces):
    faces()
    cases = {
        "short.mp4": (dict(frames=3, seconds=1.0), "3 frames with sound"),
        "silent.mp4": (dict(loud=0.0), "sound is silent"),
        "mute.mp4": (dict(seconds=None), "no audio stream"),
        "empty_room.mp4": ({}, "no face found in every 8th of 20 frames"),
    }
    for name, (how, message) in cases.items():
        with pytest.raises(DataError, match=message) as told:
            prepare_clip(write(**how, name=name), size=16)
        assert name in str(told.value)
    whole = write(100, 4.0, name="whole.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) * 6 // 10])
    with pytest.raises(DataError, match=r"cut.mp4: (video|audio) broken: .* frames"):
        prepare_clip(tmp_path / "cut.mp4", detector="none")
    part = prepare_clip(tmp_path / "cut.mp4", detector="none", partial=True)
    assert 5 <= len(part.frames) < 100
    assert any(note.startswith("broken: ") for note in part.notes)
    (tmp_path / "words.mp4").write_text("words")
    with pytest.raises(DataError, match="not a readable media file"):
        prepare_clip(tmp_path / "words.mp4")
    with pytest.raises(DataError, match="longer than"):
        prepare_clip(write(name="long.mp4"), max_seconds=0.5)


@pytest.mark.parametrize(
    "how", [{"size": 8}, {"detector": "eyes"}, {"face": 0}, {"every": 0}], ids=str
)
def test_arguments_out_of_range(write, faces, how):
    faces(BOX)
    with pytest.raises(ValueError, match="must be"):
        prepare_clip(write(), **how)


def test_a_real_clip(shared_files):
    path = shared_files / "data" / "av" / "bbaf2n.mpg"
    if not path.is_file():
        pytest.skip("no clips of GRID")
    clip = prepare_clip(path, size=64, every=25)
    assert (len(clip.frames), clip.facts["faces"], clip.facts["face_share"]) == (74, 1, 1)
    left, top, right, bottom = clip.boxes[30]
    assert 60 < left < 110 < 210 < right < 260
    assert 75 < top < bottom < 288
