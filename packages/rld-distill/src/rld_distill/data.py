"""Images for distillation: digits, CIFAR, class folders and .npz, under one LightningDataModule.

Augmentation is a function of (seed, epoch, index). So results do not depend on the number of
workers, a resumed run goes on exactly, and teacher logits of augmented views can be cached.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from lightning.pytorch import LightningDataModule
from papercommons.cli import DeviceOptions
from papercommons.data.images import read_image
from papercommons.data.sampling import batch_loader, mix_seeds
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as VF

from rld_distill.augmentation import fit_size, random_crop_flip, strong_augment
from rld_distill.cache import TeacherCache
from rld_distill.options import Augment, DataOptions
from rld_distill.sources import ImageSet, load_splits

log = logging.getLogger("papercommons")


class Batch(NamedTuple):
    """What the module gets.

    Attributes:
        images: normalised, float32, shape (B, 3, H, W).
        target: class numbers, int64, shape (B,).
        indices: number of each image in its split, int64, shape (B,).
        teacher_logits: cached ones, float32, shape (B, C), or None.
    """

    images: Tensor
    target: Tensor
    indices: Tensor
    teacher_logits: Tensor | None = None


class DistillDataset(Dataset[Batch]):
    """Batches of one split, read and augmented together.

    Args:
        images: the split.
        augment: none for evaluation; see `DistillData`.
        size: height and width of what the network sees.
        mean: of each channel in [0, 1], for normalising.
        std: of each channel.
        seed: of the augmentation.
        cache: teacher logits of this split.
        view: show the augmentation of this epoch always; None: of the epoch that the sampler gives,
            or of the cache's view for it.
    """

    def __init__(
        self,
        images: ImageSet,
        *,
        augment: Augment,
        size: int,
        mean: Sequence[float],
        std: Sequence[float],
        seed: int = 0,
        cache: TeacherCache | None = None,
        view: int | None = None,
    ) -> None:
        self.view = view
        self.images, self.augment, self.size = images, augment, size
        self.mean = torch.tensor(mean).view(3, 1, 1)
        self.std = torch.tensor(std).view(3, 1, 1)
        self.seed, self.cache = seed, cache
        self._draws: tuple[int, Tensor] | None = None

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, item: tuple[int, int]) -> Batch:
        """Return a batch of one."""
        return self.__getitems__([item])

    def __getitems__(self, items: Sequence[tuple[int, int]]) -> Batch:
        """Return the batch of (epoch, index) pairs, all of one epoch."""
        epoch = items[0][0]
        index = torch.tensor([i for _, i in items])
        view = epoch if self.cache is None else self.cache.view_of(epoch)
        view = view if self.view is None else self.view
        if self.images.pixels is not None:
            pixels = self._augment_together(self.images.pixels[index], index, view)
        else:
            pixels = torch.stack([self._read(i, view) for i in index.tolist()])
        pixels = (pixels.float() / 255 - self.mean) / self.std
        cached = None if self.cache is None else self.cache.rows(view, index)
        return Batch(pixels, self.images.labels[index], index, cached)

    def _augment_together(self, pixels: Tensor, index: Tensor, view: int) -> Tensor:
        if self.augment == "none":
            return pixels
        if self.augment not in ("crop", "crop-flip"):
            return torch.stack(
                [
                    self._augment_one(p, mix_seeds(self.seed, view, i))
                    for p, i in zip(pixels, index.tolist(), strict=True)
                ]
            )
        if self._draws is None or self._draws[0] != view:
            generator = torch.Generator().manual_seed(mix_seeds(self.seed, view))
            self._draws = (view, torch.rand(len(self), 3, generator=generator))
        draws = self._draws[1][index]
        return random_crop_flip(pixels, draws, flip=self.augment == "crop-flip")

    def _augment_one(self, pixels: Tensor, seed: int) -> Tensor:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            if self.augment == "resized-crop":
                crop = v2.RandomResizedCrop(self.size, antialias=True)(pixels)
                return v2.RandomHorizontalFlip()(crop)
            draws = torch.rand(1, 3)
            return strong_augment(random_crop_flip(pixels[None], draws, flip=True)[0])

    def _read(self, index: int, view: int) -> Tensor:
        pixels = VF.pil_to_tensor(read_image(self.images.path(index)))
        if self.augment == "resized-crop":
            return self._augment_one(pixels, mix_seeds(self.seed, view, index))
        pixels = fit_size(pixels, self.size)
        return self._augment_together(pixels[None], torch.tensor([index]), view)[0]


class DistillData(LightningDataModule):
    """Train, val and test batches of one data set.

    Without a published test split 20 % of each class become the test split; `val_fraction` of the
    training images become the val split. Both follow from the seed of splitting, which is fixed.

    Args:
        data: digits, cifar10:FOLDER, cifar100:FOLDER, folder:FOLDER, npz:FILE, or the bare folder
            or file.
        batch_size: images per step and process.
        size: height and width; None: as stored, 32 for small images, 224 for photographs.
        augment: of training images: none; crop (shift by up to 4 pixels); crop-flip (CIFAR's);
            resized-crop (ImageNet's); strong (crop-flip, two random distortions, a grey square);
            auto: crop for grey images, crop-flip for small coloured ones, else resized-crop.
        val_fraction: share of the training images held out, in [0, 1).
        seed: of order and augmentation.
        num_workers: reading processes.
        teacher_cache: file with the teacher's logits of the training split.
        skip_bad: leave out images that cannot be read (they are named); else they are an error.

    Attributes:
        classes: class names.
        mean: of the training images per channel.
        std: likewise.
        data_hash: short hash of the data set.
        skipped: images left out.
    """

    def __init__(
        self,
        data: str = "digits",
        *,
        batch_size: int = 64,
        size: int | None = None,
        augment: Augment = "auto",
        val_fraction: float = 0.1,
        seed: int = 0,
        num_workers: int = 0,
        teacher_cache: str | None = None,
        skip_bad: bool = False,
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise ValueError(f"batch_size must be >= 1, got {batch_size}")
        if not 0 <= val_fraction < 1:
            raise ValueError(f"val_fraction must be in [0, 1), got {val_fraction}")
        self.batch_size, self.seed, self.num_workers = batch_size, seed, num_workers
        self.splits = load_splits(data, size=size, val_fraction=val_fraction, skip_bad=skip_bad)
        self.classes = self.splits.classes
        self.mean, self.std = self.splits.mean, self.splits.std
        self.size = self.splits.size
        self.data_hash, self.skipped = self.splits.data_hash, self.splits.skipped
        self.augment: Augment = self.splits.augment if augment == "auto" else augment
        self.cache = None
        if teacher_cache is not None:
            self.cache = TeacherCache(teacher_cache)
            self.cache.check(
                data_hash=self.data_hash,
                images=len(self.splits.train),
                num_classes=len(self.classes),
                augment=self.augment,
                seed=seed,
                size=self.size,
            )

    @property
    def has_val(self) -> bool:
        """Whether there is a val split."""
        return len(self.splits.val) > 0

    def train_dataloader(self) -> DataLoader[Batch]:
        """Return shuffled, augmented training batches; the last, smaller one is kept."""
        return self.loader(self.splits.train, augment=self.augment, shuffle=True, cache=self.cache)

    def val_dataloader(self) -> DataLoader[Batch] | list[Any]:
        """Return the val batches, or none."""
        return self.loader(self.splits.val) if self.has_val else []

    def test_dataloader(self) -> DataLoader[Batch]:
        """Return the test batches."""
        return self.loader(self.splits.test)

    def loader(
        self,
        images: ImageSet,
        *,
        augment: Augment = "none",
        shuffle: bool = False,
        cache: TeacherCache | None = None,
        view: int | None = None,
    ) -> DataLoader[Batch]:
        """Return batches of any split.

        Args:
            images: the split.
            augment: see the class.
            shuffle: a new order each epoch.
            cache: the teacher's logits of these images.
            view: show one epoch's augmentation always.
        """
        dataset = DistillDataset(
            images,
            augment=augment,
            size=self.size,
            mean=self.mean,
            std=self.std,
            seed=self.seed,
            cache=cache,
            view=view,
        )
        return make_loader(
            dataset,
            batch_size=self.batch_size,
            num_workers=self.num_workers,
            shuffle=shuffle,
            seed=self.seed,
        )


def make_loader(
    dataset: DistillDataset,
    *,
    batch_size: int,
    num_workers: int = 0,
    shuffle: bool = False,
    seed: int = 0,
) -> DataLoader[Batch]:
    """Return the batches of a dataset.

    Args:
        dataset: reads whole batches.
        batch_size: images per step and process.
        num_workers: reading processes.
        shuffle: a new order each epoch.
        seed: of the order.
    """
    return batch_loader(
        dataset,
        batch_size=batch_size,
        seed=seed,
        shuffle=shuffle,
        num_workers=num_workers,
    )


def open_data(
    data: str,
    images: DataOptions,
    run: DeviceOptions,
    *,
    batch_size: int,
    val_fraction: float = 0.0,
    teacher_cache: str | None = None,
) -> DistillData:
    """Return the data and say what they are.

    Args:
        data: the ``--data`` of a command.
        images: how they are read.
        run: gives seed and workers.
        batch_size: images per step and device.
        val_fraction: share held out.
        teacher_cache: file of rld-distill-cache.

    Raises:
        DataError: see `DistillData`.
    """
    module = DistillData(
        data,
        batch_size=batch_size,
        size=images.size,
        augment=images.augment,
        val_fraction=val_fraction,
        seed=run.seed,
        num_workers=run.num_workers,
        teacher_cache=teacher_cache,
        skip_bad=images.skip_bad,
    )
    splits = module.splits
    log.info(
        "%s: %d train, %d val, %d test images, %d classes, %d x %d, augmentation %s",
        *(data, len(splits.train), len(splits.val), len(splits.test), len(splits.classes)),
        *(module.size, module.size, module.augment),
    )
    for path in module.skipped:
        log.warning("left out: %s cannot be read", path)
    if module.skipped:
        log.warning("left out %d images in all", len(module.skipped))
    return module
