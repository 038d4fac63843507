"""One stream of a media file, decoded in order of time with PyAV, and what was met on the way."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from papercommons.errors import DataError, missing_library, reason

if TYPE_CHECKING:
    from av.container import InputContainer

Kind = Literal["video", "audio"]

MAX_PIXELS = 40_000_000  # a little more than 8K
# Containers of one file's own. Playlists (hls, concat, dash) are not: they make the library open
# other files and addresses.
FORMATS = (
    "mov,matroska,avi,mpeg,mpegts,mpegvideo,flv,asf,ogg,rm,mxf,dv,ivf,h264,hevc,m4v,gif,"
    "wav,w64,aiff,au,flac,mp3,aac,ac3,amr,caf"
)
# Those that write down how long they are; for others the library guesses from size or last packet.
STATING = ("mov", "matroska", "avi", "asf", "flv", "wav", "w64", "aiff", "au", "caf", "flac")


class NoStreamError(DataError):
    """A media file has no stream of the kind asked for."""


@dataclass
class Stream:
    """A stream that is being decoded. PyAV's objects end with the file's closing, numbers stay.

    Attributes:
        path: the file.
        container: PyAV's.
        stream: PyAV's.
        kind: of the stream.
        rate: stated frames per second of video, None where it is not known.
        stated_frames: their number, None where it is not known.
        stated_seconds: stated duration, None where it is not known.
        decoded: frames so far.
        bad: packets so far that cannot be decoded.
        start: when the first frame begins, seconds of the file's clock; None before it.
        end: when the last frame so far ends.
    """

    path: Path
    container: InputContainer
    stream: Any
    kind: Kind
    rate: float | None
    stated_frames: int | None
    stated_seconds: float | None
    decoded: int = 0
    bad: int = 0
    start: float | None = None
    end: float = 0.0

    @property
    def seconds(self) -> float:
        """From the begin of the first to the end of the last frame so far."""
        return 0.0 if self.start is None else self.end - self.start

    def frames(self) -> Iterator[tuple[float, float, Any]]:
        """Give begin (seconds of the file's clock), duration (seconds) and PyAV's frame.

        Packets that cannot be decoded are counted and passed over.

        Raises:
            DataError: a video frame without a time in a file that states no frame rate, or of
                more than 40 million pixels.
        """
        for packet in self.packets():
            for frame in self._decode(packet):
                length = self._length(frame)
                begin = self.end if frame.time is None else float(frame.time)
                self.start = begin if self.start is None else self.start
                self.end = max(self.end, begin + length)
                self.decoded += 1
                yield begin, length, frame

    def packets(self) -> Iterator[Any]:
        """Give PyAV's packets, undecoded, as far as the file can be read."""
        from av.error import FFmpegError

        packets = self.container.demux(self.stream)
        while True:
            try:
                yield next(packets)
            except StopIteration:
                return
            except FFmpegError:  # the file ends in the middle of something
                self.bad += 1
                return

    def _decode(self, packet: Any) -> list[Any]:
        from av.error import FFmpegError

        try:
            return packet.decode()
        except FFmpegError:
            self.bad += 1
            return []

    def _length(self, frame: Any) -> float:
        if self.kind == "audio":
            return frame.samples / frame.sample_rate
        if frame.width * frame.height > MAX_PIXELS:
            raise DataError(
                f"{self.path}: {frame.width} x {frame.height} pixels, more than {MAX_PIXELS:,}; "
                "make its picture smaller"
            )
        if self.rate:
            return 1 / self.rate
        if frame.time is None:
            raise DataError(f"{self.path}: states neither times nor a frame rate; convert it")
        return float((frame.duration or 0) * frame.time_base)

    def shortfall(self) -> str | None:
        """Return in words how much less there was than the file states, None if all was there."""
        stated = self.stated_seconds
        if stated is None or stated - self.seconds <= 0.2 + 0.02 * stated:
            return None
        count = f"{self.decoded} of {self.stated_frames}" if self.stated_frames else self.decoded
        return f"ends after {self.seconds:.2f} of {stated:.2f} s, {count} frames decoded"

    def check(self, *, partial: bool = False) -> list[str]:
        """Return what is wrong with what was decoded, a phrase each; to be called at the end.

        Args:
            partial: a beginning, or a part, will do.

        Raises:
            DataError: no frame at all; or, unless `partial`, less than what the file states, or
                more than one packet for twenty frames that cannot be decoded.
        """
        if not self.decoded:
            raise DataError(f"{self.path}: no {self.kind} frame can be decoded; remove it")
        short = self.shortfall()
        found = [short] if short else []
        if self.bad:
            found.append(f"undecodable packets: {self.bad}, decoded frames: {self.decoded}")
        if not partial and (short or self.bad > 0.05 * self.decoded):
            raise DataError(
                f"{self.path}: {self.kind} broken: {'; '.join(found)}; repair or remove it"
            )
        return found


@contextmanager
def open_stream(path: str | Path, kind: Kind) -> Iterator[Stream]:
    """Open a media file's first stream of a kind; pictures of a cover do not count as video.

    Args:
        path: the file; playlists are refused, since they lead to other files.
        kind: of the stream.

    Raises:
        NoStreamError: the file has no such stream.
        DataError: PyAV is not installed, no such file, not a media file, a stream in a codec that
            is not known, or one of more than 40 million pixels.
    """
    import_av()
    import av
    from av.error import FFmpegError

    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file; expected a video or sound file")
    if not path.stat().st_size:
        raise DataError(f"{path}: is empty (0 bytes); remove it or copy it again")
    options = {"protocol_whitelist": "file", "format_whitelist": FORMATS}
    try:
        container = av.open(str(path.resolve()), options=options)
    except (FFmpegError, OSError, ValueError) as error:
        raise DataError(
            f"{path}: not a readable media file ({_why(error)}); remove or convert it"
        ) from None
    with container:
        stream = _choose(path, container, kind)
        seconds = _stated_seconds(container, stream)
        rate = float(stream.average_rate or stream.guessed_rate or 0) if kind == "video" else 0.0
        frames = stream.frames or round(rate * (seconds or 0))
        yield Stream(path, container, stream, kind, rate or None, frames or None, seconds)


def _stated_seconds(container: InputContainer, stream: Any) -> float | None:
    if container.format.name.partition(",")[0] not in STATING:
        return None
    rate = stream.average_rate if stream.type == "video" else None
    if container.format.name == "avi" and rate and stream.frames:
        return float(stream.frames / rate)  # the duration is guessed from the size
    if stream.duration:
        return float(stream.duration * stream.time_base)
    try:
        hours, minutes, seconds = map(float, stream.metadata["DURATION"].split(":"))  # Matroska
    except (KeyError, ValueError):
        return None
    begin = float((stream.start_time or 0) * stream.time_base)  # it counts from the clock's zero
    return 3600 * hours + 60 * minutes + seconds - begin


def import_av() -> None:
    """Check that PyAV is installed.

    Raises:
        DataError: it is not.
    """
    try:
        import av  # noqa: F401
    except ImportError:
        raise missing_library("video", "PyAV", "papercommons[video]") from None


def _choose(path: Path, container: InputContainer, kind: Kind) -> Any:
    from av.stream import Disposition

    streams: Any = container.streams.video if kind == "video" else container.streams.audio
    streams = [s for s in streams if not s.disposition & Disposition.attached_pic]
    if not container.streams:
        raise DataError(f"{path}: its begin cannot be read, it may be cut off; remove it")
    if not streams:
        others = " and ".join(sorted({stream.type for stream in container.streams}))
        raise NoStreamError(f"{path}: no {kind} stream; the file holds {others}")
    stream = streams[0]
    if stream.codec_context is None:
        raise DataError(f"{path}: the codec of its {kind} stream is not known; convert it")
    if kind == "video":
        width, height = stream.codec_context.width, stream.codec_context.height
        if width * height > MAX_PIXELS:
            raise DataError(
                f"{path}: {width} x {height} pixels, more than {MAX_PIXELS:,}; make its picture "
                "smaller"
            )
        stream.thread_type = "AUTO"
    return stream


def _why(error: BaseException) -> str:
    return str(getattr(error, "strerror", None) or reason(error))
