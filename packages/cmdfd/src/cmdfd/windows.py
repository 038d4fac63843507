"""Clips of any length by windows: frames that several windows see get the mean of what they say.

Memory holds one batch of windows, whatever the length of the clips. A clip that is no longer than a
window is looked at once, as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from papercommons.errors import DataError
from torch import Tensor

from cmdfd.data import AVSample
from cmdfd.features import FPS, SAMPLES, clip_mfcc

K = TypeVar("K", bound=Hashable)
Features = Callable[[Tensor, int], Tensor]
"""Sound (B, 640 T) in [-1, 1] and T -> MFCC (B, 4T, 13)."""
Judge = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""MFCC (B, 4T, 13) and frames (B, T, H, W) -> fake minus real logit and c_t, (B, T) each."""


class FrameScores(NamedTuple):
    """What is said of each frame of a clip.

    Attributes:
        margin: fake minus real logit, float32, shape (T,).
        correlation: c_t, how well mouth and voice go together, float32 in [0, 1], shape (T,).
    """

    margin: np.ndarray
    correlation: np.ndarray

    @property
    def score(self) -> float:
        """Of the clip: the mean margin; above 0 speaks for fake."""
        return float(self.margin.mean(dtype=np.float64))


class _Window(NamedTuple):
    key: Hashable
    start: int
    piece: AVSample


class _Sums:
    """What the windows of one clip said so far."""

    def __init__(self, frames: int, windows: int) -> None:
        self.left = windows
        self.values = np.zeros((2, frames))
        self.seen = np.zeros(frames)

    def add(self, start: int, values: np.ndarray) -> bool:
        """Add a window's values, (2, T); return whether it was the last."""
        span = slice(start, start + values.shape[1])
        self.values[:, span] += values
        self.seen[span] += 1
        self.left -= 1
        return self.left == 0

    def mean(self) -> FrameScores:
        return FrameScores(*(self.values / self.seen).astype(np.float32))


def window_starts(frames: int, window: int, hop: int) -> list[int]:
    """Return where windows begin, so that every frame is seen; the last one ends with the clip.

    Args:
        frames: of the clip, >= 1.
        window: frames of a window, >= 1.
        hop: frames from one to the next, in [1, window].

    Raises:
        ValueError: a number out of range.

    Example:
        >>> window_starts(310, window=125, hop=75)
        [0, 75, 150, 185]
    """
    if frames < 1 or not 1 <= hop <= window:
        raise ValueError(f"need frames >= 1 and 1 <= hop <= window, got {frames}, {hop}, {window}")
    last = max(0, frames - window)
    return [*range(0, last, hop), last]


def score_clips(
    judge: Judge,
    clips: Iterable[tuple[K, AVSample]],
    *,
    features: Features = clip_mfcc,
    window: int = 125,
    hop: int = 25,
    frames_per_batch: int = 2000,
) -> Iterator[tuple[K, FrameScores]]:
    """Give the scores of clips as they are finished; their order may differ.

    Windows of equal length are computed together, so that nothing is padded.

    Args:
        judge: what the network says of a batch.
        clips: unique key -> the whole clip (its arrays may lie on the disk).
        features: MFCC of the sound, as in the network's training.
        window: frames, see `window_starts`.
        hop: likewise.
        frames_per_batch: frames computed at once; a window is never divided.

    Raises:
        ValueError: see `window_starts`.
        DataError: a score is not finite.
    """
    waiting: dict[int, list[_Window]] = {}
    sums: dict[Hashable, _Sums] = {}
    held = 0
    for key, clip in clips:
        frames = len(clip.frames)
        starts = window_starts(frames, window, hop)
        sums[key] = _Sums(frames, len(starts))
        count = min(window, frames)
        for start in starts:
            waiting.setdefault(count, []).append(_Window(key, start, _piece(clip, start, count)))
            held += count
            if held + count > frames_per_batch:
                largest = max(waiting, key=lambda length: length * len(waiting[length]))
                held -= largest * len(waiting[largest])
                yield from _judged(judge, features, waiting.pop(largest), sums)
    for windows in waiting.values():
        yield from _judged(judge, features, windows, sums)


def per_second(values: np.ndarray, fps: float = FPS) -> np.ndarray:
    """Return the mean of each second of a curve; the last may be of fewer frames.

    Args:
        values: shape (T,), T >= 1.
        fps: frames per second.

    Returns:
        float64, shape (ceil(T / fps),).

    Example:
        >>> per_second(np.arange(6), fps=4).tolist()
        [1.5, 4.5]
    """
    second = (np.arange(len(values)) / fps).astype(np.int64)
    return np.bincount(second, values) / np.bincount(second)


def _judged(
    judge: Judge, features: Features, windows: list[_Window], sums: dict[Hashable, _Sums]
) -> Iterator[tuple[K, FrameScores]]:
    frames = torch.from_numpy(np.stack([one.piece.frames for one in windows]))
    waveform = torch.from_numpy(np.stack([one.piece.waveform for one in windows])).float()
    margin, correlation = judge(features(waveform, frames.shape[1]), frames)
    said = torch.stack([margin, correlation], dim=1).double().cpu().numpy()
    for one, values in zip(windows, said, strict=True):
        if not np.isfinite(values).all():
            raise DataError(
                f"clip {one.key}: the network's scores are not finite; take --precision 32-true, "
                "or other weights"
            )
        if sums[one.key].add(one.start, values):
            yield one.key, sums.pop(one.key).mean()  # type: ignore[misc]


def _piece(clip: AVSample, start: int, count: int) -> AVSample:
    end = start + count
    return AVSample(clip.frames[start:end], clip.waveform[SAMPLES * start : SAMPLES * end])
