"""Mel-frequency cepstra as python_speech_features computes them, batched, in torch.

Specification section 3.7: pre-emphasis 0.97, rectangular windows, 26 triangular filters, an
orthonormal DCT-II, a lifter of 22, and the log energy in place of the first coefficient. Other
libraries' MFCC differ from these by far more than rounding.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

PRE_EMPHASIS = 0.97
LIFTER = 22
_LEAST = float(np.finfo(np.float64).eps)  # stands for an energy of zero


def mfcc(
    waveform: Tensor,
    *,
    sample_rate: int = 16_000,
    window: float = 0.040,
    hop: float = 0.010,
    coefficients: int = 13,
    filters: int = 26,
    n_fft: int | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Return mel-frequency cepstral coefficients, a row every `hop` seconds.

    There are ``1 + ceil((S - L) / H)`` rows for windows of L samples every H; the last window is
    filled with zeros.

    Args:
        waveform: 16-bit samples as they are, or floats in [-1, 1], which are taken times 32768;
            shape (..., S), S >= 1.
        sample_rate: samples per second.
        window: seconds. Paper: 0.040.
        hop: seconds. Paper: 0.010.
        coefficients: of each row, the first of them the log energy, in [1, filters]. Paper: 13.
        filters: triangular ones, up to half the sample rate. Paper: 26.
        n_fft: length of the transform; longer windows are cut to it. None is `window` in samples.
        dtype: of the computation and of the result; float64 agrees with NumPy's to 1e-12.

    Returns:
        shape (..., rows, coefficients).

    Raises:
        ValueError: no samples, or a number out of range.

    Example:
        >>> mfcc(torch.zeros(16_000, dtype=torch.int16)).shape
        torch.Size([97, 13])
    """
    length, step = _rounded(window * sample_rate), _rounded(hop * sample_rate)
    n_fft = length if n_fft is None else n_fft
    if waveform.ndim < 1 or waveform.shape[-1] < 1 or min(length, step, n_fft) < 1:
        raise ValueError(
            "waveform must be (..., S) with S >= 1, and window, hop and n_fft at least a sample, "
            f"got {tuple(waveform.shape)}, {length}, {step} and {n_fft} samples"
        )
    if not 1 <= coefficients <= filters:
        raise ValueError(f"coefficients must be in [1, {filters}], got {coefficients}")
    x = waveform.to(dtype) * (32768 if waveform.is_floating_point() else 1)
    x = torch.cat([x[..., :1], x[..., 1:] - PRE_EMPHASIS * x[..., :-1]], dim=-1)
    rows = 1 + max(0, math.ceil((x.shape[-1] - length) / step))
    x = F.pad(x, (0, (rows - 1) * step + length - x.shape[-1]))
    spectrum = torch.fft.rfft(x.unfold(-1, length, step), n=n_fft)
    power = torch.view_as_real(spectrum).square().sum(-1) / n_fft
    bank = torch.tensor(filter_bank(filters, n_fft, sample_rate)).to(power)
    turn = torch.tensor(_liftered_dct(coefficients, filters)).to(power)
    with torch.autocast(power.device.type, enabled=False):  # half floats end below these powers
        cepstra = _without_zeros(power @ bank.T).log() @ turn.T
    energy = _without_zeros(power.sum(-1)).log()
    return torch.cat([energy[..., None], cepstra[..., 1:]], dim=-1)


def _rounded(samples: float) -> int:
    return math.floor(samples + 0.5)


def _without_zeros(energy: Tensor) -> Tensor:
    return torch.where(energy == 0, _LEAST, energy)


@cache
def filter_bank(filters: int, n_fft: int, sample_rate: int) -> np.ndarray:
    """Return triangles whose corners are equally far apart in mel, at whole bins.

    Args:
        filters: how many, F.
        n_fft: length of the transform.
        sample_rate: samples per second; the last triangle ends at half of it.

    Returns:
        float64, shape (F, n_fft // 2 + 1), in [0, 1]; read-only.
    """
    top = 2595 * np.log10(1 + sample_rate / 2 / 700)
    hertz = 700 * (10 ** (np.linspace(0, top, filters + 2) / 2595) - 1)
    corners = np.floor((n_fft + 1) * hertz / sample_rate)[:, None]
    left, peak, right = corners[:-2], corners[1:-1], corners[2:]
    bins = np.arange(n_fft // 2 + 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        up, down = (bins - left) / (peak - left), (right - bins) / (right - peak)
    bank = np.where((left <= bins) & (bins < peak), up, 0)
    bank = np.where((peak <= bins) & (bins < right), down, bank)
    bank.setflags(write=False)
    return bank


@cache
def _liftered_dct(coefficients: int, filters: int) -> np.ndarray:
    """Return the orthonormal DCT-II, each row times its lifter, (coefficients, filters)."""
    k = np.arange(coefficients)[:, None]
    turn = np.cos(np.pi * k * (np.arange(filters) + 0.5) / filters) * np.sqrt(2 / filters)
    turn[0] /= np.sqrt(2)
    turn *= 1 + LIFTER / 2 * np.sin(np.pi * k / LIFTER)
    turn.setflags(write=False)
    return turn
