"""What a mouth looks like while it speaks: classes of phonemes, and curves over time.

A mouth is four numbers in [0, 1]: how far it is open, how wide the lips are drawn (0 is rounded),
how much of the teeth and how much of the tongue is seen.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cmdfd.speech import SAMPLE_RATE, Phoneme

FPS = 25.0
OPENING, WIDTH, TEETH, TONGUE = range(4)
_GRID = 200.0  # steps per second of the curves

# class: IPA symbols, the four numbers, and how firmly the mouth takes that shape
_CLASSES: dict[str, tuple[str, tuple[float, float, float, float], float]] = {
    "silence": ("", (0.03, 0.50, 0.00, 0.00), 0.8),
    "lips": ("pbm", (0.00, 0.50, 0.00, 0.00), 4.0),
    "teeth": ("fv", (0.12, 0.52, 0.90, 0.00), 3.0),
    "tongue": ("tdnlɾθðɫ", (0.28, 0.55, 0.40, 0.80), 0.8),
    "hiss": ("sz", (0.15, 0.65, 1.00, 0.05), 1.5),
    "back": ("kɡghŋxʔ", (0.32, 0.50, 0.20, 0.35), 0.5),
    "wide": ("iɪeɛj", (0.40, 0.90, 0.50, 0.20), 1.0),
    "middle": ("əɐʌɜɚᵻ", (0.50, 0.55, 0.20, 0.10), 0.7),
    "open": ("aæɑɒ", (1.00, 0.60, 0.25, 0.20), 1.3),
    "round": ("oɔuʊw", (0.45, 0.08, 0.00, 0.00), 1.6),
    "pout": ("ʃʒɹr", (0.28, 0.22, 0.55, 0.10), 1.4),
}
CLASSES = tuple(_CLASSES)
VOWELS = tuple(CLASSES.index(name) for name in ("wide", "middle", "open", "round"))
SILENCE = CLASSES.index("silence")
_OF_SYMBOL = {s: number for number, name in enumerate(CLASSES) for s in _CLASSES[name][0]}
_SHAPES = np.array([shape for _, shape, _ in _CLASSES.values()])
_FIRMNESS = np.array([firmness for _, _, firmness in _CLASSES.values()])


def class_of(symbol: str) -> int:
    """Return the number of a phoneme's class in `CLASSES`; unknown sounds are ``middle``.

    Args:
        symbol: one IPA letter, or empty in a pause.
    """
    return _OF_SYMBOL.get(symbol, CLASSES.index("middle")) if symbol else SILENCE


def frame_classes(phonemes: Sequence[Phoneme], frames: int) -> np.ndarray:
    """Return what is said in the middle of each frame.

    Args:
        phonemes: in order of time.
        frames: T, at 25 per second.

    Returns:
        numbers of classes, int64, shape (T,).
    """
    times = (np.arange(frames) + 0.5) / FPS
    return _classes_at(phonemes, [class_of(p.symbol) for p in phonemes], times)


def mouths_of_phonemes(
    phonemes: Sequence[Phoneme],
    times: np.ndarray,
    *,
    classes: Sequence[int] | None = None,
    smoothing: float = 0.035,
) -> np.ndarray:
    """Return the mouth that says phonemes, smoothed: neighbours colour each other.

    Each sound pulls with its firmness, under a Gaussian window: lips that must meet for a p do,
    while a k takes the shape of the vowels around it.

    Args:
        phonemes: in order of time.
        times: seconds, ascending, shape (T,).
        classes: of the phonemes instead of their own.
        smoothing: standard deviation of the window in seconds, > 0.

    Returns:
        float64, shape (T, 4), see the module.
    """
    numbers = [class_of(p.symbol) for p in phonemes] if classes is None else classes
    half = int(np.ceil(3 * smoothing * _GRID))
    window = np.exp(-0.5 * (np.arange(-half, half + 1) / (smoothing * _GRID)) ** 2)
    grid = np.arange(times[0] - half / _GRID, times[-1] + (half + 1) / _GRID, 1 / _GRID)
    at = _classes_at(phonemes, numbers, grid)
    firm = _FIRMNESS[at]
    total = np.convolve(firm, window, "same")
    curves = [
        np.interp(times, grid, np.convolve(firm * shape, window, "same") / total)
        for shape in _SHAPES[at].T
    ]
    return np.stack(curves, axis=1)


def mouths_of_loudness(
    waveform: np.ndarray, times: np.ndarray, *, smoothing: float = 0.035
) -> np.ndarray:
    """Return a mouth that opens with the loudness of a sound, and knows nothing else of it.

    Args:
        waveform: at 16 kHz, shape (S,).
        times: seconds, ascending, shape (T,).
        smoothing: see `mouths_of_phonemes`.

    Returns:
        float64, shape (T, 4); width, teeth and tongue hardly change.
    """
    step = int(SAMPLE_RATE / _GRID)
    energy = np.square(waveform[: len(waveform) // step * step].reshape(-1, step)).mean(1)
    half = int(np.ceil(3 * smoothing * _GRID))
    window = np.exp(-0.5 * (np.arange(-half, half + 1) / (smoothing * _GRID)) ** 2)
    loud = np.sqrt(np.convolve(energy, window / window.sum(), "same"))
    loud = loud / max(float(np.quantile(loud, 0.95)), 1e-9)
    opening = np.interp(times, (np.arange(len(loud)) + 0.5) / _GRID, loud).clip(0, 1)
    rest = np.array([0.55, 0.25, 0.12])
    return np.column_stack([0.8 * opening, *(value + 0 * opening for value in rest)])


def other_words(phonemes: Sequence[Phoneme], rng: np.random.Generator) -> list[int]:
    """Return other classes for phonemes: vowels stay vowels, so that only the rhythm is right.

    Args:
        phonemes: in order of time.
        rng: chance.

    Returns:
        numbers of classes, none the phoneme's own; pauses stay.
    """
    consonants = [k for k in range(len(CLASSES)) if k != SILENCE and k not in VOWELS]
    found = []
    for phoneme in phonemes:
        own = class_of(phoneme.symbol)
        among = [k for k in (VOWELS if own in VOWELS else consonants) if k != own]
        found.append(own if own == SILENCE else among[int(rng.integers(len(among)))])
    return found


def _classes_at(
    phonemes: Sequence[Phoneme], numbers: Sequence[int], times: np.ndarray
) -> np.ndarray:
    """Return the class at each time; silence before the first and after the last phoneme."""
    begins = np.array([phoneme.begin for phoneme in phonemes])
    place = np.searchsorted(begins, times, "right") - 1
    at = np.array(numbers)[place.clip(0)]
    over = times >= phonemes[-1].end
    return np.where((place < 0) | over, SILENCE, at)
