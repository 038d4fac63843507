"""What the networks hear of a clip: exactly four rows for every frame, whatever its length.

A waveform is cut to what its frames last and gets 30 ms of silence, so that windows of 40 ms every
10 ms give four rows per frame of 25 per second. Nothing is wrapped, and the length of the sound
tells nothing. `legacy_features` is the official code's way.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from cmdfd.audio import STEPS
from cmdfd.mel import mfcc

FPS = 25.0
SAMPLE_RATE = 16_000
SAMPLES = 640  # to a frame
WINDOW, HOP = 640, 160  # samples
TAIL = WINDOW - HOP  # of silence


def fitted(waveform: Tensor, frames: int) -> Tensor:
    """Return the sound of so many frames, and 30 ms of silence.

    Args:
        waveform: at 16 kHz, shape (..., S), S >= 640 * frames.
        frames: T, >= 1.

    Returns:
        shape (..., 640 * T + 480).

    Raises:
        ValueError: the waveform is shorter than its frames.
    """
    samples = SAMPLES * frames
    if frames < 1 or waveform.shape[-1] < samples:
        raise ValueError(
            f"{frames} frames need a waveform of {samples} samples, got {waveform.shape[-1]}; cut "
            "the frames to what picture and sound share"
        )
    return F.pad(waveform[..., :samples], (0, TAIL))


def clip_mfcc(waveform: Tensor, frames: int, *, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return the MFCC of a clip, shape (..., 4T, 13).

    Args:
        waveform: see `fitted`; samples as for `mfcc`.
        frames: T.
        dtype: see `mfcc`.

    Raises:
        ValueError: see `fitted`.
    """
    return mfcc(fitted(waveform, frames), dtype=dtype)


def clip_stft(waveform: Tensor, frames: int, *, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return the magnitudes the official speech recogniser hears, shape (..., 4T, 321).

    Args:
        waveform: see `fitted`; its loudness does not matter.
        frames: T.
        dtype: of the computation and of the result.

    Raises:
        ValueError: see `fitted`.
    """
    padded = fitted(waveform, frames)
    loud = levelled(padded[..., :-TAIL], dtype=dtype)
    return stft_magnitude(F.pad(loud, (0, TAIL)))


def levelled(waveform: Tensor, *, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return the waveform with a root mean square of 1; silence stays silence.

    Args:
        waveform: any real dtype, shape (..., S).
        dtype: of the result.
    """
    x = waveform.to(dtype)
    peak = x.abs().amax(-1, keepdim=True)
    x = x / torch.where(peak > 0, peak, 1)
    rms = x.square().mean(-1, keepdim=True).sqrt()
    return x / torch.where(rms > 0, rms, 1)


def stft_magnitude(waveform: Tensor, *, window: int = WINDOW, hop: int = HOP) -> Tensor:
    """Return the magnitudes of a short-time Fourier transform, as SciPy scales them.

    A periodic Hamming window, divided by its sum; nothing is padded.

    Args:
        waveform: float, shape (..., S), S >= window.
        window: samples.
        hop: samples.

    Returns:
        dtype of the waveform, shape (..., 1 + (S - window) // hop, window // 2 + 1).

    Raises:
        ValueError: the waveform is shorter than a window.
    """
    if waveform.shape[-1] < window:
        raise ValueError(f"waveform must have at least {window} samples, got {waveform.shape[-1]}")
    taper = torch.hamming_window(window, dtype=waveform.dtype, device=waveform.device)
    pieces = waveform.unfold(-1, window, hop) * (taper / taper.sum())
    return torch.fft.rfft(pieces).abs()


def legacy_features(waveform: Tensor, frames: int, fps: float = FPS) -> tuple[Tensor, Tensor]:
    """Return MFCC and STFT as the official code makes them: cut, or filled up by wrapping.

    Args:
        waveform: 16-bit samples at 16 kHz, shape (S,).
        frames: T, >= 1.
        fps: frames per second; windows and hops are scaled by 25 / fps, that of the STFT by its
            overlap alone.

    Returns:
        float32 of shape (4T, 13) and (4T, 321).
    """
    scale = FPS / fps
    rows = mfcc(
        waveform, window=0.040 * scale, hop=0.010 * scale, n_fft=WINDOW, dtype=torch.float64
    )
    overlap = round(TAIL * scale)
    loud = levelled(waveform, dtype=torch.float64)
    magnitude = stft_magnitude(loud, hop=WINDOW - overlap)
    return _wrapped(rows, frames).float(), _wrapped(magnitude, frames).float()


def _wrapped(rows: Tensor, frames: int) -> Tensor:
    return rows[torch.arange(STEPS * frames, device=rows.device) % len(rows)]
