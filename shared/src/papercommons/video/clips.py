"""Frames at a fixed rate and mono sound on one clock; needs the extra ``papercommons[video]``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from papercommons.errors import DataError
from papercommons.video.frames import FrameSource
from papercommons.video.rates import check_positive, whole_frames
from papercommons.video.sound import read_sound
from papercommons.video.streams import open_stream

MAX_FRAMES = 15_000  # 10 minutes at 25 per second
MAX_BYTES = 2 << 30


@dataclass(frozen=True)
class ClipFacts:
    """What a file states and what was found in it, before anything is cut.

    Attributes:
        width: of the upright picture as stored, in pixels.
        height: the same.
        rotation: degrees counterclockwise that the file asks to turn its picture by.
        stated_fps: frames per second, None where the file does not say.
        decoded_frames: of the file, before resampling.
        video_seconds: from the begin of the first to the end of the last frame.
        sample_rate: of the file's sound in Hz, None without sound.
        channels: of the file's sound, None without sound.
        audio_seconds: duration of the sound, None without sound.
        audio_delay: seconds by which the sound begins after the picture, None without sound.
        problems: what is broken, a phrase each.
    """

    width: int
    height: int
    rotation: int
    stated_fps: float | None
    decoded_frames: int
    video_seconds: float
    sample_rate: int | None
    channels: int | None
    audio_seconds: float | None
    audio_delay: float | None
    problems: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Clip:
    """Frames and sound that begin together.

    Attributes:
        frames: uint8, shape (T, H, W, 3) in RGB or (T, H, W) in grey.
        waveform: float32, shape (S,), in [-1, 1), in steps of 1 / 32768 (so times 32768 it is the
            16-bit sound exactly); None where it was not asked for or the file has none.
        fps: frames per second.
        sample_rate: samples per second of the waveform.
        facts: about the file.
    """

    frames: np.ndarray
    waveform: np.ndarray | None
    fps: float
    sample_rate: int | None
    facts: ClipFacts


def read_clip(
    path: str | Path,
    *,
    fps: float = 25.0,
    sample_rate: int | None = 16_000,
    gray: bool = False,
    max_side: int | None = None,
    common: bool = True,
    require_audio: bool = True,
    partial: bool = False,
    max_frames: int = MAX_FRAMES,
    max_bytes: int = MAX_BYTES,
) -> Clip:
    """Return a file's frames and sound.

    With `common`, what only the picture or only the sound covers is cut at both ends, and the
    waveform has exactly ``round(T / fps * sample_rate)`` samples. (An end that a whole frame
    misses by less than 5 % of a frame counts as reached, as files round their times; the sound
    then ends in that much silence.) Sound is never wrapped or repeated; a gap in it is silence.
    Without `common` the frames are all there are, and the sound begins with the first frame (after
    silence, if it sets in later) and ends where it ends.

    Args:
        path: video file.
        fps: frames per second, > 0.
        sample_rate: of the sound in Hz, all channels mixed to one; None leaves the sound out.
        gray: the video's own luma at full range, about 0.299 R + 0.587 G + 0.114 B, instead of RGB.
        max_side: make pictures smaller whose longer side exceeds this many pixels.
        common: cut both to the time they share.
        require_audio: a file without sound is an error; otherwise its waveform is None.
        partial: accept a broken file's readable part; `ClipFacts.problems` says what is missing.
        max_frames: longer clips are refused.
        max_bytes: clips whose frames need more are refused.

    Raises:
        ValueError: fps, sample_rate or max_side is not positive.
        DataError: PyAV is missing; no such file, not a media file, no video or sound stream,
            broken (it says how many frames can be decoded), too long, too large, or picture and
            sound share less than one frame.
    """
    check_positive(fps=fps, sample_rate=sample_rate, max_side=max_side)
    sound = None
    if sample_rate is not None:
        sound = read_sound(Path(path), sample_rate, max_frames / fps, require=require_audio)
    with open_stream(path, "video") as stream:
        source = FrameSource(stream, gray=gray, max_side=max_side)
        begin = sound.begin if sound and common else None
        frames = _collect(Path(path), source.at_rate(fps, begin), max_frames, max_bytes)
        problems = stream.check(partial=partial)
    if sound and sound.error and not partial:
        raise sound.error
    first, end = stream.start or 0.0, stream.end
    waveform = None if sound is None else sound.waveform
    if sound is not None and sample_rate is not None:
        zero = max(first, sound.begin) if common else first
        waveform = _shifted(sound.waveform, round((zero - sound.begin) * sample_rate))
        if common:
            shared = whole_frames(min(end, sound.end) - zero, fps)
            if shared < 1:
                raise DataError(
                    f"{path}: picture ({first:.2f} to {end:.2f} s) and sound ({sound.begin:.2f} to "
                    f"{sound.end:.2f} s) share less than one frame; remove it"
                )
            frames = frames[:shared]
            waveform = _fitted(waveform, round(len(frames) / fps * sample_rate))
        problems += sound.problems
    if not len(frames):
        raise DataError(
            f"{path}: lasts {stream.seconds:.2f} s, less than one frame at {fps:g} per second"
        )
    width, height = source.size
    facts = ClipFacts(
        width=width,
        height=height,
        rotation=source.rotation,
        stated_fps=stream.rate,
        decoded_frames=stream.decoded,
        video_seconds=stream.seconds,
        sample_rate=sound.rate if sound else None,
        channels=sound.channels if sound else None,
        audio_seconds=sound.end - sound.begin if sound else None,
        audio_delay=sound.begin - first if sound else None,
        problems=tuple(problems),
    )
    return Clip(frames, waveform, fps, sample_rate if sound else None, facts)


def _collect(
    path: Path, frames: Iterable[np.ndarray], max_frames: int, max_bytes: int
) -> np.ndarray:
    kept = np.empty((0,), np.uint8)
    count = 0
    for pixels in frames:
        if count == max_frames:
            raise DataError(f"{path}: more than {max_frames:,} frames; cut it into shorter parts")
        if (count + 1) * pixels.nbytes > max_bytes:
            height, width = pixels.shape[:2]
            raise DataError(
                f"{path}: its frames ({width} x {height}) need more than {max_bytes >> 20:,} MiB; "
                "cut it into shorter parts or make its picture smaller"
            )
        if count == len(kept):
            kept.resize((max(64, 2 * count), *pixels.shape), refcheck=False)
        kept[count] = pixels
        count += 1
    kept.resize((count, *kept.shape[1:]), refcheck=False)
    return kept


def _shifted(waveform: np.ndarray, samples: int) -> np.ndarray:
    """Drop so many samples at the begin; if negative, put that much silence before it."""
    return waveform[samples:] if samples >= 0 else np.pad(waveform, (-samples, 0))


def _fitted(waveform: np.ndarray, samples: int) -> np.ndarray:
    return np.pad(waveform[:samples], (0, max(0, samples - len(waveform))))
