"""Writing clips as mp4 (H.264 and AAC); needs the extra ``papercommons[video]``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from papercommons.errors import DataError, reason
from papercommons.files import atomic_path
from papercommons.video.streams import import_av


def write_clip(
    path: str | Path,
    frames: Iterable[np.ndarray],
    *,
    fps: float = 25.0,
    waveform: np.ndarray | None = None,
    sample_rate: int = 16_000,
    quality: int = 18,
    overwrite: bool = False,
) -> None:
    """Write frames, and sound if given, to an .mp4 file, whole or not at all.

    Args:
        path: the file; its name ends in .mp4, its folder is made.
        frames: uint8 (H, W, 3) in RGB or (H, W) in grey, at least one; H and W are even and all
            the same. They are taken one by one.
        fps: frames per second, >= 0.01.
        waveform: mono, float (S,) in [-1, 1]; what is beyond is clipped.
        sample_rate: of the waveform in Hz, > 0.
        quality: H.264's constant rate factor, 0 (nearly lossless) to 51; 18 shows no loss.
        overwrite: replace a file that exists.

    Raises:
        ValueError: the name, a frame, the waveform or a number is not as described.
        DataError: PyAV is missing, the file exists, or the encoder refuses.
    """
    path = Path(path)
    if path.suffix.lower() != ".mp4":
        raise ValueError(f"path must end in .mp4, got {path}")
    if not (fps >= 0.01 and sample_rate > 0 and 0 <= quality <= 51):
        raise ValueError(
            "need fps >= 0.01, sample_rate > 0 and quality in [0, 51], got "
            f"{fps}, {sample_rate} and {quality}"
        )
    if waveform is not None and (waveform.ndim != 1 or waveform.dtype.kind != "f"):
        raise ValueError(f"waveform must be float (S,), got {waveform.dtype} {waveform.shape}")
    if path.exists() and not overwrite:
        raise DataError(f"{path}: exists; choose another name or pass --overwrite")
    import_av()
    import av
    from av.error import FFmpegError

    checked = _checked(frames)
    first = next(checked, None)
    if first is None:
        raise ValueError("frames must hold at least one frame")
    rate = Fraction(fps).limit_denominator(1001)
    try:
        with (
            atomic_path(path) as temporary,
            av.open(str(temporary), "w", options={"movflags": "faststart"}) as container,
        ):
            picture: Any = container.add_stream("libx264", rate=rate, options={"crf": str(quality)})
            picture.height, picture.width = first.shape[:2]
            picture.pix_fmt = "yuv420p"
            sound: Any = None
            if waveform is not None:
                sound = container.add_stream("aac", rate=sample_rate, layout="mono")
            for pixels in chain([first], checked):
                form = "gray" if pixels.ndim == 2 else "rgb24"
                _encode(container, picture, av.VideoFrame.from_ndarray(pixels, form))
            _encode(container, picture, None)
            if waveform is not None:
                for frame in _sound_frames(waveform, sample_rate):
                    _encode(container, sound, frame)
                _encode(container, sound, None)
    except FFmpegError as error:
        raise DataError(f"{path}: cannot be written ({reason(error)})") from None


def _encode(container: Any, stream: Any, frame: Any) -> None:
    for packet in stream.encode(frame):
        container.mux(packet)


def _checked(frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    shape = None
    for pixels in frames:
        shape = shape or pixels.shape
        fine = pixels.dtype == np.uint8 and pixels.shape[2:] in ((), (3,)) and pixels.ndim > 1
        if not fine or 0 in pixels.shape or pixels.shape[0] % 2 or pixels.shape[1] % 2:
            raise ValueError(
                "frames must be uint8 (H, W) or (H, W, 3) with even H and W, got "
                f"{pixels.dtype} {pixels.shape}"
            )
        if pixels.shape != shape:
            raise ValueError(f"frames must be of one shape, got {shape} and {pixels.shape}")
        yield np.ascontiguousarray(pixels)


def _sound_frames(waveform: np.ndarray, sample_rate: int) -> Iterator[Any]:
    from av import AudioFrame

    samples = waveform.astype(np.float32).clip(-1, 1)[None]
    for begin in range(0, samples.shape[1], sample_rate):
        piece = np.ascontiguousarray(samples[:, begin : begin + sample_rate])
        frame = AudioFrame.from_ndarray(piece, format="flt", layout="mono")
        frame.sample_rate = sample_rate
        frame.pts = begin
        frame.time_base = Fraction(1, sample_rate)
        yield frame
