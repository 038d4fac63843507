"""How long picture and sound of a file are, from its headers; nothing is decoded."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from papercommons.errors import DataError, one_line
from papercommons.video.streams import Stream, open_stream

from cmdfd.entries import ClipEntry


class Header(NamedTuple):
    """What a file states, or what its packets add up to where it states nothing.

    Attributes:
        frames: of the picture.
        video_seconds: how long the picture lasts.
        samples: of the sound, at its own rate.
        audio_seconds: how long the sound lasts.
        sample_rate: samples per second.
    """

    frames: int
    video_seconds: float
    samples: int
    audio_seconds: float
    sample_rate: int


def read_header(video: str | Path, audio: str | Path | None = None) -> Header:
    """Return the lengths of picture and sound.

    Args:
        video: file with the picture.
        audio: file with the sound, if it is another.

    Raises:
        DataError: a file or a stream is missing, it is no media file, or has no lengths.
    """
    with open_stream(video, "video") as stream:
        frames, video_seconds = stream.stated_frames or 0, stream.stated_seconds
        if not frames or not video_seconds:
            frames, lasting = _packets(stream)
            video_seconds = frames / stream.rate if stream.rate else lasting
    with open_stream(audio or video, "audio") as stream:
        rate = int(stream.stream.codec_context.sample_rate or 0)
        audio_seconds = stream.stated_seconds or _packets(stream)[1]
    if not frames or video_seconds <= 0 or audio_seconds <= 0 or rate <= 0:
        raise DataError(f"{video}: states no length, and its packets have none; convert it")
    return Header(frames, video_seconds, round(audio_seconds * rate), audio_seconds, rate)


def with_headers(entries: Iterable[ClipEntry]) -> tuple[list[ClipEntry], list[str]]:
    """Return clips with the lengths of their files, and those that cannot be read, a line each.

    Args:
        entries: clips whose files exist.
    """
    read, faults = [], []
    for entry in entries:
        try:
            found = read_header(entry.video, entry.audio)
        except DataError as error:
            faults.append(f"{entry.where}: {one_line(str(error))}")
            continue
        read.append(
            replace(
                entry,
                frames=found.frames,
                fps=found.frames / found.video_seconds,
                samples=found.samples,
                sample_rate=found.sample_rate,
            )
        )
    return read, faults


def _packets(stream: Stream) -> tuple[int, float]:
    """Return how many packets there are and how long they last."""
    count, first, last = 0, None, 0.0
    base = float(stream.stream.time_base or 0)
    for packet in stream.packets():
        if packet.size and not packet.is_discard:
            count += 1
            time = packet.pts if packet.pts is not None else packet.dts
            if time is not None:
                begin = time * base
                first = begin if first is None else min(first, begin)
                last = max(last, begin + (packet.duration or 0) * base)
    return count, last - (first or 0.0)
