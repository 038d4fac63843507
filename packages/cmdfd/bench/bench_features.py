"""Decoding and features against plain PyAV with a loop over frames, and MFCC against NumPy.

``python -m pytest packages/cmdfd/bench/bench_features.py -s --device cpu`` (or cuda). The CPU part
uses one thread. Values are tested; times are only printed.
"""

from __future__ import annotations

import av
import numpy as np
import pytest
import torch
from cmdfd.clips import read_clip
from cmdfd.features import clip_mfcc
from cmdfd.mel import mfcc
from papercommons.testing.timing import compare_speed, peak_memory
from papercommons.video.writing import write_clip

SECONDS = 4
RATE = 16_000


@pytest.fixture(autouse=True)
def _one_thread(device):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def plain_mfcc(samples):
    """Return the cepstra of 16-bit samples, (S,) -> (rows, 13), as the formulas read."""
    length, step, n_fft, filters = 640, 160, 640, 26
    x = samples.astype(np.float64)
    x = np.append(x[0], x[1:] - 0.97 * x[:-1])
    rows = 1 + max(0, int(np.ceil((len(x) - length) / step)))
    x = np.append(x, np.zeros((rows - 1) * step + length - len(x)))
    windows = np.stack([x[k * step : k * step + length] for k in range(rows)])
    power = np.abs(np.fft.rfft(windows, n_fft)) ** 2 / n_fft
    top = 2595 * np.log10(1 + RATE / 2 / 700)
    hertz = 700 * (10 ** (np.linspace(0, top, filters + 2) / 2595) - 1)
    corners = np.floor((n_fft + 1) * hertz / RATE).astype(int)
    bank = np.zeros((filters, n_fft // 2 + 1))
    for j in range(filters):
        for i in range(corners[j], corners[j + 1]):
            bank[j, i] = (i - corners[j]) / (corners[j + 1] - corners[j])
        for i in range(corners[j + 1], corners[j + 2]):
            bank[j, i] = (corners[j + 2] - i) / (corners[j + 2] - corners[j + 1])
    eps = np.finfo(float).eps
    energies = power @ bank.T
    energies = np.log(np.where(energies == 0, eps, energies))
    k, n = np.arange(13)[:, None], np.arange(filters)
    turn = np.sqrt(2 / filters) * np.cos(np.pi * k * (2 * n + 1) / (2 * filters))
    turn[0] = np.sqrt(1 / filters)
    cepstra = energies @ turn.T * (1 + 11 * np.sin(np.pi * np.arange(13) / 22))
    total = power.sum(1)
    cepstra[:, 0] = np.log(np.where(total == 0, eps, total))
    return cepstra


def plain_reading(path):
    """Return grey frames, 16-bit sound at 16 kHz and its cepstra, frame after frame."""
    frames, sound = [], []
    with av.open(str(path)) as file:
        for frame in file.decode(video=0):
            red, green, blue = (
                frame.to_ndarray(format="rgb24").astype(np.float64).transpose(2, 0, 1)
            )
            frames.append((0.299 * red + 0.587 * green + 0.114 * blue + 0.5).astype(np.uint8))
    resampler = av.AudioResampler(format="s16", layout="mono", rate=RATE)
    with av.open(str(path)) as file:
        for frame in file.decode(audio=0):
            sound += [piece.to_ndarray()[0] for piece in resampler.resample(frame)]
    sound += [piece.to_ndarray()[0] for piece in resampler.resample(None)]
    samples = np.concatenate(sound)
    return np.stack(frames), samples, plain_mfcc(samples)


def speech_like(seconds):
    rng = np.random.default_rng(0)
    t = np.arange(int(seconds * RATE)) / RATE
    tone = np.sin(2 * np.pi * 140 * t) * (1 + np.sin(2 * np.pi * 4 * t)) / 4
    return (tone + 0.02 * rng.standard_normal(len(t))).clip(-1, 1).astype(np.float32)


@pytest.mark.parametrize("side", [112, 224])
def test_decoding(side, tmp_path, record):
    """Ours also chooses frames by their times and cuts both streams to what they share."""
    rng = np.random.default_rng(0)
    base = rng.integers(0, 256, (side // 8, side // 8, 3)).repeat(8, 0).repeat(8, 1)
    frames = np.stack([np.roll(base, k, 1) for k in range(25 * SECONDS)]).astype(np.uint8)
    path = tmp_path / "clip.mp4"
    write_clip(path, frames, fps=25, waveform=speech_like(SECONDS), sample_rate=RATE)

    def ours():
        clip = read_clip(path, gray=True)
        return clip.frames, clip_mfcc(torch.from_numpy(clip.waveform), len(clip.frames))

    pictures, rows = ours()
    others, _, cepstra = plain_reading(path)
    assert rows.shape == (4 * len(pictures), 13)
    assert abs(len(cepstra) - len(rows)) < 20
    apart = np.abs(pictures.astype(float) - others[: len(pictures)])
    assert apart.mean() < 3  # luma of the file against grey of its colours
    speed = compare_speed(ours, lambda: plain_reading(path), rounds=3)
    record(
        measured="file to grey frames and MFCC, per second of the clip",
        size=f"{SECONDS} s, {side} x {side}, H.264 + AAC",
        ours=f"{1e3 * speed.ours_s / SECONDS:.1f} ms",
        plain=f"{1e3 * speed.reference_s / SECONDS:.1f} ms",
        **speed.ratios(),
        memory=None,
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(("batch", "seconds"), [(1, 4), (16, 4), (1, 40)])
def test_mfcc(batch, seconds, dtype, device, record):
    samples = (32767 * speech_like(seconds)).astype(np.int16)
    sound = torch.from_numpy(np.tile(samples, (batch, 1))).to(device)

    def ours():
        return mfcc(sound, dtype=dtype)

    def plain():
        return np.stack([plain_mfcc(samples) for _ in range(batch)])

    exact = dtype == torch.float64
    np.testing.assert_allclose(ours().cpu(), plain(), rtol=1e-8 if exact else 1e-3, atol=1e-2)
    speed = compare_speed(ours, plain, rounds=5)
    memory = [peak_memory(function, device) / 2**20 for function in (ours, plain)]
    record(
        measured=f"MFCC in {str(dtype).removeprefix('torch.')} against NumPy in float64",
        size=f"{batch} x {seconds} s",
        ours=f"{1e3 * speed.ours_s:.2f} ms, {memory[0]:.1f} MiB",
        plain=f"{1e3 * speed.reference_s:.2f} ms, {memory[1]:.1f} MiB",
        **speed.ratios(),
        memory=round(memory[0] / memory[1], 3),
    )
