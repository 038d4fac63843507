"""Batches of photographs and masks, under one LightningDataModule.

Augmentation is a function of (seed, epoch, index): results do not depend on the number of workers,
and a resumed run goes on exactly. Images stay in [0, 1]; the model knows how to normalise them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from papercommons.data.sampling import batch_loader, mix_seeds
from papercommons.errors import DataError
from papercommons.files import hash_texts
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from defi_net.augmentation import Augment, Fit, augment, fit
from defi_net.layouts import MissingMask, Sample, find_samples
from defi_net.reading import check_headers, check_samples, drop_faulty, read_sample
from defi_net.sources import split_sources, warn_of_shared


class MaskBatch(NamedTuple):
    """What the module gets.

    Attributes:
        images: RGB, float32 in [0, 1], shape (N, 3, S, S).
        masks: 1 where forged, float32 0 or 1, shape (N, 1, S, S); between them if masks are soft.
        names: of the photographs.
        methods: what made each forgery; ``authentic`` for none.
    """

    images: Tensor
    masks: Tensor
    names: list[str]
    methods: list[str]


class MaskDataset(Dataset[MaskBatch]):
    """Batches of some photographs.

    Args:
        samples: what is read.
        size: side of the square that the network sees.
        augment: see `InpaintingData`.
        fit: likewise.
        soft_masks: likewise.
        missing_mask: likewise.
        resize_masks: likewise.
        seed: of the augmentation.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        *,
        size: int = 352,
        augment: Augment = "none",
        fit: Fit = "resize",
        soft_masks: bool = False,
        missing_mask: MissingMask = "error",
        resize_masks: bool = False,
        seed: int = 0,
    ) -> None:
        self.samples, self.size, self.augment, self.fit = list(samples), size, augment, fit
        self.soft_masks, self.missing_mask = soft_masks, missing_mask
        self.resize_masks, self.seed = resize_masks, seed

    def __len__(self) -> int:
        return len(self.samples)

    def __getitems__(self, items: Sequence[tuple[int, int]]) -> MaskBatch:
        """Return the batch of (epoch, index) pairs."""
        pairs = [self.read(epoch, index) for epoch, index in items]
        photos = torch.from_numpy(np.stack([photo for photo, _ in pairs]))
        masks = torch.from_numpy(np.stack([mask for _, mask in pairs]).astype(np.float32))
        chosen = [self.samples[index] for _, index in items]
        return MaskBatch(
            photos.permute(0, 3, 1, 2).float().div_(255).contiguous(),
            masks[:, None],
            [sample.name for sample in chosen],
            [sample.method for sample in chosen],
        )

    def read(self, epoch: int, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return photograph and mask as the network sees them in an epoch.

        Returns:
            uint8 (S, S, 3); bool (S, S), or float32 if masks are soft.

        Raises:
            DataError: see `defi_net.reading.read_sample`.
        """
        photo, mask = read_sample(
            self.samples[index], missing_mask=self.missing_mask, resize_masks=self.resize_masks
        )
        if self.soft_masks:
            mask = mask.astype(np.float32)
        if self.augment == "none":
            return fit(photo, mask, self.size, self.fit)
        rng = np.random.default_rng(mix_seeds(self.seed, epoch, index))
        photo, mask = augment(photo, mask, self.augment, rng)
        return fit(photo, mask, self.size, self.fit, rng)


class InpaintingData(LightningDataModule):
    """Photographs with masks, divided; nothing made from one photograph is in two splits.

    Without a val split, in the data or given, `val_fraction` of the source photographs of the
    train split are held out. Sizes and headers of all files are checked at once.

    Args:
        data: folder or manifest, see `defi_net.layouts` and `defi_net.archives`.
        size: S, side of the square that the network sees, a multiple of 8. Paper: 352.
        batch_size: photographs per step and process. Paper: 16.
        augment: of training photographs: none; paper (mirror, cut, rotation); robust (mirror, right
            angles, JPEG, resizing, blur, noise).
        val: another folder or manifest for validation: its val split, or all of it.
        test: likewise for testing.
        val_fraction: share of the source photographs held out if there is no val split, in [0, 1).
        layout: of all of them; auto finds out.
        missing_mask: a photograph without a mask, or with an empty one, is an ``error``, or
            ``authentic``.
        resize_masks: fit masks of another size to their photographs.
        skip_bad: read everything first and leave out what cannot be used, with a count.
        fit: resize the whole photograph (paper), or crop it at full resolution.
        soft_masks: resize masks like the official code, without making them binary again.
        seed: of split, order and augmentation.
        num_workers: reading processes.

    Attributes:
        splits: train, val, test -> samples.
        shared: pairs of splits -> sources they share, see `defi_net.sources.warn_of_shared`.
        left_out: names of photographs left out.

    Raises:
        ValueError: an option out of range.
        DataError: see `find_samples`, `defi_net.reading` and `defi_net.sources`.
    """

    def __init__(
        self,
        data: str,
        *,
        size: int = 352,
        batch_size: int = 16,
        augment: Augment = "robust",
        val: str | None = None,
        test: str | None = None,
        val_fraction: float = 0.1,
        layout: str = "auto",
        missing_mask: MissingMask = "error",
        resize_masks: bool = False,
        skip_bad: bool = False,
        fit: Fit = "resize",
        soft_masks: bool = False,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        check_size(size)
        if batch_size < 1:
            raise ValueError(f"batch_size must be >= 1, got {batch_size}")
        if not 0 <= val_fraction < 1:
            raise ValueError(f"val_fraction must be in [0, 1), got {val_fraction}")
        self.size, self.batch_size, self.augment, self.fit = size, batch_size, augment, fit
        self.missing_mask, self.resize_masks = missing_mask, resize_masks
        self.soft_masks, self.seed, self.num_workers = soft_masks, seed, num_workers
        self.left_out: list[str] = []

        def find(place: str) -> list[Sample]:
            samples = find_samples(place, layout=layout, missing_mask=missing_mask)
            return self._checked(samples, skip_bad)

        own = find(data)
        self.splits = {
            name: [sample for sample in own if (sample.split or "train") == name]
            for name in ("train", "val", "test")
        }
        for name, place in (("val", val), ("test", test)):
            if place is not None:
                given = find(place)
                self.splits[name] = [s for s in given if s.split == name] or given
        train = self.splits["train"]
        if train and not self.splits["val"] and val_fraction:
            split = split_sources((s.source for s in train), {"val": val_fraction}, seed=seed)
            for name in ("val", "train"):
                self.splits[name] = [s for s in train if split[s.source] == name]
        self.shared = warn_of_shared(self.splits)

    def _checked(self, samples: list[Sample], skip_bad: bool) -> list[Sample]:
        faults = check_headers(samples, resize_masks=self.resize_masks)
        if skip_bad:
            rest = [sample for sample in samples if sample not in faults]
            faults |= check_samples(
                rest, missing_mask=self.missing_mask, resize_masks=self.resize_masks
            )
        self.left_out += [sample.name for sample in faults]
        return drop_faulty(samples, faults, skip_bad=skip_bad)

    @property
    def has_val(self) -> bool:
        """Whether there is a val split."""
        return len(self.splits["val"]) > 0

    @cached_property
    def data_hash(self) -> str:
        """Short hash of names, sizes, methods and splits of all files."""
        entries = []
        for name, samples in self.splits.items():
            for sample in samples:
                files = [sample.image, *([sample.mask] if sample.mask else [])]
                sizes = [file.stat().st_size for file in files]
                entries.append(repr((name, sample.name, sample.method, sizes)))
        return hash_texts(entries)

    def train_dataloader(self) -> DataLoader[Any]:
        """Return shuffled, augmented training batches; a last, smaller one is left out.

        Raises:
            DataError: the data have no train split.
        """
        if not self.splits["train"]:
            raise DataError("the data have no train split: all rows say val or test")
        return self.loader(self.splits["train"], augment=self.augment, shuffle=True)

    def val_dataloader(self) -> DataLoader[Any] | list[Any]:
        """Return the val batches, or none."""
        return self.loader(self.splits["val"]) if self.has_val else []

    def test_dataloader(self) -> DataLoader[Any] | list[Any]:
        """Return the test batches, or none."""
        return self.loader(self.splits["test"]) if self.splits["test"] else []

    def loader(
        self, samples: Sequence[Sample], *, augment: Augment = "none", shuffle: bool = False
    ) -> DataLoader[Any]:
        """Return batches of any photographs.

        Args:
            samples: what is read.
            augment: see the class.
            shuffle: a new order each epoch.
        """
        dataset = MaskDataset(
            samples,
            size=self.size,
            augment=augment,
            fit=self.fit,
            soft_masks=self.soft_masks,
            missing_mask=self.missing_mask,
            resize_masks=self.resize_masks,
            seed=self.seed,
        )
        return batch_loader(
            dataset,
            batch_size=self.batch_size,
            seed=self.seed,
            shuffle=shuffle,
            whole=True,
            num_workers=self.num_workers,
        )


def check_size(size: int) -> None:
    """Check the side of the square that the network sees.

    Raises:
        ValueError: below 16, or no multiple of 8.
    """
    if size < 16 or size % 8:
        near = max(16, round(size / 8) * 8)
        raise ValueError(
            f"size must be a multiple of 8 and >= 16, got {size}; the nearest is {near}"
        )
