from __future__ import annotations

import numpy as np
import pytest
import torch
from cmdfd.features import (
    clip_mfcc,
    clip_stft,
    fitted,
    legacy_features,
    levelled,
    stft_magnitude,
)
from cmdfd.mel import filter_bank, mfcc
from hypothesis import given
from hypothesis import strategies as st


def loop_mfcc(samples, length=640, step=160, n_fft=640, filters=26, kept=13):
    """MFCC by the textbook, a window at a time."""
    x = np.append(samples[0], samples[1:] - 0.97 * samples[:-1]).astype(np.float64)
    count = 1 if len(x) <= length else 1 + int(np.ceil((len(x) - length) / step))
    x = np.append(x, np.zeros((count - 1) * step + length - len(x)))
    mel = np.linspace(0, 2595 * np.log10(1 + 8000 / 700), filters + 2)
    corner = np.floor((n_fft + 1) * 700 * (10 ** (mel / 2595) - 1) / 16000).astype(int)
    rows = []
    for k in range(count):
        power = np.abs(np.fft.rfft(x[k * step : k * step + length], n_fft)) ** 2 / n_fft
        energies = []
        for j in range(filters):
            energy = 0.0
            for i in range(corner[j], corner[j + 1]):
                energy += power[i] * (i - corner[j]) / (corner[j + 1] - corner[j])
            for i in range(corner[j + 1], corner[j + 2]):
                energy += power[i] * (corner[j + 2] - i) / (corner[j + 2] - corner[j + 1])
            energies.append(np.log(energy or np.finfo(float).eps))
        row = []
        for c in range(kept):
            angles = np.pi * c * (np.arange(filters) + 0.5) / filters
            value = (energies * np.cos(angles)).sum() * np.sqrt((1 if c == 0 else 2) / filters)
            row.append(value * (1 + 11 * np.sin(np.pi * c / 22)))
        row[0] = np.log(power.sum() or np.finfo(float).eps)
        rows.append(row)
    return np.array(rows)


@pytest.mark.parametrize("size", [1, 639, 640, 641, 2000, 4321])
def test_mfcc_is_the_textbooks(size):
    samples = np.random.default_rng(size).integers(-9000, 9000, size).astype(np.int16)
    samples[: size // 3] = 0
    expected = loop_mfcc(samples.astype(np.float64))
    exact = mfcc(torch.from_numpy(samples), dtype=torch.float64)
    np.testing.assert_allclose(exact, expected, rtol=0, atol=1e-10)
    np.testing.assert_allclose(mfcc(torch.from_numpy(samples)), expected, rtol=0, atol=2e-3)


@pytest.mark.parametrize("tag", ["a", "short", "long", "fps30"])
def test_official_features_are_the_references(parity, tag):
    example = parity("audio_features")
    found = {name.removeprefix(f"{tag}_"): example[name] for name in example if tag in name}
    frames, fps = int(found["frames"]), float(found["fps"])
    rows, magnitude = legacy_features(found["wav"], frames, fps)
    torch.testing.assert_close(rows, found["mfcc"], rtol=0, atol=1e-4)
    assert list(magnitude.shape) == found["stft_shape"].tolist() == [4 * frames, 321]
    torch.testing.assert_close(magnitude[:24], found["stft"], rtol=0, atol=1e-5)
    torch.testing.assert_close(magnitude.mean(1), found["stft_rowmean"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_features_of_speech_are_the_references(parity, dtype):
    example = parity("grid_audio")
    rows = mfcc(example["wav"], dtype=dtype)
    assert rows.dtype == dtype
    torch.testing.assert_close(rows.float(), example["mfcc_unpadded"], rtol=0, atol=1e-4)
    magnitude = stft_magnitude(levelled(example["wav"], dtype=dtype)).float()
    for axis, name in ((1, "stft_rowmean"), (0, "stft_colmean")):
        torch.testing.assert_close(magnitude.mean(axis), example[name], rtol=0, atol=1e-5)
    floats = mfcc(example["wav"].float() / 32768, dtype=dtype)
    assert torch.equal(floats, rows)


def test_stft_is_the_textbooks():
    x = np.random.default_rng(0).normal(size=3000)
    taper = 0.54 - 0.46 * np.cos(2 * np.pi * np.arange(640) / 640)
    pieces = np.stack([x[k : k + 640] * taper for k in range(0, 3000 - 639, 160)])
    expected = np.abs(np.fft.rfft(pieces)) / taper.sum()
    np.testing.assert_allclose(stft_magnitude(torch.from_numpy(x)), expected, rtol=0, atol=1e-14)


@given(frames=st.integers(1, 60), more=st.integers(0, 5000), seed=st.integers(0, 99))
def test_every_clip_has_four_rows_a_frame_and_nothing_behind_it_counts(frames, more, seed):
    wave = torch.randn(640 * frames + more, generator=torch.Generator().manual_seed(seed)) / 9
    rows, magnitude = clip_mfcc(wave, frames), clip_stft(wave, frames)
    assert rows.shape == (4 * frames, 13)
    assert magnitude.shape == (4 * frames, 321)
    alone = wave[: 640 * frames]
    torch.testing.assert_close(clip_mfcc(alone, frames), rows)
    torch.testing.assert_close(clip_stft(alone, frames), magnitude)
    # rows before the end hear no padding at all
    inner = mfcc(alone)[: 4 * frames - 3]
    torch.testing.assert_close(rows[: 4 * frames - 3], inner, rtol=1e-4, atol=1e-3)


@given(seed=st.integers(0, 99), frames=st.integers(1, 12))
def test_a_batch_has_the_features_of_its_clips(seed, frames):
    waves = torch.randn(3, 640 * frames, generator=torch.Generator().manual_seed(seed)) / 9
    for function in (clip_mfcc, clip_stft):
        alone = torch.stack([function(wave, frames, dtype=torch.float64) for wave in waves])
        batch = function(waves, frames, dtype=torch.float64)
        torch.testing.assert_close(batch, alone, rtol=0, atol=1e-9)


def test_silence_and_loudness():
    assert torch.isfinite(clip_mfcc(torch.zeros(6400), 10)).all()
    assert torch.equal(clip_stft(torch.zeros(6400), 10), torch.zeros(40, 321))
    wave = torch.randn(6400, dtype=torch.double) / 9
    quiet = clip_stft(wave / 50, 10, dtype=torch.float64)
    torch.testing.assert_close(quiet, clip_stft(wave, 10, dtype=torch.float64))
    assert levelled(wave, dtype=torch.float64).square().mean().item() == pytest.approx(1)


def test_mixed_precision_does_not_reach_the_features(parity):
    wave = parity("grid_audio")["wav"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rows = mfcc(wave)
    assert torch.equal(rows, mfcc(wave))


def test_filters_meet_each_other():
    bank = filter_bank(26, 640, 16_000)
    assert bank.shape == (26, 321)
    np.testing.assert_allclose(bank.max(1), 1)
    inside = slice(bank[0].argmax(), bank[-1].argmax() + 1)
    np.testing.assert_allclose(bank.sum(0)[inside], 1)


def test_wrong_arguments_are_told():
    with pytest.raises(ValueError, match="10 frames need a waveform of 6400 samples, got 6399"):
        fitted(torch.zeros(6399), 10)
    with pytest.raises(ValueError, match="S >= 1"):
        mfcc(torch.zeros(0))
    with pytest.raises(ValueError, match="coefficients must be in"):
        mfcc(torch.zeros(9), coefficients=27)
    with pytest.raises(ValueError, match="at least 640 samples, got 639"):
        stft_magnitude(torch.zeros(639))
