from __future__ import annotations

import re
import struct
from fractions import Fraction

import numpy as np
import pytest
from papercommons.errors import DataError
from papercommons.video.clips import read_clip
from papercommons.video.frames import iter_frames, read_spaced_frames
from papercommons.video.rates import spaced
from papercommons.video.sound import read_sound
from papercommons.video.streams import Stream, open_stream
from papercommons.video.writing import write_clip

av = pytest.importorskip("av", reason="needs av")

RATE = 16_000
LEVELS = np.arange(0, 250, 8, dtype=np.uint8)  # frame k has brightness LEVELS[k % 32]


def numbered(count, height=32, width=48):
    """Frames whose brightness tells their number."""
    return np.broadcast_to(LEVELS[np.arange(count) % 32, None, None], (count, height, width))


def sound_of(path, sample_rate=RATE, max_seconds=600.0):
    return read_sound(path, sample_rate, max_seconds, require=True)


def number(frames):
    """The numbers, modulo 32, of frames made by `numbered`."""
    means = frames.reshape(len(frames), -1).mean(1)
    return np.abs(means[:, None] - LEVELS).argmin(1)


def clicks(seconds, at):
    waveform = np.zeros(round(seconds * RATE), np.float32)
    waveform[[round(time * RATE) for time in at]] = 0.9
    return waveform


def heard(waveform):
    """Times in seconds of the clicks."""
    loud = np.flatnonzero(np.abs(waveform) > 0.3 * np.abs(waveform).max())
    return (
        np.array([part.mean() for part in np.split(loud, np.flatnonzero(np.diff(loud) > 99) + 1)])
        / RATE
    )


def mux(
    path, frames, times, waveform=None, *, sound_at=(0.0,), stop=(None,), codec="libx264", gop=12
):
    """Write frames at given times, and pieces of sound that begin at given times."""
    with av.open(str(path), "w") as container:
        picture = container.add_stream(codec, rate=25)
        picture.width, picture.height, picture.pix_fmt = frames.shape[2], frames.shape[1], "yuv420p"
        if path.suffix != ".avi":  # whose clock is its rate
            picture.codec_context.time_base = Fraction(1, 1000)
        picture.codec_context.gop_size = gop
        sound = (
            container.add_stream("aac", rate=RATE, layout="mono") if waveform is not None else None
        )
        for time, pixels in zip(times, frames, strict=True):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), "gray")
            frame.pts, frame.time_base = round(time * 1000), Fraction(1, 1000)
            container.mux(picture.encode(frame))
        container.mux(picture.encode())
        pieces = np.split(waveform, stop[:-1]) if waveform is not None else []
        for begin, piece in zip(sound_at, pieces, strict=False):
            for first in range(0, len(piece), 1024):
                block = np.ascontiguousarray(piece[None, first : first + 1024], np.float32)
                frame = av.AudioFrame.from_ndarray(block, "flt", "mono")
                frame.sample_rate, frame.time_base = RATE, Fraction(1, RATE)
                frame.pts = round(begin * RATE) + first
                container.mux(sound.encode(frame))
        if sound is not None:
            container.mux(sound.encode())
    return path


@pytest.fixture(scope="module")
def clip_path(tmp_path_factory):
    """60 numbered frames at 25 per second with clicks at frames 20 and 40."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    write_clip(path, numbered(60), waveform=clicks(2.4, (0.8, 1.6)))
    return path


def test_what_was_written_is_read_in_step(clip_path):
    clip = read_clip(clip_path)
    assert clip.frames.shape == (60, 32, 48, 3)
    assert clip.frames.dtype == np.uint8
    np.testing.assert_array_equal(number(clip.frames), np.arange(60) % 32)
    assert clip.waveform.shape == (38_400,)
    assert clip.waveform.dtype == np.float32
    np.testing.assert_allclose(heard(clip.waveform), [0.8, 1.6], atol=1e-3)
    np.testing.assert_array_equal(clip.waveform * 32768, np.round(clip.waveform * 32768))
    facts = clip.facts
    assert (facts.width, facts.height, facts.rotation) == (48, 32, 0)
    assert (facts.stated_fps, facts.decoded_frames, facts.channels) == (25.0, 60, 1)
    assert facts.video_seconds == pytest.approx(2.4)
    assert facts.problems == ()


def test_colours_survive(tmp_path):
    colours = np.array([(200, 40, 30), (20, 180, 60), (40, 60, 220)], np.uint8)
    frames = np.repeat(np.repeat(colours[:, None, None], 32, 1), 32, 2)
    write_clip(tmp_path / "c.mp4", frames, quality=5)
    clip = read_clip(tmp_path / "c.mp4", require_audio=False)
    np.testing.assert_allclose(clip.frames.mean((1, 2)), colours, atol=5)
    gray = read_clip(tmp_path / "c.mp4", sample_rate=None, gray=True)
    assert gray.waveform is None
    assert gray.frames.shape == (3, 32, 32)
    np.testing.assert_allclose(gray.frames.mean((1, 2)), colours @ (0.299, 0.587, 0.114), atol=3)


@pytest.mark.parametrize(("rate", "fps"), [(30, 25), (25, 30), (24, 25), (50, 12.5)])
def test_frames_are_chosen_by_time(tmp_path, rate, fps):
    times = np.arange(30) / rate
    path = mux(tmp_path / "v.mkv", numbered(30), times)
    clip = read_clip(path, fps=fps, sample_rate=None)
    wanted = np.arange(len(clip.frames)) / fps
    assert len(clip.frames) == int(clip.facts.video_seconds * fps + 0.05)
    shown = times[number(clip.frames)]
    assert np.abs(shown - wanted).max() <= 0.5 / rate + 2e-3  # Matroska rounds to 1 ms


def test_varying_rate(tmp_path):
    times = np.cumsum(np.tile([0.02, 0.1, 0.04], 10)) - 0.02
    path = mux(tmp_path / "v.mkv", numbered(30), times)
    shown = number(read_clip(path, sample_rate=None).frames)
    wanted = np.arange(len(shown)) / 25
    assert len(shown) >= times[-1] * 25
    early = times[shown] - wanted
    assert early.max() <= 0.02 + 2e-3
    assert early.min() >= -0.08 - 2e-3  # a gap of 0.1, but for half a frame


def test_sound_that_begins_later(tmp_path):
    path = mux(
        tmp_path / "v.mp4", numbered(50), np.arange(50) / 25, clicks(1.0, (0.3,)), sound_at=(0.5,)
    )
    both = read_clip(path)
    delay = both.facts.audio_delay
    assert delay == pytest.approx(0.5, abs=0.07)  # AAC begins a block early
    assert both.facts.audio_seconds == pytest.approx(1.0, abs=0.14)
    assert number(both.frames)[0] == pytest.approx(delay * 25, abs=0.6)
    assert 25 <= len(both.frames) <= 28
    assert len(both.waveform) == round(len(both.frames) / 25 * RATE)
    np.testing.assert_allclose(heard(both.waveform) + delay, [0.8], atol=2e-3)
    whole = read_clip(path, common=False)
    assert len(whole.frames) == 50
    np.testing.assert_allclose(heard(whole.waveform), [0.8], atol=2e-3)


@pytest.mark.parametrize(("sound", "picture"), [(0.5, 0.0), (0.0, 0.5)])
def test_matroska_streams_that_begin_late_are_whole(tmp_path, sound, picture):
    times, heard = picture + np.arange(50) / 25, clicks(2.0, (0.3,))
    path = mux(tmp_path / "v.mkv", numbered(50), times, heard, sound_at=(sound,))
    assert abs(read_clip(path).facts.audio_delay) == pytest.approx(0.5, abs=0.07)
    for kind in ("video", "audio"):
        with open_stream(path, kind) as stream:
            assert stream.stated_seconds == pytest.approx(2.0, abs=0.14)
    (tmp_path / "cut.mkv").write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match="broken: ends after"):
        read_clip(tmp_path / "cut.mkv")


@pytest.mark.parametrize("seconds", [0.6, 3.0])
def test_both_are_cut_to_the_shorter(tmp_path, seconds):
    write_clip(tmp_path / "v.mp4", numbered(50), waveform=clicks(seconds, (0.2,)))
    clip = read_clip(tmp_path / "v.mp4")
    assert len(clip.frames) == pytest.approx(25 * min(seconds, 2.0), abs=2)
    assert len(clip.waveform) == round(len(clip.frames) / 25 * RATE)
    assert clip.facts.audio_seconds == pytest.approx(seconds, abs=0.07)
    assert clip.facts.video_seconds == pytest.approx(2.0)


def test_a_gap_in_the_sound_is_silence(tmp_path):
    path = mux(
        tmp_path / "v.mp4",
        numbered(75),
        np.arange(75) / 25,
        clicks(2.0, (0.5, 1.5)),
        sound_at=(0.0, 2.0),
        stop=(RATE, None),
    )
    np.testing.assert_allclose(heard(read_clip(path).waveform), [0.5, 2.5], atol=3e-3)


def test_a_turned_picture_is_put_upright(tmp_path):
    frames = np.zeros((5, 32, 64, 3), np.uint8)
    frames[:, :16, :16] = 255  # upper left
    path = tmp_path / "v.mp4"
    write_clip(path, frames)
    data = path.read_bytes()
    matrix = data.index(b"tkhd") + 44
    quarter = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)  # x' = -y, y' = x
    path.write_bytes(data[:matrix] + quarter + data[matrix + 36 :])
    clip = read_clip(path, sample_rate=None)
    assert clip.frames.shape == (5, 64, 32, 3)
    assert (clip.facts.width, clip.facts.height) == (32, 64)
    assert clip.frames[:, :12, 20:].mean() > 240  # upper right: turned clockwise
    assert clip.frames[:, 20:].mean() < 5
    assert read_clip(path, sample_rate=None, max_side=16).frames.shape == (5, 16, 8, 3)


def test_frames_one_by_one(clip_path):
    frames = read_clip(clip_path, sample_rate=None).frames
    times, alone = zip(*iter_frames(clip_path), strict=True)
    np.testing.assert_array_equal(np.stack(alone), frames)
    np.testing.assert_allclose(times, np.arange(60) / 25, atol=1e-6)
    times, alone = zip(*iter_frames(clip_path, fps=10, gray=True, max_side=24), strict=True)
    assert np.stack(alone).shape == (24, 16, 24)
    np.testing.assert_allclose(times, np.arange(24) / 10)


@pytest.mark.parametrize("name", ["v.mp4", "v.ts", "v.avi"])
def test_spaced_frames_are_those_of_the_whole(tmp_path, name):
    codec = "mpeg4" if name == "v.avi" else "libx264"
    path = mux(tmp_path / name, numbered(70), np.arange(70) / 25, codec=codec)
    times, every = zip(*iter_frames(path), strict=True)
    assert len(every) == 70
    for count in (5, 100):
        wanted = spaced(70, count)
        frames, seconds = read_spaced_frames(path, count)
        np.testing.assert_array_equal(frames, np.stack(every)[wanted])
        np.testing.assert_allclose(seconds, np.array(times)[wanted], atol=2e-3)


def test_a_truncated_file_says_how_much_there_is(tmp_path, clip_path):
    noise = np.random.default_rng(0).integers(0, 255, (50, 32, 32), np.uint8)
    write_clip(tmp_path / "v.mp4", noise)
    data = (tmp_path / "v.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: len(data) * 6 // 10])
    with pytest.raises(
        DataError, match=r"cut.mp4: video broken: ends after 1\.\d+ of 2.00 s, \d+ of 50"
    ):
        read_clip(tmp_path / "cut.mp4", sample_rate=None)
    part = read_clip(tmp_path / "cut.mp4", sample_rate=None, partial=True)
    assert 20 < len(part.frames) < 40
    assert "of 50 frames decoded" in part.facts.problems[0]
    assert len(list(iter_frames(tmp_path / "cut.mp4", partial=True))) == len(part.frames)
    with pytest.raises(DataError, match="broken"):
        list(iter_frames(tmp_path / "cut.mp4"))
    data = clip_path.read_bytes()
    (tmp_path / "head.mp4").write_bytes(data[: data.index(b"moov") + 100])
    with pytest.raises(
        DataError, match=r"head\.mp4: (not a readable media|its begin cannot be read)"
    ):
        read_clip(tmp_path / "head.mp4")


def test_a_truncated_avi_does_not_pass_for_a_short_one(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (50, 32, 32), np.uint8)
    path = mux(tmp_path / "v.avi", noise, np.arange(50) / 25, codec="mpeg4")
    assert len(read_clip(path, sample_rate=None).frames) == 50
    (tmp_path / "cut.avi").write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match=r"video broken: ends after [01]\.\d+ of 2\.00 s"):
        read_clip(tmp_path / "cut.avi", sample_rate=None)


def test_packets_that_cannot_be_decoded_are_counted(tmp_path):
    def stream(**found):
        return Stream(tmp_path / "v.mp4", None, None, "video", 25.0, 50, 2.0, **found)

    assert stream(decoded=50, start=0.0, end=2.0).check() == []
    few = stream(decoded=50, start=0.0, end=2.0, bad=2)
    assert few.check() == ["undecodable packets: 2, decoded frames: 50"]
    many = stream(decoded=40, start=0.0, end=2.0, bad=10)
    with pytest.raises(DataError, match="undecodable packets: 10, decoded frames: 40"):
        many.check()
    assert many.check(partial=True)
    with pytest.raises(DataError, match="no video frame can be decoded"):
        stream().check(partial=True)


def test_missing_streams_are_named(tmp_path, clip_path):
    write_clip(tmp_path / "mute.mp4", numbered(5))
    with pytest.raises(DataError, match=r"mute\.mp4: no audio stream; the file holds video"):
        read_clip(tmp_path / "mute.mp4")
    clip = read_clip(tmp_path / "mute.mp4", require_audio=False)
    assert (clip.waveform, clip.sample_rate, clip.facts.audio_seconds) == (None, None, None)
    assert len(clip.frames) == 5
    with av.open(str(tmp_path / "s.wav"), "w") as container:
        sound = container.add_stream("pcm_s16le", rate=8000, layout="stereo")
        tone = np.round(9000 * np.sin(np.arange(8000) * 0.2)).astype(np.int16)
        both = np.stack([tone, np.zeros_like(tone)], axis=1).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(both, "s16", "stereo")
        frame.sample_rate = 8000
        container.mux(sound.encode(frame))
        container.mux(sound.encode())
    with pytest.raises(DataError, match=r"s\.wav: no video stream; the file holds audio"):
        read_clip(tmp_path / "s.wav")
    mono = sound_of(tmp_path / "s.wav", 8000).waveform
    np.testing.assert_allclose(mono * 32768, tone / 2, atol=0.51)  # the channels' mean
    assert len(sound_of(tmp_path / "s.wav").waveform) == pytest.approx(16_000, abs=50)


def test_sound_that_is_cut_off(tmp_path):
    noise = np.random.default_rng(0).integers(-9000, 9000, (1, 2 * RATE), np.int16)
    with av.open(str(tmp_path / "s.flac"), "w") as container:
        sound = container.add_stream("flac", rate=RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray(noise, "s16", "mono")
        frame.sample_rate = RATE
        container.mux(sound.encode(frame))
        container.mux(sound.encode())
    whole = sound_of(tmp_path / "s.flac")
    np.testing.assert_array_equal(whole.waveform * 32768, noise[0])
    assert whole.error is None
    data = (tmp_path / "s.flac").read_bytes()
    (tmp_path / "cut.flac").write_bytes(data[: len(data) // 2])
    cut = sound_of(tmp_path / "cut.flac")
    assert re.search(r"cut\.flac: audio broken: ends after \d\.\d+ of 2\.00 s", str(cut.error))


def test_a_clip_shorter_than_a_frame(tmp_path):
    write_clip(tmp_path / "v.mp4", numbered(5))
    with pytest.raises(DataError, match=r"lasts 0\.20 s, less than one frame at 2 per second"):
        read_clip(tmp_path / "v.mp4", fps=2, sample_rate=None)


def test_files_that_are_none(tmp_path):
    (tmp_path / "text.mp4").write_text("hello")
    (tmp_path / "empty.mp4").touch()
    for name, message in [
        ("text.mp4", "not a readable media file"),
        ("empty.mp4", "is empty"),
        ("gone.mp4", "no such file"),
        ("http://127.0.0.1:9/x.mp4", "no such file"),
    ]:
        with pytest.raises(DataError, match=message) as caught:
            read_clip(tmp_path / name if ":" not in name else name)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "playlist",
    [
        "ffconcat version 1.0\nfile clip.mp4\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\nclip.mp4\n#EXT-X-ENDLIST\n",
    ],
)
def test_playlists_do_not_lead_to_other_files(tmp_path, clip_path, playlist):
    (tmp_path / "clip.mp4").write_bytes(clip_path.read_bytes())
    (tmp_path / "list.mp4").write_text(playlist)
    with (
        pytest.raises(DataError, match="not a readable media file"),
        open_stream(tmp_path / "list.mp4", "video"),
    ):
        pass


def test_limits(clip_path, monkeypatch):
    with pytest.raises(DataError, match="more than 59 frames"):
        read_clip(clip_path, sample_rate=None, max_frames=59)
    assert len(read_clip(clip_path, sample_rate=None, max_frames=60).frames) == 60
    with pytest.raises(DataError, match=r"\(48 x 32\) need more than 0 MiB"):
        read_clip(clip_path, max_bytes=100_000)
    with pytest.raises(DataError, match="longer than 2 s"):
        sound_of(clip_path, max_seconds=2.0)
    monkeypatch.setattr("papercommons.video.streams.MAX_PIXELS", 1000)
    with pytest.raises(DataError, match=r"48 x 32 pixels, more than 1,000"):
        read_clip(clip_path)


@pytest.mark.parametrize("name", ["fps", "sample_rate", "max_side"])
def test_bad_numbers(clip_path, name):
    with pytest.raises(ValueError, match=f"{name} must be > 0, got 0"):
        read_clip(clip_path, **{name: 0})


def test_nothing_in_common(tmp_path):
    path = mux(
        tmp_path / "v.mp4", numbered(10), np.arange(10) / 25, clicks(0.2, (0.1,)), sound_at=(3.0,)
    )
    with pytest.raises(DataError, match="share less than one frame"):
        read_clip(path)


def test_real_clips(shared_files):
    path = shared_files / "data/av/bbaf2n.mpg"
    clip = read_clip(path)
    assert clip.facts.decoded_frames == 75
    assert clip.frames.shape == (74, 288, 360, 3)  # its sound is shorter, 2.978 s
    assert clip.waveform.shape == (47_360,)
    assert np.abs(clip.waveform).max() > 0.1
    frames, seconds = read_spaced_frames(path, 3)
    np.testing.assert_array_equal(frames[:2], clip.frames[[0, 37]])
    np.testing.assert_allclose(seconds, [0, 1.48, 2.96], atol=1e-6)


def test_without_pyav_the_extra_is_named(clip_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(DataError, match=r"papercommons\[video\]"):
        read_clip(clip_path)
