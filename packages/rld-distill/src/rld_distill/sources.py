"""Where images come from: scikit-learn's digits, CIFAR as published, class folders, .npz files."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from papercommons.data.images import (
    ImageFolder,
    drop_unreadable,
    find_splits,
    read_image,
    read_image_arrays,
)
from papercommons.data.splits import stratified_split
from papercommons.errors import DataError, nearest

if TYPE_CHECKING:
    from torch import Tensor

TEST_FRACTION = 0.2
IN_MEMORY_BYTES = 2 << 30
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CIFAR_MEAN, CIFAR_STD = (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)
_KINDS = ("digits", "cifar10", "cifar100", "folder", "npz")


def parse_data(data: str) -> tuple[str, Path | None]:
    """Return the kind and the path meant by ``--data``, checked as far as is cheap.

    Args:
        data: digits, KIND:PATH, or a bare path.

    Raises:
        DataError: unknown kind, or the path is missing.
    """
    if data == "digits":
        return "digits", None
    kind, colon, rest = data.partition(":")
    if colon and kind in _KINDS:
        path = Path(rest)
    else:
        path = Path(data)
        if not path.exists():
            known = nearest(data, _KINDS)
            raise DataError(
                f"{data}: no such folder or file; --data takes digits, a folder with one "
                f"sub-folder per class, an .npz file, cifar10:FOLDER or cifar100:FOLDER{known}"
            )
        kind = _kind_of(path)
    if not path.exists():
        raise DataError(f"{path}: no such folder or file")
    if kind == "folder":
        find_splits(path)
    if kind.startswith("cifar"):
        _check_cifar_folder(path, kind)
    return kind, path


def _kind_of(path: Path) -> str:
    if path.is_file():
        return "npz"
    if (path / "cifar-100-python").is_dir():
        return "cifar100"
    return "cifar10" if (path / "cifar-10-batches-py").is_dir() else "folder"


@dataclass
class ImageSet:
    """Images of one split, in memory or on disk.

    Attributes:
        labels: int64, shape (N,).
        names: what to call each image in messages and tables.
        pixels: uint8, shape (N, 3, H, W), or None where they are read from `root` / name.
        root: the folder, where `pixels` is None.
    """

    labels: Tensor
    names: Sequence[str]
    pixels: Tensor | None = None
    root: Path | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def path(self, index: int) -> Path:
        """Return the file of an image that is not in memory.

        Raises:
            ValueError: they are in memory.
        """
        if self.root is None:
            raise ValueError("these images are in memory and have no files")
        return self.root / self.names[index]

    def subset(self, indices: Sequence[int]) -> ImageSet:
        """Return the images at `indices`."""
        import torch

        chosen = torch.as_tensor(indices, dtype=torch.long)
        pixels = None if self.pixels is None else self.pixels[chosen]
        names = [self.names[i] for i in chosen.tolist()]
        return ImageSet(self.labels[chosen], names, pixels, self.root)


class Pictures:
    """The images of a split for people to look at, read when asked for.

    Args:
        images: the split.
    """

    def __init__(self, images: ImageSet) -> None:
        self.images = images

    def __getitem__(self, index: int) -> Any:
        """Return the picture, uint8, shape (H, W, 3)."""
        if self.images.pixels is not None:
            return self.images.pixels[index].permute(1, 2, 0).numpy()
        picture = read_image(self.images.path(index))
        picture.thumbnail((256, 256))
        return picture


@dataclass
class Splits:
    """A data set, divided, with what a network needs to know of it.

    Attributes:
        train: images to learn from.
        val: images to choose with; may be empty.
        test: images to judge by.
        classes: names.
        mean: of each channel in [0, 1].
        std: of each channel.
        size: height and width.
        augment: what suits these images.
        data_hash: short hash of contents (of names and sizes for files on disk).
        skipped: files left out because they cannot be read.
    """

    train: ImageSet
    val: ImageSet
    test: ImageSet
    classes: list[str]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: int
    augment: Any
    data_hash: str
    skipped: list[str] = field(default_factory=list)

    def part(self, split: str) -> ImageSet:
        """Return the images of train, val or test, or all of them together."""
        if split != "all":
            images: ImageSet = getattr(self, split)
            return images
        import torch

        parts = [part for part in (self.train, self.val, self.test) if len(part)]
        labels = torch.cat([part.labels for part in parts])
        if parts[0].pixels is not None:
            names = [name for part in parts for name in part.names]
            pixels = torch.cat([part.pixels for part in parts if part.pixels is not None])
            return ImageSet(labels, names, pixels)
        paths = [str(part.path(index)) for part in parts for index in range(len(part))]
        return ImageSet(labels, paths, root=Path())


def load_splits(
    data: str, *, size: int | None = None, val_fraction: float = 0.1, skip_bad: bool = False
) -> Splits:
    """Return the data set meant by ``--data``, divided into train, val and test.

    Args:
        data: see `parse_data`.
        size: height and width; None: as stored.
        val_fraction: share of the training images of each class held out, in [0, 1).
        skip_bad: leave out files that cannot be read.

    Raises:
        ValueError: size is below 4.
        DataError: missing, broken or inconsistent data.
    """
    if size is not None and size < 4:
        raise ValueError(f"size must be >= 4, got {size}")
    kind, path = parse_data(data)
    skipped: list[str] = []
    normalisation: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    if kind == "digits":
        parts, classes, augment = _digits(size or 32), [str(i) for i in range(10)], "crop"
    elif kind == "npz":
        assert path is not None
        parts, classes, augment = _arrays(path, size)
    elif kind == "folder":
        assert path is not None
        parts, classes, augment, skipped = _folders(path, size, skip_bad)
    else:
        assert path is not None
        parts, classes = _cifar(path, kind)
        augment, normalisation = "crop-flip", (CIFAR_MEAN, CIFAR_STD)
    _divide(parts, val_fraction)
    train = parts["train"]
    if normalisation is None:
        normalisation = _channel_statistics(train)
    side = size or (224 if train.pixels is None else train.pixels.shape[-1])
    return Splits(
        parts["train"],
        parts["val"],
        parts["test"],
        classes,
        mean=normalisation[0],
        std=normalisation[1],
        size=side,
        augment=augment,
        data_hash=_hash(parts),
        skipped=skipped,
    )


def _divide(parts: dict[str, ImageSet], val_fraction: float) -> None:
    """Make train, val and test of what was published, in place.

    ``all`` is divided; ``train`` and ``val`` without ``test`` is ImageNet's way, whose val is the
    published test.
    """
    if "all" in parts:
        whole = parts.pop("all")
        shares = {"train": 1 - TEST_FRACTION, "test": TEST_FRACTION}
        for name, chosen in stratified_split(whole.labels.tolist(), shares).items():
            parts[name] = whole.subset(chosen)
    if "test" not in parts and "val" in parts:
        parts["test"] = parts.pop("val")
    if "test" not in parts:
        raise DataError("there is a train split but neither val nor test; add one")
    if "val" not in parts:
        train = parts["train"]
        shares = {"train": 1 - val_fraction, "val": val_fraction}
        for name, chosen in stratified_split(train.labels.tolist(), shares, seed=1).items():
            parts[name] = train.subset(chosen)


def _digits(size: int) -> dict[str, ImageSet]:
    import torch
    from sklearn.datasets import load_digits
    from torch.nn import functional as F

    digits = load_digits()
    grey = torch.from_numpy(digits.images).float()[:, None] * (255 / 16)
    grey = F.interpolate(grey, size=(size, size), mode="bilinear", align_corners=False)
    pixels = grey.round().to(torch.uint8).expand(-1, 3, -1, -1).contiguous()
    names = [f"digits/{index}" for index in range(len(pixels))]
    return {"all": ImageSet(torch.from_numpy(digits.target).long(), names, pixels)}


def _arrays(path: Path, size: int | None) -> tuple[dict[str, ImageSet], list[str], str]:
    import torch

    arrays = read_image_arrays(path)
    pixels = torch.from_numpy(arrays["images"])
    grey = pixels.ndim == 3
    pixels = pixels[:, None].expand(-1, 3, -1, -1) if grey else pixels.permute(0, 3, 1, 2)
    if size is not None and pixels.shape[-2:] != (size, size):
        from torchvision.transforms.v2 import functional as VF

        pixels = VF.resize(pixels.contiguous(), [size, size], antialias=True)
    elif pixels.shape[-1] != pixels.shape[-2]:
        raise DataError(f"{path}: images must be square, got {tuple(pixels.shape[-2:])}; resize")
    labels = torch.from_numpy(arrays["labels"].astype("int64"))
    given = arrays.get("class_names")
    classes = [str(c) for c in given] if given is not None else _numbered(int(labels.max()) + 1)
    names = [f"{path.name}/{index}" for index in range(len(labels))]
    whole = ImageSet(labels, names, pixels.contiguous())
    augment = "crop" if grey else "crop-flip" if pixels.shape[-1] <= 64 else "resized-crop"
    if "split" not in arrays:
        return {"all": whole}, classes, augment
    split = arrays["split"].astype(str)
    if odd := set(split) - {"train", "val", "test"}:
        raise DataError(f"{path}: split holds {sorted(odd)[0]!r}; expected train, val or test")
    parts = {name: whole.subset((split == name).nonzero()[0]) for name in sorted(set(split))}
    if "train" not in parts:
        raise DataError(f"{path}: split names no image train")
    return parts, classes, augment


def _numbered(count: int) -> list[str]:
    return [str(index) for index in range(count)]


def _folders(
    path: Path, size: int | None, skip_bad: bool
) -> tuple[dict[str, ImageSet], list[str], str, list[str]]:
    import torch

    splits = find_splits(path)
    skipped: list[str] = []
    if skip_bad:
        for name, folder in splits.items():
            splits[name], bad = drop_unreadable(folder)
            skipped += bad
    classes = list(next(iter(splits.values())).classes)
    first = next(iter(splits.values()))
    stored = min(read_image(first.root / first.paths[0]).size)
    size = size or (stored if stored <= 64 else None)
    count = sum(map(len, splits.values()))
    small = size is not None and size <= 64 and count * 3 * size**2 <= IN_MEMORY_BYTES
    parts = {
        name: ImageSet(
            torch.tensor(folder.labels),
            list(folder.paths),
            _read_all(folder, size) if small and size is not None else None,
            folder.root,
        )
        for name, folder in splits.items()
    }
    return parts, classes, "crop-flip" if small else "resized-crop", skipped


def _read_all(folder: ImageFolder, size: int) -> Tensor:
    import torch
    from torchvision.transforms.v2 import functional as VF

    from rld_distill.augmentation import fit_size

    pixels = torch.empty(len(folder), 3, size, size, dtype=torch.uint8)
    for index, name in enumerate(folder.paths):
        pixels[index] = fit_size(VF.pil_to_tensor(read_image(folder.root / name)), size)
    return pixels


def _check_cifar_folder(path: Path, kind: str) -> None:
    folder = path / ("cifar-100-python" if kind == "cifar100" else "cifar-10-batches-py")
    if not folder.is_dir():
        raise DataError(
            f"{folder}: no such folder; unpack the published archive of {kind} into {path}"
        )


def _cifar(path: Path, kind: str) -> tuple[dict[str, ImageSet], list[str]]:
    import torch
    from torchvision import datasets

    source = datasets.CIFAR100 if kind == "cifar100" else datasets.CIFAR10
    folder = path / source.base_folder
    meta = (source.meta["filename"], source.meta["md5"])
    for name, md5 in [*source.train_list, *source.test_list, meta]:
        file = folder / name
        if not file.is_file():
            raise DataError(f"{file}: missing; unpack the published archive of {kind} again")
        if hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest() != md5:
            raise DataError(f"{file}: md5 is not {md5}; unpack the published archive of {kind}")
    parts = {}
    for name in ("train", "test"):
        images = source(str(path), train=name == "train", download=False)
        pixels = torch.from_numpy(images.data).permute(0, 3, 1, 2).contiguous()
        names = [f"{kind}/{name}/{index}" for index in range(len(pixels))]
        parts[name] = ImageSet(torch.tensor(images.targets), names, pixels)
    return parts, list(images.classes)


def _channel_statistics(train: ImageSet) -> tuple[tuple[float, ...], tuple[float, ...]]:
    if train.pixels is None:
        return IMAGENET_MEAN, IMAGENET_STD
    sample = train.pixels[:: max(1, len(train) // 5000)].float() / 255
    mean, std = sample.mean(dim=(0, 2, 3)), sample.std(dim=(0, 2, 3)).clamp(min=1e-3)
    return tuple(round(v, 4) for v in mean.tolist()), tuple(round(v, 4) for v in std.tolist())


def _hash(parts: dict[str, ImageSet]) -> str:
    digest = hashlib.sha256()
    for name in sorted(parts):
        part = parts[name]
        digest.update(f"{name}:{len(part)};".encode() + part.labels.numpy().tobytes())
        if part.pixels is not None:
            digest.update(part.pixels.numpy().tobytes())
        elif part.root is not None:
            sizes = ((image, (part.root / image).stat().st_size) for image in part.names)
            digest.update("".join(f"{image}:{size};" for image, size in sizes).encode())
    return digest.hexdigest()[:16]
