"""Made speech with the time of every phoneme: voices, sentences, 16 kHz sound."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from cmdfd.espeak import synthesize

SAMPLE_RATE = 16_000
VARIANTS = tuple(
    f"{accent}+{variant}"
    for variant in ("m1", "f1", "m3", "f2", "m7", "f4", "m2", "f5", "m4", "f3", "m8", "m6")
    for accent in ("en-us", "en-gb-x-rp", "en-gb-scotland")
)
_WHO = ("we", "they", "my father", "your sister", "the baker", "a sailor", "Mary", "the old judge")
_DID = ("saw", "brought", "washed", "found", "moved", "threw", "chose", "painted", "heard about")
_WHAT = (
    *("the blue boat", "five small vases", "a yellow jar", "both thumbs", "fresh white bread"),
    *("the wrong shoe", "a huge map", "some warm milk", "the broken chair", "three good books"),
    *("her purple hat", "a very heavy box", "no pepper", "every coin", "nothing"),
)
_WHERE = (
    *("by the river", "on Thursday", "at half past two", "in the garage", "before breakfast"),
    *("over the fence", "near the church", "with much joy", "in a few weeks", "under the tree"),
    *("for the chief", "out of town", "while we laughed"),
)
_COMMAND = (
    ("bin", "lay", "place", "set"),
    ("blue", "green", "red", "white"),
    ("at", "by", "in", "with"),
    tuple("abcdefghijklmnopqrstuvxyz"),
    ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
    ("again", "now", "please", "soon"),
)


class Voice(NamedTuple):
    """How somebody sounds.

    Attributes:
        name: voice of espeak-ng, with a variant after ``+``.
        rate: words per minute.
        pitch: 0 to 100.
        spread: how much the pitch moves, 0 to 100.
    """

    name: str = "en-us+m1"
    rate: int = 160
    pitch: int = 50
    spread: int = 50


class Phoneme(NamedTuple):
    """A sound of speech.

    Attributes:
        symbol: in IPA, without stress and length; empty in a pause.
        begin: seconds.
        end: seconds.
    """

    symbol: str
    begin: float
    end: float


class Speech(NamedTuple):
    """What somebody says.

    Attributes:
        waveform: float32 in [-1, 1] at 16 kHz, shape (S,).
        phonemes: one after the other, from 0 to the end.
    """

    waveform: np.ndarray
    phonemes: list[Phoneme]


def speak(text: str, voice: Voice | None = None) -> Speech:
    """Return a text as speech; the same text and voice give the same samples.

    Args:
        text: to say, English.
        voice: who says it.

    Raises:
        DataError: the extra ``cmdfd[speech]`` is missing, or there is no such voice.
    """
    name, rate, pitch, spread = voice or Voice()
    sound, sample_rate, heard = synthesize(text, name, rate=rate, pitch=pitch, spread=spread)
    samples = np.frombuffer(sound, np.int16)
    ends = [begin for begin, _ in heard[1:]] + [len(samples)]
    phonemes = [Phoneme("", 0.0, heard[0][0] / sample_rate)] if heard[0][0] > 0 else []
    for (begin, symbol), end in zip(heard, ends, strict=True):
        if end > begin:
            phonemes += _parts(symbol, begin / sample_rate, end / sample_rate)
    return Speech(_resampled(samples, sample_rate), phonemes)


def _parts(symbol: str, begin: float, end: float) -> list[Phoneme]:
    """Return a symbol's sounds, two for a diphthong or an affricate."""
    sounds = [c for c in symbol if c.isalpha() and c not in "ˈˌːʲʰ"] or [""]
    edges = np.linspace(begin, end, len(sounds) + 1).tolist()
    return [Phoneme(*sound) for sound in zip(sounds, edges, edges[1:], strict=False)]


def _resampled(samples: np.ndarray, sample_rate: int) -> np.ndarray:
    """Return 16-bit sound at 16 kHz, by its spectrum, as float32 in [-1, 1]."""
    step = sample_rate // np.gcd(sample_rate, SAMPLE_RATE)
    padded = np.pad(samples.astype(np.float64) / 32768, (0, -len(samples) % step + step))
    count = len(padded) * SAMPLE_RATE // sample_rate
    spectrum = np.fft.rfft(padded)[: count // 2 + 1]
    found = np.fft.irfft(spectrum, count) * (count / len(padded))
    length = round(len(samples) * SAMPLE_RATE / sample_rate)
    return found[:length].clip(-1, 1).astype(np.float32)


def sentence(rng: np.random.Generator) -> str:
    """Return a sentence: somebody does something, or a command of six words as in GRID.

    Args:
        rng: chance.
    """
    if rng.random() < 0.25:
        return " ".join(_one(rng, words) for words in _COMMAND) + "."
    return " ".join(_one(rng, words) for words in (_WHO, _DID, _WHAT, _WHERE)) + "."


def speak_for(seconds: float, voice: Voice, rng: np.random.Generator) -> Speech:
    """Return sentences that fill a time, cut to it.

    Args:
        seconds: > 0.
        voice: who speaks.
        rng: chance.
    """
    count = int(seconds / 1.4) + 1
    while True:
        speech = speak(" ".join(sentence(rng) for _ in range(count)), voice)
        if len(speech.waveform) >= seconds * SAMPLE_RATE:
            return cut(speech, 0.0, seconds)
        count *= 2


def cut(speech: Speech, begin: float, end: float) -> Speech:
    """Return what lies between two times, silence where there is nothing.

    Args:
        speech: whole.
        begin: seconds, may be below 0.
        end: seconds, > begin.
    """
    first, count = round(begin * SAMPLE_RATE), round((end - begin) * SAMPLE_RATE)
    waveform = np.zeros(count, np.float32)
    piece = speech.waveform[max(first, 0) : max(first + count, 0)]
    waveform[max(-first, 0) :][: len(piece)] = piece
    kept = [
        Phoneme(symbol, max(b, begin) - begin, min(e, end) - begin)
        for symbol, b, e in speech.phonemes
        if b < end and e > begin
    ]
    return Speech(waveform, kept)


def _one(rng: np.random.Generator, words: Sequence[str]) -> str:
    return words[int(rng.integers(len(words)))]
