"""Images to train a denoiser on: digits, image folders and .npz, under one LightningDataModule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from lightning.pytorch import LightningDataModule
from papercommons.data.images import (
    ImageFolder,
    drop_unreadable,
    find_images,
    find_splits,
    is_readable,
    read_image,
    read_image_arrays,
)
from papercommons.data.sampling import batch_loader, mix_seeds
from papercommons.data.splits import stratified_split
from papercommons.errors import DataError
from papercommons.files import hash_files
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.v2 import functional as VF

IN_MEMORY_BYTES = 2 << 30
LARGEST = 64  # side of images from files, where none is asked for


class ImageBatch(NamedTuple):
    """What the module gets.

    Attributes:
        images: [-1, 1], float32, shape (B, C, H, W).
        labels: class numbers, int64, shape (B,).
    """

    images: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Images:
    """Images of one split.

    Attributes:
        labels: int64, shape (N,).
        pixels: uint8 [0, 255] or float32 [-1, 1], shape (N, C, H, W); None: read from `paths`.
        paths: files, where `pixels` is None.
        shape: (C, H, W) of each.
    """

    labels: Tensor
    shape: tuple[int, int, int]
    pixels: Tensor | None = None
    paths: Sequence[Path] = ()

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, indices: Sequence[int]) -> Images:
        """Return the images at `indices`."""
        chosen = torch.as_tensor(indices, dtype=torch.long)
        pixels = None if self.pixels is None else self.pixels[chosen]
        paths = [self.paths[i] for i in indices] if self.pixels is None else ()
        return Images(self.labels[chosen], self.shape, pixels, paths)

    def read(self, indices: Sequence[int]) -> Tensor:
        """Return images, [-1, 1], float32, shape (B, C, H, W)."""
        if self.pixels is not None:
            return _to_unit(self.pixels[torch.as_tensor(indices, dtype=torch.long)])
        return _to_unit(torch.stack([read_fitted(self.paths[i], self.shape) for i in indices]))


class DataSet(NamedTuple):
    """A data set as it was read.

    Attributes:
        splits: by name; ``all`` where the data set has none.
        classes: names.
        data_hash: short hash of the images.
        left_out: number of files that could not be read.
    """

    splits: dict[str, Images]
    classes: list[str]
    data_hash: str
    left_out: int = 0


def load_images(
    data: str, *, size: int | None = None, grey: bool = False, skip_bad: bool = False
) -> DataSet:
    """Return a data set of square images.

    Args:
        data: ``digits`` (scikit-learn's, 8 x 8), a folder of images (with or without a sub-folder
            per class, or splits of these), or an .npz file, see `papercommons.data.images`.
        size: height and width, >= 4; None: of the first image, at most 64.
        grey: one channel instead of three, of folders.
        skip_bad: leave out files that cannot be read.

    Raises:
        ValueError: size < 4.
        DataError: missing, broken or inconsistent data.
    """
    if size is not None and size < 4:
        raise ValueError(f"size must be >= 4, got {size}")
    if data == "digits":
        return DataSet(_digits(size), [str(digit) for digit in range(10)], "digits")
    path = Path(data)
    if path.is_file():
        splits, classes = _arrays(path, size)
        return DataSet(splits, classes, hash_files([path]))
    if not path.is_dir():
        raise DataError(f"{data}: no such folder or file; give digits, a folder or an .npz file")
    folders = _find_folders(path)
    listed = sum(len(folder.paths) for folder in folders.values())
    if skip_bad:
        folders = {name: _drop_unreadable(folder) for name, folder in folders.items()}
    found = {name: [f.root / p for p in f.paths] for name, f in folders.items()}
    size = size or min(LARGEST, *read_image(next(iter(found.values()))[0]).size)
    shape = (1 if grey else 3, size, size)
    count = sum(map(len, found.values()))
    small = count * shape[0] * size**2 <= IN_MEMORY_BYTES
    splits = {}
    for name, paths in found.items():
        pixels = torch.stack([read_fitted(p, shape) for p in paths]) if small else None
        labels = torch.tensor(folders[name].labels)
        splits[name] = Images(labels, shape, pixels, () if small else paths)
    names = list(next(iter(folders.values())).classes)
    data_hash = hash_files([p for paths in found.values() for p in paths])
    return DataSet(splits, names, data_hash, listed - count)


def read_fitted(path: Path, shape: Sequence[int]) -> Tensor:
    """Return an image, its middle, scaled, uint8, of a shape (1 or 3, S, S).

    Args:
        path: of the file.
        shape: of the result.

    Raises:
        DataError: see `papercommons.data.images.read_image`.
    """
    image = read_image(path)
    pixels = VF.pil_to_tensor(image.convert("L") if shape[0] == 1 else image)
    return _fit(pixels, shape[-1])


def _fit(pixels: Tensor, size: int) -> Tensor:
    if pixels.shape[-2:] != (size, size):
        pixels = VF.resize(pixels, [size], antialias=True)  # of the shorter side
        pixels = VF.center_crop(pixels, [size, size])
    return pixels


def _to_unit(pixels: Tensor) -> Tensor:
    return pixels.float() / 127.5 - 1 if pixels.dtype == torch.uint8 else pixels


def _digits(size: int | None) -> dict[str, Images]:
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = torch.from_numpy(digits.images).float()[:, None] / 8 - 1
    if size is not None and size != 8:
        pixels = torch.nn.functional.interpolate(pixels, (size, size), mode="bilinear")
    labels = torch.from_numpy(digits.target).long()
    return {"all": Images(labels, (1, *pixels.shape[2:]), pixels)}


def _arrays(path: Path, size: int | None) -> tuple[dict[str, Images], list[str]]:
    arrays = read_image_arrays(path)
    pixels = torch.from_numpy(arrays["images"])
    pixels = pixels[:, None] if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2).contiguous()
    pixels = _fit(pixels, size or min(LARGEST, *pixels.shape[2:]))
    labels = torch.from_numpy(arrays["labels"].astype("int64"))
    given = arrays.get("class_names")
    names = range(int(labels.max()) + 1) if given is None else given
    whole = Images(labels, (pixels.shape[1], pixels.shape[2], pixels.shape[3]), pixels)
    split = arrays.get("split")
    if split is None:
        return {"all": whole}, [str(name) for name in names]
    if "train" not in split:
        raise DataError(f"{path}: split names no image train")
    splits = {str(name): whole.subset((split == name).nonzero()[0]) for name in sorted(set(split))}
    return splits, [str(name) for name in names]


def _find_folders(path: Path) -> dict[str, ImageFolder]:
    has_folders = any(p.is_dir() and not p.name.startswith((".", "__")) for p in path.iterdir())
    if has_folders:
        return find_splits(path)
    paths = [p.relative_to(path).as_posix() for p in find_images([path])]
    return {"all": ImageFolder(path, paths, [0] * len(paths), [path.resolve().name])}


def _drop_unreadable(folder: ImageFolder) -> ImageFolder:
    if len(folder.classes) > 1:
        return drop_unreadable(folder)[0]
    paths = [path for path in folder.paths if is_readable(folder.root / path)]
    if not paths:
        raise DataError(f"{folder.root}: no image can be read")
    return ImageFolder(folder.root, paths, [0] * len(paths), folder.classes)


class _Split(Dataset[ImageBatch]):
    def __init__(self, images: Images, flip: bool, seed: int) -> None:
        self.images, self.flip, self.seed = images, flip, seed

    def __len__(self) -> int:
        return len(self.images)

    def __getitems__(self, items: Sequence[tuple[int, int]]) -> ImageBatch:
        indices = [index for _, index in items]
        images = self.images.read(indices)
        if self.flip:
            odd = [mix_seeds(self.seed, epoch, index) % 2 for epoch, index in items]
            images = torch.where(torch.tensor(odd)[:, None, None, None] > 0, images.flip(3), images)
        return ImageBatch(images, self.images.labels[indices])


class ImageData(LightningDataModule):
    """Train, val and test batches of images.

    A published val or test split stays what it is; without a val split a share of the training
    images is held out. Order and flips follow from (seed, epoch, index), so that results do not
    depend on the number of workers and a resumed run goes on exactly.

    Args:
        data: see `load_images`.
        size: see `load_images`.
        grey: see `load_images`.
        batch_size: images per step and process, >= 1.
        val_fraction: share of the training images of each class held out, in [0, 1).
        flip: mirror half of the training images left-right; not for digits and letters.
        seed: of order and flips.
        num_workers: reading processes.
        skip_bad: see `load_images`.

    Attributes:
        splits: ``train``, ``val`` if any, ``test`` if any.
        classes: class names.
        shape: (C, H, W).
        data_hash: short hash of the data set.
        left_out: number of files that could not be read.

    Raises:
        ValueError: an option out of range.
        DataError: see `load_images`.
    """

    def __init__(
        self,
        data: str = "digits",
        *,
        size: int | None = None,
        grey: bool = False,
        batch_size: int = 128,
        val_fraction: float = 0.1,
        flip: bool = False,
        seed: int = 0,
        num_workers: int = 0,
        skip_bad: bool = False,
    ) -> None:
        super().__init__()
        if batch_size < 1 or not 0 <= val_fraction < 1:
            raise ValueError(
                "batch_size must be >= 1 and val_fraction in [0, 1), "
                f"got {batch_size}, {val_fraction}"
            )
        self.batch_size, self.flip, self.seed = batch_size, flip, seed
        self.num_workers = num_workers
        found = load_images(data, size=size, grey=grey, skip_bad=skip_bad)
        self.splits, self.classes, self.data_hash, self.left_out = found
        if "all" in self.splits:
            self.splits["train"] = self.splits.pop("all")
        whole = self.splits["train"]
        if "val" not in self.splits and val_fraction:
            shares = {"train": 1 - val_fraction, "val": val_fraction}
            parts = stratified_split(whole.labels.tolist(), shares)
            self.splits |= {name: whole.subset(part) for name, part in parts.items() if part}
        self.shape = whole.shape

    def sigma_data(self, most: int = 2000) -> float:
        """Return the deviation of the training images' values, for the preconditioning.

        Args:
            most: images it is taken from, the first ones.
        """
        train = self.splits["train"]
        return float(train.read(range(min(most, len(train)))).double().std())

    def train_dataloader(self) -> DataLoader[ImageBatch]:
        """Return shuffled batches; the last, smaller one is kept."""
        return self.loader("train", shuffle=True)

    def val_dataloader(self) -> DataLoader[ImageBatch] | list[Any]:
        """Return the val batches, or none."""
        return self.loader("val") if "val" in self.splits else []

    def test_dataloader(self) -> DataLoader[ImageBatch] | list[Any]:
        """Return the test batches, or none."""
        return self.loader("test") if "test" in self.splits else []

    def loader(
        self, split: Literal["train", "val", "test"], *, shuffle: bool = False
    ) -> DataLoader[ImageBatch]:
        """Return the batches of a split.

        Args:
            split: its name.
            shuffle: a new order each epoch, and flips if wanted.
        """
        dataset = _Split(self.splits[split], self.flip and shuffle, self.seed)
        return batch_loader(
            dataset,
            batch_size=self.batch_size,
            seed=self.seed,
            shuffle=shuffle,
            num_workers=self.num_workers,
        )
