"""Folders with one sub-folder of images per class, and .npz files of images; needs no torch.

Layouts (see the documentation's page on data)::

    FOLDER/CLASS/*.png                  one set
    FOLDER/{train,val,test}/CLASS/*.png published splits; "valid" and "validation" mean val,
                                        "training" and "testing" train and test

Images may lie deeper than CLASS. What begins with a dot, and __MACOSX, is passed over.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from papercommons.data.arrays import read_npz
from papercommons.errors import DataError, one_line, reason

if TYPE_CHECKING:
    import numpy as np

SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm"))
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")  # EPS starts Ghostscript
MAX_PIXELS = 170_000_000  # below Pillow's own limit
MAX_LABEL = 1_000_000
_ADVICE = "pass --skip-bad where the command has it"
_SPLITS = {"train": "train", "training": "train", "test": "test", "testing": "test"}
_SPLITS |= {"val": "val", "valid": "val", "validation": "val"}


@dataclass(frozen=True)
class ImageFolder:
    """Images of one split by class.

    Attributes:
        root: the folder.
        paths: relative to root, with forward slashes, sorted by class and name.
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

    A folder is a split if it has such a name, in any case, and either sub-folders or no neighbours
    but splits; so a class may be called train.

    Args:
        root: a folder in one of the layouts above.

    Raises:
        DataError: no such folder, no images, an empty class, a val or test split without train,
            two folders for one split, or splits with different classes.
    """
    root = Path(root)
    found: dict[str, Path] = {}
    folders = _subfolders(root)
    only_splits = all(folder.name.lower() in _SPLITS for folder in folders)
    for folder in folders:
        name = _SPLITS.get(folder.name.lower())
        if name is None or not (only_splits or _subfolders(folder)):
            continue
        if name in found:
            raise DataError(f"{root}: {found[name].name} and {folder.name} both mean {name}")
        found[name] = folder
    if not found:
        return {"all": list_image_folder(root)}
    if "train" not in found:
        raise DataError(f"{root}: has {' and '.join(found)} but no train; add {root}/train/CLASS/")
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
        DataError: no such folder, no class, a class without images, or a link out.
    """
    root = Path(root)
    classes = _subfolders(root)
    if not classes:
        raise DataError(f"{root}: no sub-folders; expected one sub-folder of images per class")
    inside = root.resolve()
    paths: list[str] = []
    labels: list[int] = []
    for label, folder in enumerate(classes):
        _refuse_link_out(folder, inside)
        images = list(_images_below(folder, inside))
        if not images:
            raise DataError(f"{folder}: class without images ({', '.join(sorted(SUFFIXES))})")
        paths += [image.relative_to(root).as_posix() for image in images]
        labels += [label] * len(images)
    return ImageFolder(root, paths, labels, [folder.name for folder in classes])


def _subfolders(root: Path) -> list[Path]:
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; expected {root}/CLASS/*.png")
    return sorted(path for path in root.iterdir() if path.is_dir() and _counts(path.name))


def _counts(name: str) -> bool:
    return not name.startswith(".") and name != "__MACOSX"


def _images_below(folder: Path, inside: Path | None = None) -> Iterator[Path]:
    """Give the image files in `folder` and below, by name; links to folders are not followed.

    Args:
        folder: where to look.
        inside: refuse links that lead out of this folder; None lets them be.
    """
    with os.scandir(folder) as entries:
        listed = sorted(entries, key=lambda entry: entry.name)
    for entry in listed:
        if not _counts(entry.name):
            continue
        if entry.is_symlink() and inside is not None:
            _refuse_link_out(Path(entry.path), inside)
        if entry.is_dir(follow_symlinks=False):
            yield from _images_below(Path(entry.path), inside)
        elif Path(entry.name).suffix.lower() in SUFFIXES and entry.is_file():
            yield Path(entry.path)


def _refuse_link_out(path: Path, inside: Path) -> None:
    if path.is_symlink() and not path.resolve().is_relative_to(inside):
        raise DataError(f"{path}: link out of the folder; copy what it means, or remove it")


def read_image(path: str | Path, *, convert: Callable[[Any], Any] | None = None) -> Any:
    """Return the image as a PIL image in RGB, upright.

    Args:
        path: image file; palette, grey, CMYK and 16-bit images are converted, alpha lies on white;
            of several pictures in a file the first counts.
        convert: makes what is returned of the opened PIL image, where that is not wanted; what it
            raises counts as the file's fault.

    Raises:
        DataError: missing, no image, truncated, of 32-bit pixels, or more than 170 million pixels.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        if isinstance(path, str | Path) and not Path(path).is_file():  # a pipe would never end
            raise FileNotFoundError
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's hints on sizes and broken EXIF
            with Image.open(path, formats=_FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise Image.DecompressionBombError
                return (convert or _upright_rgb)(image)
    except DataError:
        raise
    except UnidentifiedImageError:
        why = "not in a format that Pillow knows"
    except Image.DecompressionBombError:
        raise DataError(
            f"{path}: has more than {MAX_PIXELS:,} pixels; make it smaller, or {_ADVICE}"
        ) from None
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except Exception as error:  # decoders fail in many ways on what is broken
        why = (error.strerror if isinstance(error, OSError) else None) or reason(error)
    raise DataError(f"{path}: not a readable image ({why}); remove it, or {_ADVICE}")


def _upright_rgb(image: Any) -> Any:
    import numpy as np
    from PIL import Image, ImageOps

    upright = ImageOps.exif_transpose(image)
    if upright.mode[0] in "IF":
        grey = np.asarray(upright)
        if grey.dtype.kind == "f" or grey.min() < 0 or grey.max() > 0xFFFF:
            raise ValueError("32-bit pixels; convert it to 8 or 16 bits")
        return Image.fromarray((grey >> 8).astype(np.uint8)).convert("RGB")
    if "A" in upright.getbands() or "transparency" in upright.info:
        upright = upright.convert("RGBA")
        white = Image.new("RGBA", upright.size, "white")
        upright = Image.alpha_composite(white, upright)
    return upright.convert("RGB")


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
            images = list(_images_below(place))
            if not images:
                raise DataError(f"{place}: no images in it ({', '.join(sorted(SUFFIXES))})")
            found += images
        else:
            raise DataError(f"{place}: no such file or folder")
    return found


def is_readable(path: str | Path) -> bool:
    """Return whether `read_image` can read the file; it is decoded for that."""
    try:
        read_image(path)
    except DataError:
        return False
    return True


def drop_unreadable(folder: ImageFolder) -> tuple[ImageFolder, list[str]]:
    """Return the folder without the images that cannot be decoded, and the paths of those.

    Args:
        folder: every image of it is read once.

    Raises:
        DataError: a class would be left without images.
    """
    good = [is_readable(folder.root / path) for path in folder.paths]
    paths, labels = list(compress(folder.paths, good)), list(compress(folder.labels, good))
    if lost := set(folder.labels) - set(labels):
        name = folder.classes[min(lost)]
        raise DataError(f"{folder.root / name}: no image of this class can be read")
    bad = [
        str(folder.root / path) for path, fine in zip(folder.paths, good, strict=True) if not fine
    ]
    return ImageFolder(folder.root, paths, labels, folder.classes), bad


def read_image_arrays(path: str | Path, *, max_bytes: int = 8 << 30) -> dict[str, np.ndarray]:
    """Return the arrays of an .npz file of images.

    Args:
        path: .npz with ``images`` uint8 (N, H, W) or (N, H, W, 3), ``labels`` integer (N,) >= 0,
            and, if wanted, ``split`` (N,) of strings train, val, test, ``class_names`` (C,).
        max_bytes: refuse arrays that unpack to more.

    Returns:
        The arrays by name; ``split`` and ``class_names`` as str.

    Raises:
        DataError: missing, broken, pickled, too large, or not as described.
    """
    import numpy as np

    path = Path(path)
    arrays = read_npz(path, max_bytes=max_bytes)
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
    if images.size == 0:
        raise DataError(f"{path}: holds no images, its shape is {images.shape}")
    for name in {"split", "class_names"} & arrays.keys():
        if arrays[name].dtype.kind not in "US" or arrays[name].ndim != 1:
            raise DataError(f"{path}: {name} must be strings, one-dimensional")
        arrays[name] = np.array([_decode(word) for word in arrays[name]])
    _check_labels(path, labels, arrays.get("class_names"))
    if "split" in arrays:
        _check_split(path, arrays["split"], len(labels))
    return arrays


def _decode(word: Any) -> str:
    return word.decode("utf-8", errors="replace") if isinstance(word, bytes) else str(word)


def _check_labels(path: Path, labels: np.ndarray, names: np.ndarray | None) -> None:
    if labels.min() < 0:
        raise DataError(f"{path}: labels must be >= 0, got {labels.min()} at {labels.argmin()}")
    if names is not None and labels.max() >= len(names):
        raise DataError(
            f"{path}: label {labels.max()} at {labels.argmax()}, but class_names has {len(names)}"
        )
    if labels.max() >= MAX_LABEL:
        raise DataError(
            f"{path}: label {labels.max()} at {labels.argmax()}; number the classes from 0"
        )


def _check_split(path: Path, split: np.ndarray, count: int) -> None:
    if len(split) != count:
        raise DataError(f"{path}: split must be ({count},), got {split.shape}")
    if odd := set(split.tolist()) - {"train", "val", "test"}:
        word = one_line(min(odd))
        raise DataError(f"{path}: split holds {word!r}; expected train, val or test")
