"""MedMNIST's 3-D sets: one .npz file with the arrays and labels of published splits."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from papercommons.data.arrays import read_npz
from papercommons.errors import DataError

SPLITS = ("train", "val", "test")
MAX_BYTES = 16 << 30


def is_medmnist(path: Path) -> bool:
    """Return whether a file is an .npz with images and labels by split.

    Args:
        path: any file.
    """
    if path.suffix.lower() != ".npz":
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return "train_images.npy" in archive.namelist()
    except (zipfile.BadZipFile, OSError):
        return False


def read_medmnist(path: Path) -> tuple[dict[str, np.ndarray], dict[str, list[int]]]:
    """Return the images and the labels by split.

    Args:
        path: .npz with ``train_images`` uint8 (N, D, H, W), ``train_labels`` integer (N, 1) or
            (N,), and, if wanted, the same for ``val`` and ``test``.

    Returns:
        uint8 arrays (N, D, H, W), and labels >= 0.

    Raises:
        DataError: broken, pickled, too large, 2-D, or not as described.
    """
    arrays = read_npz(path, max_bytes=MAX_BYTES)
    images, labels = {}, {}
    for split in (name for name in SPLITS if f"{name}_images" in arrays):
        array, numbers = arrays[f"{split}_images"], arrays.get(f"{split}_labels")
        if array.ndim == 3 or (array.ndim == 4 and array.shape[-1] in (1, 3)):
            raise DataError(f"{path}: {split}_images are single 2-D slices; nlran needs volumes")
        if array.dtype != np.uint8 or array.ndim != 4:
            raise DataError(
                f"{path}: {split}_images must be uint8 (N, D, H, W), "
                f"got {array.dtype} {array.shape}"
            )
        if numbers is None or numbers.dtype.kind not in "iu" or numbers.size != len(array):
            got = "none" if numbers is None else f"{numbers.dtype} {numbers.shape}"
            raise DataError(
                f"{path}: {split}_labels must be one integer for each of {len(array)} volumes, "
                f"got {got}"
            )
        if numbers.size and numbers.min() < 0:
            raise DataError(f"{path}: {split}_labels must be >= 0, got {numbers.min()}")
        images[split], labels[split] = array, [int(number) for number in numbers.ravel()]
    return images, labels


def item_path(path: Path, split: str, index: int) -> str:
    """Return what an item is called, e.g. ``organmnist3d.npz#train/12``.

    Args:
        path: the .npz file.
        split: train, val or test.
        index: in the split, from 0.
    """
    return f"{path.name}#{split}/{index}"


def find_item(images: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    """Return the volume of an item, uint8, shape (D, H, W).

    Args:
        images: of `read_medmnist`.
        name: of `item_path`.
    """
    split, _, index = name.rpartition("#")[2].partition("/")
    return images[split][int(index)]
