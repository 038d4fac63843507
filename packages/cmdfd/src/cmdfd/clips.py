"""One clip as the detector takes it: 25 frames per second and 16 kHz sound, on one clock."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import NamedTuple

import numpy as np
from papercommons.errors import DataError, counted

from cmdfd.entries import LEAST_FRAMES, MISMATCH

log = logging.getLogger("papercommons")


class AVClip(NamedTuple):
    """Picture and sound of the same time.

    Attributes:
        frames: uint8, RGB (T, H, W, 3) or grey (T, H, W).
        waveform: mono, float32 in [-1, 1), shape (S,) with S = T / fps * sample_rate.
        fps: frames per second.
        sample_rate: samples per second.
    """

    frames: np.ndarray
    waveform: np.ndarray
    fps: float
    sample_rate: int


def read_clip(
    path: str | Path,
    *,
    gray: bool = False,
    max_side: int | None = None,
    partial: bool = False,
) -> AVClip:
    """Return a clip's frames at 25 per second and its sound at 16 kHz.

    Frames are chosen by their times, whatever rate the file states; what only the picture or only
    the sound covers is cut off, and nothing is repeated: ``T = floor(25 * common duration)``, where
    an end that a frame misses by less than 5 % of a frame counts as reached. A file whose streams
    differ by more than 0.2 s is warned about.

    Args:
        path: video file with sound.
        gray: luma instead of RGB.
        max_side: make pictures smaller whose longer side exceeds this many pixels.
        partial: accept a broken file's readable part.

    Raises:
        ValueError: max_side is not positive.
        DataError: no such file, no media file, no picture or no sound, no times and no frame rate,
            broken (it says how many frames can be decoded), too long, silent, or shorter than 5
            frames.
    """
    from papercommons.video.clips import read_clip as read

    clip = read(path, gray=gray, max_side=max_side, partial=partial)
    assert clip.waveform is not None
    assert clip.sample_rate is not None
    if len(clip.frames) < LEAST_FRAMES:
        raise DataError(
            f"{path}: {counted(len(clip.frames), 'frame')} with sound at {clip.fps:g} per second; "
            f"expected at least {LEAST_FRAMES}; leave it out"
        )
    if not clip.waveform.any():
        raise DataError(f"{path}: its sound is silent (all samples are 0); leave it out")
    facts = clip.facts
    if facts.audio_seconds is not None:
        apart = facts.audio_seconds - facts.video_seconds
        if abs(apart) > MISMATCH:
            log.warning(
                "%s: the sound lasts %+.2f s beside the picture; cut to the %.2f s both have",
                path,
                apart,
                len(clip.frames) / clip.fps,
            )
    return AVClip(clip.frames, clip.waveform, clip.fps, clip.sample_rate)


def to_gray(frames: np.ndarray, *, swapped: bool = False) -> np.ndarray:
    """Return RGB frames in grey, 0.299 R + 0.587 G + 0.114 B, rounded.

    Args:
        frames: uint8, shape (..., 3) in RGB.
        swapped: with the weights of red and blue changed, as the official code has it.

    Returns:
        uint8, shape (...).
    """
    weights = np.array([4899, 9617, 1868], np.uint32)  # of 2 ** 14, as OpenCV's
    if swapped:
        weights = weights[::-1]
    red, green, blue = (frames[..., k].astype(np.uint32) for k in range(3))
    total = weights[0] * red + weights[1] * green + weights[2] * blue
    return ((total + (1 << 13)) >> 14).astype(np.uint8)
