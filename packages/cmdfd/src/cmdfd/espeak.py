"""The speech synthesiser espeak-ng through its C interface; needs the extra ``cmdfd[speech]``."""

from __future__ import annotations

import _ctypes
import ctypes
import threading
from typing import Any

from papercommons.errors import DataError

_SYNCHRONOUS = 2  # no threads, no sound card
_PHONEMES, _IPA, _DONT_EXIT = 1, 2, 0x8000
_UTF8, _POSITION_CHARACTER = 1, 1
_RATE, _PITCH, _RANGE = 1, 3, 4
_END, _PHONEME = 0, 7
_lock = threading.Lock()


class _Identity(ctypes.Union):
    _fields_ = (("number", ctypes.c_int), ("name", ctypes.c_char_p), ("text", ctypes.c_char * 8))


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _Identity),
    )


_CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)


def synthesize(
    text: str, voice: str, *, rate: int, pitch: int, spread: int
) -> tuple[bytes, int, list[tuple[int, str]]]:
    """Return the sound of a text, and when each phoneme begins.

    The library is loaded anew each time: it keeps the state of its generators from one text to the
    next, so that a sound would depend on what was said before. Safe in threads and forked
    processes.

    Args:
        text: to speak.
        voice: name of a voice of espeak-ng.
        rate: words per minute.
        pitch: 0 to 100.
        spread: of the pitch, 0 to 100.

    Returns:
        16-bit samples in the machine's order, samples per second, and for each phoneme its first
        sample and its symbol in IPA (empty in a pause).

    Raises:
        DataError: espeakng-loader is missing, the synthesiser does not start, there is no such
            voice, or nothing was spoken.
    """
    with _lock:
        library, data = _load()
        try:
            return _spoken(library, data, text, voice, (rate, pitch, spread))
        finally:
            library.espeak_Terminate()
            _unload(library._handle)


def _load() -> tuple[Any, str]:
    try:
        import espeakng_loader
    except ImportError:
        raise DataError(
            'speech needs espeakng-loader, which is not installed; run: pip install "cmdfd[speech]"'
        ) from None
    try:
        return ctypes.CDLL(espeakng_loader.get_library_path()), espeakng_loader.get_data_path()
    except OSError as error:
        raise DataError(f"espeak-ng cannot be loaded ({error}); reinstall it") from None


def _unload(handle: int) -> None:
    close = _ctypes.dlclose if hasattr(_ctypes, "dlclose") else _ctypes.FreeLibrary  # type: ignore[attr-defined]
    close(handle)


def _spoken(
    library: Any, data: str, text: str, voice: str, how: tuple[int, int, int]
) -> tuple[bytes, int, list[tuple[int, str]]]:
    sound: list[bytes] = []
    phonemes: list[tuple[int, str]] = []

    def hear(samples: Any, count: int, events: Any) -> int:
        if samples and count > 0:
            sound.append(ctypes.string_at(samples, 2 * count))
        number = 0
        while events[number].type != _END:
            if events[number].type == _PHONEME:
                symbol = events[number].id.text.decode("utf-8", errors="replace")
                phonemes.append((events[number].sample, symbol))
            number += 1
        return 0

    options = _PHONEMES | _IPA | _DONT_EXIT
    sample_rate = library.espeak_Initialize(_SYNCHRONOUS, 0, data.encode(), options)
    if sample_rate <= 0:
        raise DataError(f"espeak-ng cannot read its data in {data}; reinstall espeakng-loader")
    callback = _CALLBACK(hear)
    library.espeak_SetSynthCallback(callback)
    if library.espeak_SetVoiceByName(voice.encode()) != 0:
        raise DataError(f"espeak-ng has no voice {voice!r}; try en-us or en-us+f2")
    for parameter, value in zip((_RATE, _PITCH, _RANGE), how, strict=True):
        library.espeak_SetParameter(parameter, value, 0)
    words = text.encode()
    library.espeak_Synth(words, len(words) + 1, 0, _POSITION_CHARACTER, 0, _UTF8, None, None)
    library.espeak_Synchronize()
    if not sound or not any(symbol for _, symbol in phonemes):
        raise DataError(f"espeak-ng spoke nothing of {text[:40]!r}; give words of its language")
    return b"".join(sound), sample_rate, phonemes
