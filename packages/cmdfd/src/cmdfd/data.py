"""Batches of clips with sound, under one LightningDataModule.

Chance follows from (seed, epoch, index): results do not depend on the number of workers, and a
resumed run goes on exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from papercommons.data.sampling import mix_seeds
from papercommons.errors import DataError
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from cmdfd.augmentation import augment
from cmdfd.entries import LEAST_FRAMES
from cmdfd.features import SAMPLES, clip_mfcc, legacy_features
from cmdfd.sampling import FrameBudgetSampler

Window = Literal["random", "start"]


class AVSample(NamedTuple):
    """A piece of one clip.

    Attributes:
        frames: grey face crops, uint8, shape (T, H, W).
        waveform: of the same time at 16 kHz, float32 in [-1, 1), shape (640 T,).
        lips: features for the official lip reader, float32, shape (T, 512), or None.
    """

    frames: np.ndarray
    waveform: np.ndarray
    lips: np.ndarray | None = None


class AVClips(Protocol):
    """Clips that are read in pieces; all with faces of one size.

    Attributes:
        names: of the clips.
        labels: 0 real, 1 fake.
        lengths: frames of each, >= 5.
    """

    @property
    def names(self) -> Sequence[str]: ...  # noqa: D102
    @property
    def labels(self) -> Sequence[int]: ...  # noqa: D102
    @property
    def lengths(self) -> Sequence[int]: ...  # noqa: D102

    def read(self, index: int, start: int, count: int) -> AVSample:
        """Return frames ``start`` to ``start + count`` of a clip, and their sound."""
        ...


@dataclass(frozen=True, eq=False)
class ArrayClips:
    """Clips in memory.

    Args:
        frames: grey face crops of each clip, uint8, shape (T, S, S), T >= 5.
        waveforms: at 16 kHz, float32 in [-1, 1), shape (640 T,).
        labels: 0 real, 1 fake.
        names: of the clips; numbers if not given.

    Raises:
        DataError: the shapes do not fit, no clips, or labels are not 0 and 1.
    """

    frames: Sequence[np.ndarray]
    waveforms: Sequence[np.ndarray]
    labels: Sequence[int]
    names: Sequence[str] = field(default=())

    def __post_init__(self) -> None:
        if not self.names:
            object.__setattr__(self, "names", [str(k) for k in range(len(self.labels))])
        counts = {len(self.frames), len(self.waveforms), len(self.labels), len(self.names)}
        if len(counts) > 1 or not self.labels:
            raise DataError(f"frames, waveforms, labels and names must be as many, got {counts}")
        if not set(self.labels) <= {0, 1}:
            raise DataError(f"labels must be 0 (real) or 1 (fake), got {set(self.labels)}")
        sides = self.frames[0].shape[1:]
        for name, frames, waveform in zip(self.names, self.frames, self.waveforms, strict=True):
            if frames.ndim != 3 or frames.shape[1:] != sides or len(frames) < LEAST_FRAMES:
                raise DataError(
                    f"{name}: expected frames (T, {', '.join(map(str, sides))}), T >= "
                    f"{LEAST_FRAMES}, got {frames.shape}"
                )
            if waveform.shape != (SAMPLES * len(frames),):
                raise DataError(
                    f"{name}: expected a waveform of {SAMPLES * len(frames)} samples, "
                    f"got {waveform.shape}"
                )

    @property
    def lengths(self) -> list[int]:
        """Frames of each clip."""
        return [len(frames) for frames in self.frames]

    def read(self, index: int, start: int, count: int) -> AVSample:
        """Return a piece of a clip."""
        end = start + count
        waveform = self.waveforms[index][SAMPLES * start : SAMPLES * end]
        return AVSample(self.frames[index][start:end], waveform)


class AVBatch(NamedTuple):
    """What the module gets.

    Attributes:
        frames: grey face crops, uint8, shape (B, T, H, W).
        mfcc: of the voice, float32, shape (B, 4T, 13).
        waveform: at 16 kHz, float32, shape (B, 640 T).
        labels: 0 real, 1 fake, int64, shape (B,).
        names: of the clips.
        teacher_video: what the teacher sees: the frames before any augmentation, or features of
            the lips, float32, shape (B, T, 512).
    """

    frames: Tensor
    mfcc: Tensor
    waveform: Tensor
    labels: Tensor
    names: list[str]
    teacher_video: Tensor


class AVDataset(Dataset[AVBatch]):
    """Batches of pieces of clips.

    Args:
        clips: where they come from.
        max_frames: of a piece, >= 5; None is the whole clip.
        augmented: change frames by `cmdfd.augmentation.augment`.
        window: where a piece lies in its clip.
        seed: of chance.
        legacy: MFCC as the official code makes them, see `cmdfd.features.legacy_features`.

    Attributes:
        lengths: frames of the longest piece of each clip.

    Raises:
        ValueError: max_frames is below 5, or an unknown window.
    """

    def __init__(
        self,
        clips: AVClips,
        *,
        max_frames: int | None = None,
        augmented: bool = False,
        window: Window = "start",
        seed: int = 0,
        legacy: bool = False,
    ) -> None:
        if max_frames is not None and max_frames < LEAST_FRAMES:
            raise ValueError(f"max_frames must be >= {LEAST_FRAMES}, got {max_frames}")
        if window not in ("random", "start"):
            raise ValueError(f"window must be random or start, got {window!r}")
        self.clips, self.augmented, self.window, self.seed = clips, augmented, window, seed
        self.legacy = legacy
        self.lengths = [min(n, max_frames or n) for n in clips.lengths]

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, items: Sequence[tuple[int, int]]) -> AVBatch:
        """Return the batch of (epoch, index) pairs, cut to the shortest."""
        count = min(self.lengths[index] for _, index in items)
        pieces = [self._piece(epoch, index, count) for epoch, index in items]
        frames = torch.stack([changed for _, changed in pieces])
        waveform = torch.from_numpy(np.stack([sample.waveform for sample, _ in pieces])).float()
        seen = [s.frames if s.lips is None else s.lips for s, _ in pieces]
        clean = not self.augmented and pieces[0][0].lips is None
        chosen = [index for _, index in items]
        return AVBatch(
            frames,
            legacy_mfcc(waveform, count) if self.legacy else clip_mfcc(waveform, count),
            waveform,
            torch.tensor([self.clips.labels[index] for index in chosen]),
            [self.clips.names[index] for index in chosen],
            frames if clean else torch.from_numpy(np.stack(seen)),
        )

    def _piece(self, epoch: int, index: int, count: int) -> tuple[AVSample, Tensor]:
        rng = np.random.default_rng(mix_seeds(self.seed, epoch, index))
        spare = self.clips.lengths[index] - count
        start = int(rng.integers(spare + 1)) if self.window == "random" else 0
        sample = self.clips.read(index, start, count)
        frames = torch.from_numpy(np.ascontiguousarray(sample.frames))
        return sample, augment(frames, rng) if self.augmented else frames


def legacy_mfcc(waveform: Tensor, frames: int) -> Tensor:
    """Return the official code's MFCC of clips, (B, 640 T) in [-1, 1) -> float32 (B, 4T, 13)."""
    samples = (waveform * 32768).round().to(torch.int32)
    return torch.stack([legacy_features(one, frames)[0] for one in samples])


class AVData(LightningDataModule):
    """Clips for training, validation and testing.

    Args:
        train: clips, or None.
        val: likewise.
        test: likewise.
        frames_per_batch: see `frame_budget_batches`. Paper: 2000.
        max_frames: of a training clip; longer ones give a piece.
        eval_frames: the same for validation and testing, from the begin. Paper: 1000.
        augmented: see `AVDataset`, for training.
        window: of training pieces; the official code takes the ``start``.
        seed: of the order and all chance.
        num_workers: processes that read.
        legacy: see `AVDataset`, for all splits.

    Raises:
        ValueError: a number out of range.
        DataError: training clips of one class.
    """

    def __init__(
        self,
        train: AVClips | None = None,
        *,
        val: AVClips | None = None,
        test: AVClips | None = None,
        frames_per_batch: int = 2000,
        max_frames: int = 250,
        eval_frames: int = 1000,
        augmented: bool = True,
        window: Window = "random",
        seed: int = 0,
        num_workers: int = 0,
        legacy: bool = False,
    ) -> None:
        super().__init__()
        if frames_per_batch < 1 or num_workers < 0:
            raise ValueError(
                "frames_per_batch must be >= 1 and num_workers >= 0, got "
                f"{frames_per_batch} and {num_workers}"
            )
        if train is not None and len(set(train.labels)) < 2:
            only = "fake" if train.labels[0] else "real"
            raise DataError(f"training clips are all {only}; give real and fake ones")
        self.frames_per_batch, self.seed, self.num_workers = frames_per_batch, seed, num_workers
        self.sets: dict[str, AVDataset] = {}
        if train is not None:
            self.sets["train"] = AVDataset(
                train,
                max_frames=max_frames,
                augmented=augmented,
                window=window,
                seed=seed,
                legacy=legacy,
            )
        for split, clips in (("val", val), ("test", test)):
            if clips is not None:
                self.sets[split] = AVDataset(clips, max_frames=eval_frames, legacy=legacy)

    def loader(self, split: str) -> DataLoader[AVBatch]:
        """Return the batches of a split, mixed if it is ``train``."""
        dataset, training = self.sets[split], split == "train"
        return DataLoader(
            dataset,
            batch_size=None,
            sampler=FrameBudgetSampler(
                dataset.lengths, self.frames_per_batch, shuffle=training, seed=self.seed
            ),
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
        )

    @property
    def has_val(self) -> bool:
        """Whether there are clips for validation."""
        return "val" in self.sets

    def train_dataloader(self) -> DataLoader[AVBatch]:
        """Return batches by a budget of frames, in a new order each epoch."""
        return self.loader("train")

    def val_dataloader(self) -> DataLoader[AVBatch] | list[DataLoader[AVBatch]]:
        """Return every clip once, uncut; nothing without a val split."""
        return self.loader("val") if self.has_val else []

    def test_dataloader(self) -> DataLoader[AVBatch]:
        """Return every clip once, uncut."""
        return self.loader("test")

    def predict_dataloader(self) -> DataLoader[AVBatch]:
        """Return those of the test split."""
        return self.loader("test")
