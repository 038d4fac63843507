from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from cmdfd.mouths import (
    CLASSES,
    OPENING,
    SILENCE,
    VOWELS,
    WIDTH,
    class_of,
    frame_classes,
    mouths_of_loudness,
    mouths_of_phonemes,
    other_words,
)
from cmdfd.speech import (
    SAMPLE_RATE,
    VARIANTS,
    Phoneme,
    Speech,
    Voice,
    _resampled,
    cut,
    sentence,
    speak,
    speak_for,
)
from papercommons.errors import DataError

TEXT = "Five small vases. Place blue at f two now."


@pytest.fixture(scope="module")
def said():
    pytest.importorskip("espeakng_loader")
    return speak(TEXT)


def test_the_same_words_are_the_same_samples_whatever_was_said_before(said):
    speak("something else", Voice("en-us+f2", 150, 30, 60))
    with ThreadPoolExecutor(2) as pool:
        for again in pool.map(speak, [TEXT] * 2):
            assert np.array_equal(again.waveform, said.waveform)
            assert again.phonemes == said.phonemes
    other = speak(TEXT, Voice(pitch=80))
    assert not np.array_equal(other.waveform[:8000], said.waveform[:8000])


def test_phonemes_follow_each_other_and_cover_the_sound(said):
    assert said.waveform.dtype == np.float32
    assert 0.05 < np.abs(said.waveform).max() <= 1
    begins = [p.begin for p in said.phonemes]
    assert begins[0] == 0
    assert begins[1:] == pytest.approx([p.end for p in said.phonemes[:-1]])
    assert said.phonemes[-1].end == pytest.approx(len(said.waveform) / SAMPLE_RATE, abs=1e-3)
    spoken = "".join(p.symbol for p in said.phonemes)
    assert spoken.startswith("fa")  # five
    assert {"v", "z", "b", "l"} <= set(spoken)


def test_pauses_are_quiet_and_vowels_loud(said):
    def loudness(phoneme):
        edges = (round(edge * SAMPLE_RATE) for edge in (phoneme.begin, phoneme.end))
        return float(np.sqrt(np.square(said.waveform[slice(*edges)]).mean()))

    pauses = [loudness(p) for p in said.phonemes if not p.symbol]
    vowels = [loudness(p) for p in said.phonemes if class_of(p.symbol) in VOWELS]
    assert pauses
    assert max(pauses) < 0.1 * np.mean(vowels)


def test_every_voice_speaks(said):
    for name in VARIANTS[::7]:
        assert len(speak("yes", Voice(name)).waveform) > 2000


def test_what_cannot_be_spoken(said, monkeypatch):
    with pytest.raises(DataError, match=r"no voice 'nobody'; try en-us"):
        speak("yes", Voice("nobody"))
    with pytest.raises(DataError, match="spoke nothing of ''"):
        speak("")
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(DataError, match=r'pip install "cmdfd\[speech\]"'):
        speak("yes")


def test_speech_fills_a_time(said):
    speech = speak_for(2.0, Voice(), np.random.default_rng(3))
    assert speech.waveform.shape == (2 * SAMPLE_RATE,)
    assert speech.phonemes[-1].end == pytest.approx(2.0)
    again = speak_for(2.0, Voice(), np.random.default_rng(3))
    assert np.array_equal(speech.waveform, again.waveform)


def test_a_tone_keeps_its_pitch_and_height_at_the_new_rate():
    tone = lambda rate, n: 0.5 * np.sin(2 * np.pi * 440 * np.arange(n) / rate)  # noqa: E731
    found = _resampled((32768 * tone(22_050, 22_050)).round().astype(np.int16), 22_050)
    assert found.shape == (16_000,)
    assert np.abs(found - tone(16_000, 16_000))[200:-200].max() < 2e-3
    high = (20_000 * np.sin(2 * np.pi * 10_000 * np.arange(22_050) / 22_050)).astype(np.int16)
    assert np.abs(_resampled(high, 22_050))[200:-200].max() < 0.02  # above half the new rate


def test_cutting_moves_sound_and_phonemes_together():
    speech = Speech(
        np.arange(16_000, dtype=np.float32), [Phoneme("a", 0, 0.4), Phoneme("b", 0.4, 1)]
    )
    piece = cut(speech, 0.25, 0.5)
    assert piece.waveform[0] == 4000
    assert len(piece.waveform) == 4000
    assert piece.phonemes == [("a", 0, pytest.approx(0.15)), ("b", pytest.approx(0.15), 0.25)]
    around = cut(speech, -0.5, 1.5)
    assert not around.waveform[:8000].any()
    assert np.array_equal(around.waveform[8000:24_000], speech.waveform)


def test_sentences_follow_from_chance():
    made = {sentence(np.random.default_rng(k)) for k in range(40)}
    assert len(made) == 40
    assert sentence(np.random.default_rng(1)) == sentence(np.random.default_rng(1))


WORD = [Phoneme(s, 0.1 * k, 0.1 * (k + 1)) for k, s in enumerate(["", "m", "a", "p", "u", "s", ""])]


def test_mouths_do_what_their_sounds_need():
    times = np.arange(0.05, 0.7, 0.1)
    silence, m, a, p, u, s, _ = mouths_of_phonemes(WORD, times, smoothing=0.03)
    assert max(m[OPENING], p[OPENING], silence[OPENING]) < 0.12
    assert a[OPENING] > 0.7
    assert u[WIDTH] < 0.2 < s[WIDTH]
    assert list(frame_classes(WORD, 18)[[0, 3, 6, 8, 11]]) == [
        CLASSES.index(name) for name in ("silence", "lips", "open", "lips", "round")
    ]
    assert frame_classes(WORD, 25)[20:].tolist() == [SILENCE] * 5


def test_mouths_move_with_time_and_stay_in_range():
    times = np.arange(0, 0.8, 0.04)
    mouths = mouths_of_phonemes(WORD, times)
    later = [Phoneme(s, b + 0.2, e + 0.2) for s, b, e in WORD]
    assert mouths_of_phonemes(later, times + 0.2) == pytest.approx(mouths, abs=1e-9)
    assert mouths.shape == (20, 4)
    assert mouths.min() >= 0
    assert mouths.max() <= 1


def test_a_mouth_of_loudness_opens_where_it_is_loud():
    waveform = np.zeros(32_000, np.float32)
    waveform[16_000:24_000] = np.random.default_rng(0).normal(0, 0.2, 8000)
    opening = mouths_of_loudness(waveform, np.arange(0, 2, 0.04))[:, OPENING]
    assert opening[27:36].min() > 0.6
    assert opening[:23].max() < 0.01
    assert (opening * np.arange(0, 2, 0.04)).sum() / opening.sum() == pytest.approx(1.25, abs=0.01)
    assert not mouths_of_loudness(0 * waveform, np.arange(0, 2, 0.04))[:, OPENING].any()


def test_other_words_keep_rhythm_and_change_every_sound():
    numbers = other_words(WORD, np.random.default_rng(0))
    own = [class_of(p.symbol) for p in WORD]
    assert all((a == b) == (b == SILENCE) for a, b in zip(numbers, own, strict=True))
    assert [n in VOWELS for n in numbers] == [n in VOWELS for n in own]
