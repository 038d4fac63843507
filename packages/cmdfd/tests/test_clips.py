from __future__ import annotations

import logging

import numpy as np
import pytest
from cmdfd.clips import read_clip, to_gray
from hypothesis import given
from hypothesis import strategies as st
from papercommons.errors import DataError
from papercommons.video.writing import write_clip


def pictures(count, size=32):
    """Frames whose brightness says their number."""
    return [np.full((size, size), 20 + 4 * k, np.uint8) for k in range(count)]


def tone(seconds, rate=16_000):
    return (0.3 * np.sin(2 * np.pi * 440 * np.arange(round(seconds * rate)) / rate)).astype("f4")


@pytest.fixture
def write(tmp_path):
    """Write a clip of so many frames and seconds of sound."""

    def write(frames, seconds, *, fps=25.0, silent=False, name="clip.mp4"):
        waveform = None if seconds is None else tone(seconds) * (not silent)
        write_clip(tmp_path / name, pictures(frames), fps=fps, waveform=waveform)
        return tmp_path / name

    return write


def test_picture_and_sound_have_one_length(write):
    frames, waveform, fps, sample_rate = read_clip(write(30, 1.0), gray=True)
    assert frames.shape == (25, 32, 32)
    assert frames.dtype == np.uint8
    assert waveform.shape == (16_000,)
    assert waveform.dtype == np.float32
    assert (fps, sample_rate) == (25.0, 16_000)
    rgb = read_clip(write(12, 2.0, name="rgb.mp4"))
    assert rgb.frames.shape == (12, 32, 32, 3)
    assert len(rgb.waveform) == 12 * 640


def test_reading_twice_gives_the_same(write):
    path = write(12, 0.5)
    one, two = read_clip(path), read_clip(path)
    assert np.array_equal(one.frames, two.frames)
    assert np.array_equal(one.waveform, two.waveform)


@pytest.mark.parametrize("fps", [12.5, 29.97, 50.0])
def test_frames_are_chosen_by_their_times(write, fps):
    count = round(fps)  # about a second
    frames, waveform, rate, _ = read_clip(write(count, 2.0, fps=fps), gray=True)
    assert rate == 25.0
    assert len(frames) == int(25 * count / fps + 0.05)
    assert len(waveform) == 640 * len(frames)
    number = (frames.mean((1, 2)) - 20) / 4
    nearest = np.arange(len(frames)) * fps / 25
    assert np.abs(number - nearest).max() <= 0.75


def test_streams_of_different_lengths_are_told(write, caplog):
    with caplog.at_level(logging.WARNING, "papercommons"):
        read_clip(write(25, 1.1))
        assert not caplog.records
        clip = read_clip(write(25, 2.0, name="long.mp4"))
    assert len(clip.frames) == 25
    assert "the sound lasts +1.0" in caplog.text
    assert "cut to the 1.00 s both have" in caplog.text


def test_clips_that_cannot_be_judged(write, tmp_path):
    with pytest.raises(DataError, match=r"silent \(all samples are 0\)"):
        read_clip(write(12, 1.0, silent=True, name="silent.mp4"))
    with pytest.raises(DataError, match="no audio stream; the file holds video"):
        read_clip(write(12, None, name="mute.mp4"))
    with pytest.raises(DataError, match=r"3 frames with sound at 25 per second"):
        read_clip(write(3, 1.0, name="short.mp4"))
    with pytest.raises(DataError, match="no such file"):
        read_clip(tmp_path / "none.mp4")
    (tmp_path / "text.mp4").write_text("no media")
    with pytest.raises(DataError, match="not a readable media file"):
        read_clip(tmp_path / "text.mp4")


def test_a_truncated_file_says_how_much_there_is(write):
    path = write(50, 2.0)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 6 // 10])
    with pytest.raises(DataError, match=r"\d+ of 50 frames decoded|decoded frames: \d+"):
        read_clip(path)
    part = read_clip(path, partial=True)
    assert 5 <= len(part.frames) < 50
    assert len(part.waveform) == 640 * len(part.frames)


def test_real_clips(shared_files):
    clip = read_clip(shared_files / "data" / "av" / "bbaf2n.mpg", gray=True)
    assert clip.frames.shape == (74, 288, 360)
    assert clip.waveform.shape == (74 * 640,)
    assert np.abs(clip.waveform).max() > 0.05


@given(color=st.tuples(*[st.integers(0, 255)] * 3))
def test_grey_is_the_weighted_sum(color):
    pixel = np.array([[color]], np.uint8)
    for swapped in (False, True):
        red, green, blue = color[::-1] if swapped else color
        exact = 0.299 * red + 0.587 * green + 0.114 * blue
        grey = to_gray(pixel, swapped=swapped)
        assert grey.shape == (1, 1)
        assert abs(float(grey[0, 0]) - exact) <= 0.51
    white = np.full((1, 3), 255, np.uint8)
    assert to_gray(white)[0] == 255
