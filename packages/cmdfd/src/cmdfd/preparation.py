"""A clip as the detector takes it: one face cut out, grey, 25 frames a second, and 16 kHz sound.

Frames are chosen by their times. What only the picture or only the sound covers is cut off, nothing
is wrapped or repeated. The file is decoded once, or a second time where its frames need too much
memory to be kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
from papercommons.errors import DataError, counted
from papercommons.faces.crops import crop_box
from papercommons.video.frames import FrameSource
from papercommons.video.rates import whole_frames
from papercommons.video.sound import Sound, read_sound
from papercommons.video.streams import open_stream

from cmdfd.clips import to_gray
from cmdfd.entries import FPS, LEAST_FRAMES, MISMATCH
from cmdfd.tracks import DETECTORS, EVERY, ClipFace, follow_face, squash, whole_frame

SAMPLE_RATE, SAMPLES = 16_000, 640  # samples to a frame
MAX_SECONDS = 1800.0
KEPT_BYTES = 256 << 20
LEAST_SIZE, MOST_SIZE = 16, 512


@dataclass(frozen=True, eq=False)
class PreparedClip:
    """A clip cut out.

    Attributes:
        frames: grey face crops at 25 per second, uint8, shape (T, S, S).
        waveform: at 16 kHz, float32 in [-1, 1), in steps of 1 / 32768, shape (640 T,).
        boxes: what was cut, in pixels of the upright picture, float64, shape (T, 4).
        facts: plain types: width, height, rotation, stated_fps, decoded_frames, video_seconds,
            audio_seconds, audio_delay, sample_rate, begin (seconds cut off the picture's begin),
            frames, faces (followed; None without a detector), face_share (of the looks in which
            this one was found), still (one box serves all frames), problems.
        notes: what the user should know, a sentence each, without the clip's name.
    """

    frames: np.ndarray
    waveform: np.ndarray
    boxes: np.ndarray
    facts: dict[str, Any]
    notes: tuple[str, ...]


def prepare_clip(
    path: str | Path,
    *,
    audio: str | Path | None = None,
    detector: str = "lbp",
    size: int = 112,
    face: int | Literal["largest"] = "largest",
    every: int = EVERY,
    swapped: bool = False,
    partial: bool = False,
    max_seconds: float = MAX_SECONDS,
) -> PreparedClip:
    """Return a clip's face and voice.

    The face is looked for in every n-th frame and followed; of several the one that is large for
    long is taken. A head that keeps nearly still gets one box, another one a box that follows it
    smoothly; a square of 1.3 times the box is cut.

    Args:
        path: video file.
        audio: file with the sound, which begins with the picture; None: it is in the video.
        detector: ``lbp``, ``mtcnn`` (where facenet_pytorch is installed), or ``none``: the whole
            frame is the face, pressed into a square as in the official code.
        size: S, side of the crops in pixels, 16 to 512.
        face: which one, by size; 1 is the largest.
        every: n.
        swapped: grey with the weights of red and blue changed, as the official code has it.
        partial: accept a broken file's readable part.
        max_seconds: longer clips are refused.

    Raises:
        ValueError: an argument out of range.
        DataError: a file is missing, no media file, without picture or sound, without times and
            frame rate, broken (it says how many frames can be decoded), too long, silent, shorter
            than 5 frames; no face, or fewer than asked for.
    """
    if detector not in DETECTORS:
        raise ValueError(f"--detector must be one of {', '.join(DETECTORS)}, got {detector!r}")
    if not LEAST_SIZE <= size <= MOST_SIZE:
        raise ValueError(f"--size must be in [{LEAST_SIZE}, {MOST_SIZE}], got {size}")
    sound = read_sound(Path(audio or path), SAMPLE_RATE, max_seconds, require=True)
    assert sound is not None
    if sound.error and not partial:
        raise sound.error
    check_heard(sound.waveform, audio or path)
    picture = Picture(
        path,
        begin=sound.begin if audio is None else None,
        colour=swapped or detector == "mtcnn",
        partial=partial,
        most=round(max_seconds * FPS),
    )
    if detector == "none":
        found, count = None, sum(1 for _ in picture)
    else:
        found = follow_face(picture, detector, path, face=face, every=every)
        count = picture.count
    first = picture.first
    begin, end = (sound.begin, sound.end) if audio is None else (first, first + _seconds(sound))
    zero = max(first, begin)
    count = min(count, whole_frames(min(picture.end, end) - zero, FPS))
    if count < LEAST_FRAMES:
        raise DataError(
            f"{path}: {counted(max(0, count), 'frame')} with sound at {FPS:g} per second; "
            f"expected at least {LEAST_FRAMES}; leave it out"
        )
    if detector != "none" and found is None:
        raise DataError(
            f"{path}: no face found in every {every}th of {picture.count} frames; leave it out, or "
            "take --detector none for clips that are cut to the face"
        )
    skipped = round((zero - begin) * SAMPLE_RATE)
    waveform = sound.waveform[skipped : skipped + SAMPLES * count]
    waveform = np.pad(waveform, (0, SAMPLES * count - len(waveform)))
    check_heard(waveform, audio or path)
    boxes = whole_frame(picture.shape, count) if found is None else found.boxes[:count]
    frames = np.empty((count, size, size), np.uint8)
    for number, pixels in enumerate(islice(picture, count)):
        cut = squash(pixels, size) if found is None else _cut(path, pixels, boxes[number], size)
        frames[number] = to_gray(cut, swapped=swapped) if cut.ndim == 3 else cut
    height, width = picture.shape[:2]
    facts = {
        "width": width,
        "height": height,
        "rotation": picture.rotation,
        "stated_fps": picture.stated_fps,
        "decoded_frames": picture.decoded,
        "video_seconds": picture.end - first,
        "audio_seconds": _seconds(sound),
        "audio_delay": 0.0 if audio is not None else sound.begin - first,
        "sample_rate": sound.rate,
        "begin": zero - first,
        "frames": count,
        "faces": None if found is None else found.found,
        "face_share": None if found is None else found.share,
        "still": None if found is None else found.still,
        "problems": [*picture.problems, *sound.problems],
    }
    return PreparedClip(frames, waveform, boxes, facts, tuple(_notes(facts, found, face)))


def check_heard(waveform: np.ndarray, path: str | Path) -> None:
    """Raise DataError if a sound is silent.

    Args:
        waveform: of a clip, shape (S,).
        path: of the clip, for the message.
    """
    if not waveform.any():
        raise DataError(f"{path}: its sound is silent (all samples are 0); leave it out")


class Picture:
    """A file's frames at 25 per second, as often as they are asked for, in bounded memory.

    What is known of the file is known after the first time.

    Args:
        path: video file.
        begin: seconds of the file's clock where the first frame is to be; None: at the first.
        colour: RGB instead of the video's own luma.
        partial: accept a broken file's readable part.
        most: frames; more are refused.

    Attributes:
        count: frames at 25 per second.
        first: seconds of the file's clock where the picture begins.
        end: where it ends.
        shape: of a frame.
        rotation: degrees counterclockwise that the file asks for.
        stated_fps: frames per second, None where the file does not say.
        decoded: frames of the file.
        problems: what is broken, a phrase each.
    """

    def __init__(
        self, path: str | Path, *, begin: float | None, colour: bool, partial: bool, most: int
    ) -> None:
        self.path, self.begin, self.colour, self.partial = path, begin, colour, partial
        self.most = most
        self.first = self.end = 0.0
        self.shape: tuple[int, ...] = ()
        self.count = self.rotation = self.decoded = 0
        self.stated_fps: float | None = None
        self.problems: list[str] = []
        self._kept: list[np.ndarray] | None = None

    def __iter__(self) -> Iterator[np.ndarray]:
        """Give the frames, uint8, (H, W) or (H, W, 3)."""
        if self._kept is not None:
            yield from self._kept
            return
        kept: list[np.ndarray] | None = []
        with open_stream(self.path, "video") as stream:
            source = FrameSource(stream, gray=not self.colour, max_side=None)
            for number, pixels in enumerate(source.at_rate(FPS, self.begin)):
                if number == self.most:
                    raise DataError(
                        f"{self.path}: longer than {self.most / FPS:g} s; cut it into parts"
                    )
                if kept is not None:
                    kept.append(pixels)
                    kept = kept if len(kept) * pixels.nbytes <= KEPT_BYTES else None
                self.shape, self.count = pixels.shape, max(self.count, number + 1)
                yield pixels
            self.problems = stream.check(partial=self.partial)
            self.first, self.end = stream.start or 0.0, stream.end
            self.stated_fps, self.decoded = stream.rate, stream.decoded
            self.rotation = source.rotation
        self._kept = kept


def _seconds(sound: Sound) -> float:
    return sound.end - sound.begin


def _cut(path: str | Path, pixels: np.ndarray, box: np.ndarray, size: int) -> np.ndarray:
    try:
        return crop_box(pixels, box, size)
    except ValueError as error:
        raise DataError(f"{path}: the face leaves the picture ({error}); leave it out") from None


def _notes(
    facts: dict[str, Any], found: ClipFace | None, face: int | Literal["largest"]
) -> Iterator[str]:
    if found is not None and found.found > 1:
        which = "the largest was taken" if face == "largest" else f"number {face} was taken"
        yield f"{found.found} faces were found; {which} (--face N takes another)"
    if found is not None and found.share < 0.5:
        yield f"the face was found in only {found.share:.0%} of the frames looked at"
    apart = facts["audio_seconds"] - facts["video_seconds"]
    if abs(apart) > MISMATCH:
        yield (
            f"the sound lasts {apart:+.2f} s beside the picture; cut to the "
            f"{facts['frames'] / FPS:.2f} s both have"
        )
    rate = facts["stated_fps"]
    if rate is None:
        yield "the file states no frame rate; frames are placed by their times"
    elif abs(rate - FPS) > 0.01:
        yield f"{rate:g} frames per second; taken at {FPS:g} by their times"
    for problem in facts["problems"]:
        yield f"broken: {problem}"
