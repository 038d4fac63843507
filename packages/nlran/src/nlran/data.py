"""Batches of prepared CT volumes for training and evaluation, under one LightningDataModule.

Order and augmentation are functions of (seed, epoch, index). So results do not depend on the
number of workers, and a resumed run goes on exactly.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import torch
from lightning.pytorch import LightningDataModule
from papercommons.data.sampling import batch_loader, mix_seeds
from papercommons.errors import DataError
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from nlran.augmentation import augment
from nlran.cache import IN_MEMORY_BYTES, PreparedScans
from nlran.preparation import Preparation, to_unit
from nlran.scans import ScanSet, find_scans
from nlran.splits import SplitBy, split_notes, split_scans
from nlran.volumes import Units

log = logging.getLogger("papercommons")


class Batch(NamedTuple):
    """What the network gets.

    Attributes:
        volumes: values in [0, 1], float32, shape (B, 1, D, H, W); padded with zero slices to the
            longest where slice counts differ.
        target: class numbers, int64, shape (B,).
        indices: place of each scan in the `ScanSet`, int64, shape (B,).
        slices: slice counts, int64, shape (B,), where they may differ; else None.
    """

    volumes: Tensor
    target: Tensor
    indices: Tensor
    slices: Tensor | None = None


class ScanDataset(Dataset[Batch]):
    """Batches of some scans, read and augmented together.

    Args:
        prepared: the scans.
        indices: places of those wanted.
        preparation: how values become [0, 1]; a number of slices of 0 keeps all of a scan.
        seed: of the augmentation; None: none.
        flip: whether the augmentation mirrors left-right.
        mixed_units: accept scans in other units than those of `preparation`.
    """

    def __init__(
        self,
        prepared: PreparedScans,
        indices: Sequence[int],
        preparation: Preparation,
        *,
        seed: int | None = None,
        flip: bool = True,
        mixed_units: bool = False,
    ) -> None:
        self.prepared, self.indices, self.preparation = prepared, indices, preparation
        self.seed, self.flip, self.mixed_units = seed, flip, mixed_units

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, item: tuple[int, int]) -> Batch:
        """Return a batch of one."""
        return self.__getitems__([item])

    def __getitems__(self, items: Sequence[tuple[int, int]]) -> Batch:
        """Return the batch of (epoch, number in `indices`) pairs."""
        places = [self.indices[number] for _, number in items]
        read = [self._read(place) for place in places]
        counts = [len(volume) for volume in read]
        volumes = read[0].new_zeros(len(read), 1, max(counts), *read[0].shape[1:])
        for row, volume, count in zip(volumes, read, counts, strict=True):
            row[0, :count] = volume
        if self.seed is not None:
            low, high = self.preparation.window
            volumes = augment(
                volumes,
                [mix_seeds(self.seed, e, p) for (e, _), p in zip(items, places, strict=True)],
                flip=self.flip,
                window=high - low,
                slices=counts,
            )
        target = torch.tensor([self.prepared.scans.scans[place].label for place in places])
        slices = None if self.preparation.size[0] else torch.tensor(counts)
        return Batch(volumes, target, torch.tensor(places), slices)

    def _read(self, place: int) -> Tensor:
        scan = self.prepared.scans.scans[place]
        values, units = self.prepared.load(scan)
        if units != self.preparation.units and not self.mixed_units:
            raise _mixed(scan.path, units, self.preparation.units)
        return to_unit(torch.tensor(values), replace(self.preparation, units=units))


def _mixed(path: str, units: Units, others: Units) -> DataError:
    return DataError(
        f"{path}: its values are {units}, those of other scans {others}: a network would learn the "
        "source instead of the disease; use scans of one kind, or pass --mixed-units"
    )


class CTData(LightningDataModule):
    """Train, val, test and predict batches of the scans in a folder.

    Args:
        data: see `find_scans`; or scans already found, and then the next three do not count.
        manifest: see `find_scans`, like the next two.
        classes: the classes to take, in this order; None: all.
        complete: whether each of them must have scans.
        batch_size: scans per step and process.
        size: see `Preparation`, like the next four.
        resample: size or spacing.
        spacing: in mm, for resample = spacing.
        window: in HU.
        lung_mask: none, auto, or a folder of masks.
        split_by: see `split_scans`, like the next two.
        val_fraction: share held out to choose with.
        test_fraction: share held out to judge by.
        seed: of splits, order and augmentation.
        augment: whether training volumes are changed at random, see `augment`.
        flip: whether that includes left-right flips.
        num_workers: reading processes.
        cache: folder for prepared scans; None: each process that reads keeps in memory what it
            has read, up to 2 GiB, or 2 GiB / `num_workers` with workers; so at worst 2 GiB for
            train, 2 GiB for val and one worker's share, and as much for each further device.
        skip_bad: read every scan at once and leave out those that cannot be used; else such a scan
            is an error when it is read.
        allow_gaps: see `read_volume`.
        mixed_units: accept scans in HU and 8-bit ones together.
        limit: take at most so many scans of each class, of as many patients as possible.
        max_slices: see `Preparation`.

    Attributes:
        scans: the `ScanSet`.
        classes: names.
        splits: train, val and test -> places in `scans`.
        split_notes: what makes results on these splits flatter, a sentence each.
        preparation: the `Preparation`, with the units of the scans.
        units: HU or uint8.
        data_hash: of the set, see `ScanSet.hash`.
        skipped: path and reason of scans left out.

    Raises:
        ValueError: an option out of range.
        DataError: see `find_scans`, `split_scans`; the first scan of a kind cannot be read, units
            are mixed, or skipping leaves a class or split empty.
    """

    def __init__(
        self,
        data: str | ScanSet,
        *,
        manifest: str | None = None,
        classes: Sequence[str] | None = None,
        complete: bool = True,
        batch_size: int = 4,
        size: tuple[int, int, int] = (64, 128, 128),
        resample: Literal["size", "spacing"] = "size",
        spacing: tuple[float, float, float] = (5.0, 2.5, 2.5),
        window: tuple[float, float] = (-1000.0, 400.0),
        lung_mask: str = "none",
        split_by: SplitBy = "patient",
        val_fraction: float = 0.1,
        test_fraction: float = 0.1,
        seed: int = 0,
        augment: bool = True,
        flip: bool = True,
        num_workers: int = 0,
        cache: str | None = None,
        skip_bad: bool = False,
        allow_gaps: bool = False,
        mixed_units: bool = False,
        limit: int | None = None,
        max_slices: int | None = None,
    ) -> None:
        super().__init__()
        for name, value in (("batch_size", batch_size), ("limit", limit)):
            if value is not None and value < 1:
                raise ValueError(f"{name} must be >= 1, got {value}")
        self.batch_size, self.seed, self.num_workers = batch_size, seed, num_workers
        self.augment, self.flip, self.mixed_units = augment, flip, mixed_units
        preparation = Preparation(size, resample, spacing, window, lung_mask, max_slices=max_slices)
        scans = (
            data
            if isinstance(data, ScanSet)
            else find_scans(
                data, manifest=manifest, classes=classes, skip_bad=skip_bad, complete=complete
            )
        )
        if limit is not None:
            scans = scans.limit(limit)
        memory = IN_MEMORY_BYTES // max(1, num_workers)
        self.prepared = PreparedScans(
            scans, preparation, folder=cache, allow_gaps=allow_gaps, memory=memory
        )
        if skip_bad:
            scans = self.prepared.scans = scans.without(self._find_bad())
        self.scans, self.skipped = scans, list(scans.skipped)
        self.classes = list(scans.classes)
        self.splits = split_scans(
            scans, by=split_by, val_fraction=val_fraction, test_fraction=test_fraction, seed=seed
        )
        self.split_notes = split_notes(scans, self.splits)
        for note in self.split_notes:
            log.warning("%s", note)
        self.units = self._find_units()
        self.preparation = replace(preparation, units=self.units)
        self.data_hash = scans.hash()

    @property
    def has_val(self) -> bool:
        """Whether there is a val split."""
        return len(self.splits["val"]) > 0

    def target_counts(self) -> Tensor:
        """Return the number of training scans of each class, int64, shape (C,)."""
        labels = torch.tensor([self.scans.scans[place].label for place in self.splits["train"]])
        return torch.bincount(labels, minlength=len(self.classes))

    def train_dataloader(self) -> DataLoader[Batch]:
        """Return shuffled, augmented training batches; the last, smaller one is kept."""
        return self.loader(self.splits["train"], augment=self.augment, shuffle=True)

    def val_dataloader(self) -> DataLoader[Batch] | list[Any]:
        """Return the val batches, or none."""
        return self.loader(self.splits["val"]) if self.has_val else []

    def test_dataloader(self) -> DataLoader[Batch] | list[Any]:
        """Return the test batches, or none."""
        return self.loader(self.splits["test"]) if self.splits["test"] else []

    def predict_dataloader(self) -> DataLoader[Batch]:
        """Return batches of all scans, in order."""
        return self.loader(range(len(self.scans)))

    def loader(
        self, indices: Sequence[int], *, augment: bool = False, shuffle: bool = False
    ) -> DataLoader[Batch]:
        """Return batches of any scans.

        Args:
            indices: places in `scans`.
            augment: change the volumes at random.
            shuffle: a new order each epoch.
        """
        dataset = ScanDataset(
            self.prepared,
            indices,
            self.preparation,
            seed=self.seed if augment else None,
            flip=self.flip,
            mixed_units=self.mixed_units,
        )
        return batch_loader(
            dataset,
            batch_size=self.batch_size,
            seed=self.seed,
            shuffle=shuffle,
            num_workers=self.num_workers,
        )

    def _find_bad(self) -> dict[int, str]:
        """Read every scan, and return why some cannot be used, by place."""
        bad: dict[int, str] = {}
        for place, scan in enumerate(self.prepared.scans.scans):
            try:
                self.prepared.load(scan)
            except DataError as error:
                bad[place] = str(error)
                log.warning("left out: %s", error)
        return bad

    def _find_units(self) -> Units:
        """Return the units of the scans, from one of each kind of file, the most frequent first."""
        kinds = Counter(scan.kind for scan in self.scans.scans)
        units: Units | None = None
        for kind, _ in kinds.most_common():
            scan = next(scan for scan in self.scans.scans if scan.kind == kind)
            found = self.prepared.load(scan)[1]
            units = units or found
            if found != units and not self.mixed_units:
                raise _mixed(scan.path, found, units)
        assert units is not None  # no set is empty
        return units
