"""Folders with one sub-folder of images per class, and .npz files of images; needs no torch.

Layouts (see the documentation's page on data)::

    FOLDER/CLASS/*.png                  one set
    FOLDER/{train,val,test}/CLASS/*.png published splits; "valid" and "validation" mean val
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from papercommons.errors import DataError

if TYPE_CHECKING:
    import numpy as np

SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm"))
MAX_PIXELS = 200_000_000
_SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


@dataclass(frozen=True)
class ImageFolder:
    """Images of one split by class.

    Attributes:
        root: the folder.
        paths: relative to root, sorted by class and name.
        labels: class number of each path.
        classes: names; a label is an index into it.
    """

    root: Path
    paths: Sequence[str]
    labels: Sequence[int]
    classes: Sequence[str]

    def __len__(self) -> int:
        return len(self.paths)


def find_splits(root: str | Path) -> dict[str, ImageFolder]:
    """Return the splits in `root` by name (train, val, test), or ``{"all": ...}`` if it has none.

    Args:
        root: a folder in one of the layouts above.

    Raises:
        DataError: no such folder, no images, an empty class, or splits with different classes.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; expected {root}/CLASS/*.png")
    found = {_SPLITS[p.name]: p for p in sorted(root.iterdir()) if p.is_dir() and p.name in _SPLITS}
    if "train" not in found:
        return {"all": list_image_folder(root)}
    splits = {name: list_image_folder(path) for name, path in found.items()}
    classes = splits["train"].classes
    for split in splits.values():
        if split.classes != classes:
            odd = sorted(set(split.classes) ^ set(classes))
            raise DataError(
                f"{split.root}: its classes differ from those of {splits['train'].root}: "
                f"{', '.join(odd[:5])}{', ...' if len(odd) > 5 else ''}; they must agree"
            )
    return splits


def list_image_folder(root: str | Path) -> ImageFolder:
    """Return the images in ``root/CLASS/**``; classes are the sorted names of the sub-folders.

    Args:
        root: folder; links that lead out of it are refused.

    Raises:
        DataError: no such folder, no class, or a class without images.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; expected {root}/CLASS/*.png")
    classes = sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not classes:
        raise DataError(f"{root}: no sub-folders; expected one sub-folder of images per class")
    inside = root.resolve()
    paths: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        images = []
        for folder, folders, files in os.walk(root / name):
            folders.sort()
            images += [
                Path(folder) / f for f in sorted(files) if Path(f).suffix.lower() in SUFFIXES
            ]
        if not images:
            raise DataError(f"{root / name}: class without images ({', '.join(sorted(SUFFIXES))})")
        for image in images:
            if image.is_symlink() and not image.resolve().is_relative_to(inside):
                raise DataError(
                    f"{image}: link out of the folder; copy the file or remove the link"
                )
        paths += [str(image.relative_to(root)) for image in images]
        labels += [label] * len(images)
    return ImageFolder(root, paths, labels, classes)


def read_image(path: str | Path) -> Any:
    """Return the image as a PIL image in RGB, upright.

    Args:
        path: image file; palette, grey, CMYK and 16-bit images are converted, alpha lies on white.

    Raises:
        DataError: missing, no image, truncated, or more than 200 million pixels.
    """
    import numpy as np
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            if image.width * image.height > MAX_PIXELS:
                raise DataError(
                    f"{path}: {image.width} x {image.height} pixels is above the limit of "
                    f"{MAX_PIXELS:,}; make it smaller"
                )
            upright = ImageOps.exif_transpose(image)
            if upright.mode.startswith("I;16"):
                grey = np.asarray(upright, dtype=np.uint16) >> 8
                return Image.fromarray(grey.astype(np.uint8)).convert("RGB")
            if "A" in upright.getbands() or "transparency" in upright.info:
                upright = upright.convert("RGBA")
                white = Image.new("RGBA", upright.size, "white")
                upright = Image.alpha_composite(white, upright)
            return upright.convert("RGB")
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        reason = str(error).partition(" file ")[0] or type(error).__name__
        raise DataError(
            f"{path}: not a readable image ({reason}); remove it or pass --skip-bad"
        ) from None


def find_images(places: Sequence[str | Path]) -> list[Path]:
    """Return image files: those given, and all below the folders given, sorted within each.

    Args:
        places: files and folders.

    Raises:
        DataError: one does not exist, or a folder holds no images.
    """
    found: list[Path] = []
    for place in map(Path, places):
        if place.is_file():
            found.append(place)
        elif place.is_dir():
            images = sorted(p for p in place.rglob("*") if p.suffix.lower() in SUFFIXES)
            if not images:
                raise DataError(f"{place}: no images in it ({', '.join(sorted(SUFFIXES))})")
            found += images
        else:
            raise DataError(f"{place}: no such file or folder")
    return found


def drop_unreadable(folder: ImageFolder) -> tuple[ImageFolder, list[str]]:
    """Return the folder without the images that cannot be decoded, and the paths of those.

    Args:
        folder: every image of it is read once.

    Raises:
        DataError: a class would be left without images.
    """
    good, bad = [], []
    for path, label in zip(folder.paths, folder.labels, strict=True):
        try:
            read_image(folder.root / path)
        except DataError:
            bad.append(str(folder.root / path))
        else:
            good.append((path, label))
    if lost := set(folder.labels) - {label for _, label in good}:
        name = folder.classes[min(lost)]
        raise DataError(f"{folder.root / name}: no image of this class can be read")
    paths, labels = [path for path, _ in good], [label for _, label in good]
    return ImageFolder(folder.root, paths, labels, folder.classes), bad


def read_image_arrays(path: str | Path, *, max_bytes: int = 8 << 30) -> dict[str, np.ndarray]:
    """Return the arrays of an .npz file of images.

    Args:
        path: .npz with ``images`` uint8 (N, H, W) or (N, H, W, 3), ``labels`` integer (N,) >= 0,
            and, if wanted, ``split`` (N,) of strings train, val, test, ``class_names`` (C,).
        max_bytes: refuse arrays that unpack to more.

    Raises:
        DataError: missing, broken, pickled, too large, or not as described.
    """
    import numpy as np

    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file; expected an .npz with arrays images and labels")
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
        if unpacked > max_bytes:
            raise DataError(f"{path}: unpacks to {unpacked:,} bytes, above {max_bytes:,}; split it")
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"{path}: not a readable .npz ({str(error).splitlines()[0]})") from None
    if missing := {"images", "labels"} - arrays.keys():
        raise DataError(f"{path}: no array {' and '.join(sorted(missing))}; has {sorted(arrays)}")
    images, labels = arrays["images"], arrays["labels"]
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or images.shape[3:] not in ((), (3,)):
        raise DataError(
            f"{path}: images must be uint8 (N, H, W) or (N, H, W, 3), "
            f"got {images.dtype} {images.shape}"
        )
    if labels.shape != images.shape[:1] or labels.dtype.kind not in "iu":
        raise DataError(
            f"{path}: labels must be integers ({len(images)},), got {labels.dtype} {labels.shape}"
        )
    if len(labels) == 0:
        raise DataError(f"{path}: holds no images")
    if labels.min() < 0:
        raise DataError(f"{path}: labels must be >= 0, got {labels.min()} at {labels.argmin()}")
    names = arrays.get("class_names")
    if names is not None and labels.max() >= len(names):
        raise DataError(
            f"{path}: label {labels.max()} at {labels.argmax()}, but class_names has {len(names)}"
        )
    if "split" in arrays and arrays["split"].shape != labels.shape:
        raise DataError(f"{path}: split must be ({len(labels)},), got {arrays['split'].shape}")
    return arrays
