"""A file's sound as one channel; needs the extra ``papercommons[video]``."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from papercommons.errors import DataError
from papercommons.video.streams import NoStreamError, Stream, open_stream

_GAP = 0.05  # seconds without sound that are filled with silence; below, clocks only jitter


class Sound(NamedTuple):
    """A file's sound.

    Attributes:
        waveform: see `papercommons.video.clips.Clip`.
        begin: seconds of the file's clock.
        end: the same.
        rate: of the file, samples per second.
        channels: of the file.
        problems: what is broken, a phrase each.
        error: what is to be raised unless a part will do.
    """

    waveform: np.ndarray
    begin: float
    end: float
    rate: int
    channels: int
    problems: list[str]
    error: DataError | None


def read_sound(path: Path, sample_rate: int, max_seconds: float, *, require: bool) -> Sound | None:
    """Return the sound of a video or sound file, all channels mixed to one.

    Args:
        path: the file.
        sample_rate: samples per second of the result, in Hz, > 0.
        max_seconds: longer sound is refused.
        require: a file without sound is an error, else None.

    Raises:
        DataError: see `papercommons.video.clips.read_clip`; what is only broken in part is in
            `Sound.error`.
    """
    try:
        with open_stream(path, "audio") as stream:
            waveform = _resampled(stream, sample_rate, max_seconds)
            problems, error = stream.check(partial=True), None
            try:
                stream.check()
            except DataError as broken:
                error = broken
            codec = stream.stream.codec_context
            begin = stream.start or 0.0
            end = begin + len(waveform) / sample_rate
            return Sound(waveform, begin, end, codec.sample_rate, codec.channels, problems, error)
    except NoStreamError:
        if require:
            raise
        return None


def _resampled(stream: Stream, sample_rate: int, max_seconds: float) -> np.ndarray:
    from av import AudioResampler

    pieces: list[np.ndarray] = []
    count = 0
    form: tuple[str, str, int] | None = None
    resampler: Any = None
    for begin, length, frame in stream.frames():
        since = begin - (stream.start or 0.0)
        if since + length > max_seconds:
            raise DataError(f"{stream.path}: longer than {max_seconds:g} s; cut it into parts")
        new: list[np.ndarray] = []
        if form != (now := (frame.format.name, frame.layout.name, frame.sample_rate)):
            new += _drained(resampler)
            form, resampler = now, AudioResampler("s16", "mono", sample_rate)
        if since - count / sample_rate > _GAP:
            new.append(np.zeros(round(since * sample_rate) - count, np.int16))
        new += [part.to_ndarray()[0] for part in resampler.resample(frame)]
        count += sum(map(len, new))
        pieces += new
    pieces += _drained(resampler)
    return np.concatenate([np.empty(0, np.int16), *pieces]).astype(np.float32) / 32768


def _drained(resampler: Any) -> list[np.ndarray]:
    if resampler is None:
        return []
    return [part.to_ndarray()[0] for part in resampler.resample(None)]
