"""Made clips of talking faces whose truth is known: genuine ones and seven kinds of others.

=============  =====  =============================================================================
real           real   the mouth says what is heard
lag            real   the same, but the sound is 1 or 2 frames early or late, as files often are
lipsync        fake   the mouth opens with the loudness and shows a generator's trace
lipsync_clean  fake   the same without the trace
rhythm         fake   other sounds at the right times
swap           fake   somebody else's voice with other words
shift          fake   the sound is 6 to 9 frames early or late
partial        fake   other words in a part of the clip
=============  =====  =============================================================================
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from papercommons.errors import nearest

from cmdfd.mouths import (
    FPS,
    frame_classes,
    mouths_of_loudness,
    mouths_of_phonemes,
    other_words,
)
from cmdfd.speech import SAMPLE_RATE, Phoneme, Speech, cut, speak_for
from cmdfd.talking import Speaker, film

Kind = Literal["real", "lag", "lipsync", "lipsync_clean", "rhythm", "swap", "shift", "partial"]
KINDS: tuple[Kind, ...] = get_args(Kind)
REAL_KINDS: tuple[Kind, ...] = ("real", "lag")
SAMPLES = int(SAMPLE_RATE / FPS)  # to a frame
_MARGIN = 0.4  # seconds that are spoken before and after a clip; a shift is at most 0.36


class Truth(NamedTuple):
    """What the official lists say of a clip.

    Attributes:
        entire: 0 real, 1 fake.
        audio: the sound is forged.
        video: the picture is forged.
        same_person: voice and face are one person's.
        in_sync: the lips follow the sound.
    """

    entire: int
    audio: int
    video: int
    same_person: int
    in_sync: int


TRUTH: dict[Kind, Truth] = {
    "real": Truth(0, 0, 0, 1, 1),
    "lag": Truth(0, 0, 0, 1, 1),
    "lipsync": Truth(1, 0, 1, 1, 1),
    "lipsync_clean": Truth(1, 0, 1, 1, 1),
    "rhythm": Truth(1, 0, 1, 1, 0),
    "swap": Truth(1, 0, 0, 0, 0),
    "shift": Truth(1, 0, 0, 1, 0),
    "partial": Truth(1, 0, 1, 1, 0),
}


@dataclass(frozen=True, eq=False)
class TalkingClip:
    """A made clip.

    Attributes:
        frames: RGB, uint8, shape (T, S, S, 3).
        waveform: at 16 kHz, float32 in [-1, 1], shape (640 T,).
        kind: see the module.
        face: name of who is seen.
        voice: name of who is heard.
        phonemes: that are heard, with times in seconds.
        mouths: that are seen, see `cmdfd.mouths`, shape (T, 4).
        segments: begin and end in seconds of the forged parts; empty where all or nothing is.
    """

    frames: np.ndarray
    waveform: np.ndarray
    kind: Kind
    face: str
    voice: str
    phonemes: list[Phoneme]
    mouths: np.ndarray
    segments: tuple[tuple[float, float], ...] = ()

    @property
    def truth(self) -> Truth:
        """What is forged."""
        return TRUTH[self.kind]

    @property
    def classes(self) -> np.ndarray:
        """What is heard in each frame, numbers in `cmdfd.mouths.CLASSES`, int64, shape (T,)."""
        return frame_classes(self.phonemes, len(self.frames))


def make_clip(
    kind: Kind,
    face: Speaker,
    frames: int,
    rng: np.random.Generator,
    *,
    other: Speaker | None = None,
    size: int = 112,
) -> TalkingClip:
    """Return a clip; the same arguments give the same pixels and samples.

    Args:
        kind: see the module.
        face: who is seen, and, but for ``swap``, heard.
        frames: T, at 25 per second, >= 25.
        rng: chance.
        other: who is heard in ``swap``.
        size: S, side of the frames in pixels, even, >= 32.

    Raises:
        ValueError: an unknown kind, numbers out of range, or a swap without another person.
        DataError: see `cmdfd.speech.speak`.
    """
    check_kinds([kind])
    if frames < 25 or size < 32 or size % 2:
        raise ValueError(f"need frames >= 25 and an even size >= 32, got {frames} and {size}")
    voice = other if kind == "swap" else face
    if voice is None:
        raise ValueError("kind swap needs other, the person who is heard")
    seconds = frames / FPS
    said = speak_for(seconds + 2 * _MARGIN, voice.voice, rng)
    times = _MARGIN + (np.arange(frames) + 0.5) / FPS + face.lead
    if kind in ("lag", "shift"):
        low, high = (1, 2) if kind == "lag" else (6, 9)
        times = times + float(rng.choice([-1, 1]) * rng.integers(low, high + 1)) / FPS
    how: dict[str, Any] = {"smoothing": face.smoothing}
    segments: tuple[tuple[float, float], ...] = ()
    if kind.startswith("lipsync"):
        mouths = mouths_of_loudness(said.waveform, times, **how)
    elif kind == "swap":
        words = speak_for(seconds + 2 * _MARGIN, face.voice, rng)
        mouths = mouths_of_phonemes(words.phonemes, times, **how)
    else:
        classes = other_words(said.phonemes, rng) if kind == "rhythm" else None
        mouths = mouths_of_phonemes(said.phonemes, times, classes=classes, **how)
    if kind == "partial":
        words = speak_for(seconds + 2 * _MARGIN, face.voice, rng)
        begin, end = _segment(frames, rng)
        weight = np.interp(np.arange(frames), [begin - 2, begin, end - 1, end + 1], [0, 1, 1, 0])
        forged = mouths_of_phonemes(words.phonemes, times, **how)
        mouths = mouths + weight[:, None] * (forged - mouths)
        segments = ((begin / FPS, end / FPS),)
    patched = np.ones(frames, np.float32) if kind == "lipsync" else None
    heard = cut(said, _MARGIN, _MARGIN + seconds)
    return TalkingClip(
        film(face, mouths, rng, size=size, patched=patched),
        _recorded(heard, rng),
        kind,
        face.name,
        voice.name,
        heard.phonemes,
        mouths,
        segments,
    )


def check_kinds(kinds: Any) -> None:
    """Raise ValueError where there is a kind that is not one of `KINDS`."""
    for kind in kinds:
        if kind not in KINDS:
            hint = nearest(str(kind), KINDS) or f"; there are {', '.join(KINDS)}"
            raise ValueError(f"no kind {kind!r}{hint}")


def _segment(frames: int, rng: np.random.Generator) -> tuple[int, int]:
    """Return first and last + 1 frame of a part: 30 to 60 % of the clip, not at its ends."""
    length = int(frames * rng.uniform(0.3, 0.6))
    begin = int(rng.integers(2, frames - length - 1))
    return begin, begin + length


def _recorded(speech: Speech, rng: np.random.Generator) -> np.ndarray:
    """Return speech as loud as chance has it, in a room with some noise."""
    clean = speech.waveform.astype(np.float64)
    clean *= rng.uniform(0.25, 0.85) / max(float(np.abs(clean).max()), 1e-9)
    noise = np.convolve(rng.standard_normal(len(clean)), np.exp(-np.arange(16) / 4.0), "same")
    power = float(np.square(clean).mean()) / 10 ** (rng.uniform(25, 45) / 10)
    noise *= np.sqrt(max(power, 1e-10) / np.square(noise).mean())
    return (clean + noise).clip(-1, 1).astype(np.float32)
