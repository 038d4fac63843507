"""A video's frames: one by one, at a fixed rate, or spaced evenly.

Needs the extra ``papercommons[video]``. Frames are chosen by their times, never by their count:
at a fixed rate, frame k is the decoded one whose time is nearest to k / fps, or the one still shown
then where a file leaves equal pictures out. So a file whose stated rate is wrong, or varies, stays
in step with its sound. Pictures are turned upright as the file asks; pixels that are not square
stay as stored.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from papercommons.video.rates import at_rate, check_positive, spaced
from papercommons.video.streams import Stream, open_stream


def iter_frames(
    path: str | Path,
    *,
    fps: float | None = None,
    gray: bool = False,
    max_side: int | None = None,
    partial: bool = False,
) -> Iterator[tuple[float, np.ndarray]]:
    """Give a file's frames one by one, in bounded memory: seconds since the first, and pixels.

    Args:
        path: video file.
        fps: resample to this rate; None gives each decoded frame at its own time.
        gray: see `read_clip`.
        max_side: see `read_clip`.
        partial: see `read_clip`; a broken file's error comes after its last readable frame.

    Yields:
        Seconds, and uint8 (H, W, 3) in RGB or (H, W) in grey; not to be written to.

    Raises:
        ValueError: fps or max_side is not positive.
        DataError: see `read_clip`.
    """
    check_positive(fps=fps, max_side=max_side)
    with open_stream(path, "video") as stream:
        source = FrameSource(stream, gray=gray, max_side=max_side)
        if fps is not None:
            for number, pixels in enumerate(source.at_rate(fps)):
                yield number / fps, pixels
        else:
            for begin, _, frame in stream.frames():
                yield begin - (stream.start or 0.0), source.pixels(frame)
        stream.check(partial=partial)


def read_spaced_frames(
    path: str | Path, count: int = 32, *, gray: bool = False, max_side: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return frames spaced evenly from the first to the last, and their times.

    Of N frames these are numbers ``int(linspace(0, N - 1, count))``; all, if there are fewer. The
    file is read twice: frames are counted without being decoded, then only what leads to a wanted
    one is decoded.

    Args:
        path: video file.
        count: how many, >= 1.
        gray: see `read_clip`.
        max_side: see `read_clip`.

    Returns:
        Frames, uint8 (count or N, H, W[, 3]), and seconds since the first frame, float64 (count
        or N,).

    Raises:
        ValueError: count or max_side is not positive.
        DataError: see `read_clip`.
    """
    check_positive(count=count, max_side=max_side)
    with open_stream(path, "video") as stream:
        times, keys = _list_times(stream)
    with open_stream(path, "video") as stream:
        source = FrameSource(stream, gray=gray, max_side=max_side)
        if times is None:  # the file does not say; decode to count
            number = sum(1 for _ in iter_frames(path, partial=True))
            wanted = set(spaced(number, count).tolist())
            all_frames = enumerate(stream.frames())
            chosen = [(b, source.pixels(f)) for i, (b, _, f) in all_frames if i in wanted]
        else:
            chosen = list(_seek_each(source, times[spaced(len(times), count)], keys))
        stream.check(partial=True)
    frames = np.stack([pixels for _, pixels in chosen])
    first = chosen[0][0] if times is None else times[0]
    return frames, np.array([begin for begin, _ in chosen]) - first


class FrameSource:
    """Turns a stream's frames into pixels of one size, that of the first.

    Attributes:
        stream: the video.
        size: width and height of the first frame, upright, as stored; (0, 0) before it.
        rotation: of the first frame, degrees counterclockwise.
    """

    def __init__(self, stream: Stream, *, gray: bool, max_side: int | None) -> None:
        self.stream = stream
        self.size = (0, 0)
        self.rotation = 0
        self._max_side = max_side
        self._how: dict[str, Any] = {"format": "gray" if gray else "rgb24"}

    def pixels(self, frame: Any) -> np.ndarray:
        """Return PyAV's frame as uint8, shape (H, W, 3) in RGB or (H, W) in grey."""
        if self.size == (0, 0):
            self._look_at_first(frame)
        turns = round(self.rotation / 90) % 4
        return np.ascontiguousarray(np.rot90(frame.to_ndarray(**self._how), turns))

    def _look_at_first(self, frame: Any) -> None:
        width, height = frame.width, frame.height
        self.rotation = frame.rotation
        self.size = (height, width) if round(self.rotation / 90) % 2 else (width, height)
        shrink = min(1.0, (self._max_side or np.inf) / max(width, height))
        self._how["width"] = max(1, round(width * shrink))
        self._how["height"] = max(1, round(height * shrink))
        if shrink < 1:
            self._how["interpolation"] = "AREA"

    def at_rate(self, fps: float, begin: float | None = None) -> Iterator[np.ndarray]:
        """Give the pixels of `papercommons.video.rates.at_rate`; repeated ones are one array."""
        shown = None
        for frame in at_rate(self.stream.frames(), fps, begin):
            if frame is not shown:
                shown, pixels = frame, self.pixels(frame)
            yield pixels


def _list_times(stream: Stream) -> tuple[np.ndarray | None, np.ndarray]:
    """Return the sorted times of all frames, None if one has none, and those to jump to."""
    base = stream.stream.time_base
    packets = [(p.pts, p.is_keyframe) for p in stream.packets() if p.size and not p.is_discard]
    if not packets or not base or any(pts is None for pts, _ in packets):
        return None, np.empty(0)
    times = np.array([float(pts * base) for pts, _ in packets])
    indexed = stream.container.format.name.partition(",")[0] in ("mov", "matroska")
    keys = times[[is_key and indexed for _, is_key in packets]]
    return np.sort(times), np.sort(keys)


def _seek_each(
    source: FrameSource, times: np.ndarray, keys: np.ndarray
) -> Iterator[tuple[float, np.ndarray]]:
    """Give the frames at `times`, jumping to one of `keys` wherever one lies on the way."""
    from av.error import FFmpegError

    stream = source.stream
    frames = stream.frames()
    position = -np.inf
    for time in times:
        before = keys[keys <= time + 1e-6]
        if len(before) and before[-1] > position:
            target = round(before[-1] / float(stream.stream.time_base))
            with suppress(FFmpegError):  # then it goes on from here
                stream.container.seek(target, stream=stream.stream)
                frames = stream.frames()
        for begin, _, frame in frames:
            position = begin
            if begin >= time - 1e-6:
                yield begin, source.pixels(frame)
                break
