"""CT scans of any common format as one kind of array: HU, in radiological order, with its affine.

`read_volume` reads; the readers themselves are in readers.py (files), slices.py (folders of
pictures) and dicom.py. A scan of the user's is never trusted: its size is checked before its
voxels are decoded, nothing in it is executed, and no file outside its own folder is opened.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from papercommons.errors import DataError, reason

MAX_BYTES = 4 << 30
AIR = -1024.0
_WORLD = ((2, 1), (1, -1), (0, -1))  # of d, h, w: axis of RAS+ world, and its direction along it
SUFFIXES = {
    "nifti": (".nii.gz", ".nii", ".hdr"),
    "metaimage": (".mha", ".mhd", ".nrrd"),
    "numpy": (".npy", ".npz"),
    "dicom": (".dcm", ".dicom", ".ima"),
}
_FLAT = "a single 2-D slice; nlran needs volumes: give the folder with all slices of the scan"
_LEFT = ("thumbs.db", "desktop.ini")
PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")

Units = Literal["HU", "uint8"]


@dataclass(frozen=True, eq=False)
class Volume:
    """A scan; ``array, spacing, affine = volume`` works.

    Attributes:
        array: float32, shape (D, H, W): d from caudal to cranial, h from anterior to posterior, w
            from the patient's right to left.
        spacing: mm, along D, H, W.
        affine: float64, shape (4, 4): from (d, h, w, 1) to RAS+ mm.
        units: HU, or uint8: 0 to 255, already windowed by whoever made the file.
        kind: of file, in a word.
        geometry: False where the file tells neither spacing nor orientation: the axes are as in
            the file then, at 1 mm.
        order: for d, h and w: which axis of the file it is, and whether reversed.
        notes: what was corrected or is odd, a sentence each.
        path: where it was read, for messages.
        stored: how the file keeps a voxel, e.g. int16; "" if unknown.
    """

    array: np.ndarray
    spacing: tuple[float, float, float]
    affine: np.ndarray
    units: Units = "HU"
    kind: str = ""
    geometry: bool = True
    order: tuple[tuple[int, bool], ...] = ((0, False), (1, False), (2, False))
    notes: tuple[str, ...] = ()
    path: str = ""
    stored: str = ""

    def __iter__(self) -> Iterator[Any]:
        yield from (self.array, self.spacing, self.affine)

    def in_file_order(self, array: np.ndarray) -> np.ndarray:
        """Return an array with the axes as they are in the file.

        Args:
            array: any dtype, shape (D, H, W).
        """
        return _reverse(array, self.order).transpose(np.argsort([axis for axis, _ in self.order]))

    def file_affine(self) -> np.ndarray:
        """Return the affine of an array `in_file_order`, float64, shape (4, 4), to RAS+ mm."""
        index = np.zeros((4, 4))  # from places in the file to (d, h, w)
        index[3, 3] = 1
        for k, (axis, reverse) in enumerate(self.order):
            index[k, axis] = -1 if reverse else 1
            index[k, 3] = self.array.shape[k] - 1 if reverse else 0
        return self.affine @ index


class Stored(NamedTuple):
    """A scan as its reader found it.

    Attributes:
        array: float32, three axes as in the file.
        affine: float64, shape (4, 4), from places in the file to RAS+ mm; None: not told, and the
            axes are taken as d, h, w.
        units: see `Volume`.
        notes: see `Volume`.
        spacing: mm, along the axes; looked at where there is no affine.
        stored: see `Volume`.
    """

    array: np.ndarray
    affine: np.ndarray | None = None
    units: Units = "HU"
    notes: tuple[str, ...] = ()
    spacing: tuple[float, float, float] | None = None
    stored: str = ""


def volume_kind(path: str | Path) -> str | None:
    """Return nifti, metaimage, numpy, dicom or slices if a path looks like a scan, else None.

    Only names are looked at, and the first bytes of files whose name says nothing. A single DICOM
    file counts (it may hold many slices), and so does a folder of DICOM files or of pictures.

    Args:
        path: a file or a folder.
    """
    path = Path(path)
    if path.is_dir():
        files = visible_files(path)
        if any(_file_kind(file) == "dicom" for file in files):
            return "dicom"
        return "slices" if any(is_picture(file) for file in files) else None
    return _file_kind(path) if path.is_file() else None


def visible_files(folder: Path) -> list[Path]:
    """Return the files right in a folder, by name; not hidden ones, nor those a desktop leaves."""
    return sorted(
        path
        for path in folder.iterdir()
        if not path.name.startswith(".") and path.name.lower() not in _LEFT and path.is_file()
    )


def slice_files(folder: Path) -> list[Path]:
    """Return `visible_files` of a scan.

    Raises:
        DataError: one is a link that leads out of the folder.
    """
    files, inside = visible_files(folder), folder.resolve()
    for file in files:
        if file.is_symlink() and not file.resolve().is_relative_to(inside):
            raise DataError(f"{file}: link out of the scan's folder; put the file itself there")
    return files


def is_picture(path: Path) -> bool:
    """Return whether a file's name says that it is a picture."""
    return path.suffix.lower() in PICTURES


def _file_kind(path: Path) -> str | None:
    name = path.name.lower()
    for kind, suffixes in SUFFIXES.items():
        if name.endswith(suffixes):
            return kind
    if name.endswith((*PICTURES, ".img", ".raw", ".zraw", ".csv", ".json", ".txt")):
        return None
    try:
        with path.open("rb") as file:
            return "dicom" if file.read(132)[128:] == b"DICM" else None
    except OSError:
        return None


def read_volume(
    path: str | Path, *, allow_gaps: bool = False, max_bytes: int = MAX_BYTES
) -> Volume:
    """Read a CT scan.

    NIfTI (.nii, .nii.gz, .hdr with .img), DICOM (a folder with one series, or one file with many
    frames), MetaImage and NRRD (extra itk), NumPy (.npy, .npz), or a folder of grey 8-bit pictures
    that are ordered by the numbers in their names.

    Args:
        path: a file or a folder.
        allow_gaps: interpolate missing DICOM slices instead of refusing the scan.
        max_bytes: refuse a scan whose voxels take more than this when decoded.

    Raises:
        DataError: missing, broken, too large, not one 3-D scan, sheared by a tilted gantry, with
            missing or doubled slices, or in need of a library that is absent.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    kind = volume_kind(path)
    if kind is None:
        raise DataError(f"{path}: {_why_not(path)}")
    with readable(path, kind):
        stored = _read(path, kind, allow_gaps, max_bytes)
        check_finite(path, stored.array)
        return _oriented(path, stored, kind)


def _read(path: Path, kind: str, allow_gaps: bool, max_bytes: int) -> Stored:
    from nlran import dicom, readers, slices

    if kind == "dicom":
        return dicom.read_dicom(path, allow_gaps=allow_gaps, max_bytes=max_bytes)
    if kind == "slices":
        return slices.read_slices(path, max_bytes)
    if kind == "nifti":
        return readers.read_nifti(path, max_bytes)
    if kind == "metaimage":
        return readers.read_metaimage(path, max_bytes)
    return readers.read_numpy(path, max_bytes)


def _why_not(path: Path) -> str:
    if is_picture(path):
        return _FLAT
    if path.suffix.lower() == ".img":
        return "these are only the voxels; give the .hdr file beside it"
    what = "a folder without slices" if path.is_dir() else "not a scan"
    return (
        f"{what}; expected NIfTI, MetaImage, NRRD, .npy, .npz, or a folder of DICOM files or of "
        "png or jpg slices"
    )


@contextmanager
def readable(path: Path, kind: str) -> Iterator[None]:
    """Turn whatever a library raises over a broken file into a `DataError`; hush its warnings.

    Args:
        path: the file, for the message.
        kind: what the file should have been, for the message.

    Raises:
        DataError: anything was raised inside.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except DataError:
        raise
    except Exception as error:  # on broken files the libraries raise nearly anything
        raise DataError(
            f"{path}: not readable as {kind} ({reason(error)}); copy it again or remove it"
        ) from error


def check_shape(
    path: Path, shape: Sequence[int], max_bytes: int, itemsize: int = 4
) -> tuple[int, int, int]:
    """Return the three sizes of a scan, trailing axes of 1 left out, before it is decoded.

    Args:
        path: for messages.
        shape: as the header gives it.
        max_bytes: limit on the decoded voxels.
        itemsize: bytes of a voxel in the file, if more than the 4 of float32.

    Raises:
        DataError: not 3-D, a single slice, or too large.
    """
    sizes = [int(size) for size in shape]
    while len(sizes) > 3 and sizes[-1] == 1:
        sizes.pop()
    if len(sizes) == 2 or (len(sizes) == 3 and 1 in sizes):
        raise DataError(f"{path}: {_FLAT}")
    if len(sizes) != 3 or min(sizes) < 1:
        raise DataError(
            f"{path}: {len(sizes)}-D data of shape {tuple(sizes)}; expected one 3-D scan"
        )
    if math.prod(sizes) * max(4, itemsize) > max_bytes:
        size = " x ".join(f"{size:,}" for size in sizes)
        raise DataError(
            f"{path}: promises {size} voxels, more than the limit of {max_bytes / 2**30:.3g} GiB; "
            "crop or resample it"
        )
    return sizes[0], sizes[1], sizes[2]


def check_finite(path: Path, array: np.ndarray) -> None:
    """Refuse an array that holds NaN or infinite values.

    Args:
        path: for the message.
        array: any shape.

    Raises:
        DataError: it does.
    """
    if not np.isfinite(array).all():
        count = array.size - np.count_nonzero(np.isfinite(array))
        raise DataError(f"{path}: {count:,} voxels are NaN or infinite; correct or remove it")


def check_upright(path: Path, affine: np.ndarray) -> None:
    """Raise `DataError` where two axes of a scan are more than 1 degree from a right angle.

    Args:
        path: for the message.
        affine: float64, shape (4, 4).
    """
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    tilt = math.degrees(math.asin(min(1.0, np.abs(axes.T @ axes - np.eye(3)).max())))
    if tilt > 1:
        refuse_tilt(path, tilt)


def refuse_tilt(path: Path, degrees: float) -> None:
    """Refuse a scan with a gantry tilt.

    Args:
        path: for the message.
        degrees: of the tilt.

    Raises:
        DataError: always.
    """
    raise DataError(
        f"{path}: gantry tilt of {degrees:.1f} degrees, so its slices are sheared; "
        "expected at most 1: correct the tilt with a DICOM tool first"
    )


def default_affine(spacing: Sequence[float]) -> np.ndarray:
    """Return the affine of an array in `Volume`'s order whose first voxel is the origin.

    Args:
        spacing: mm, along D, H, W.
    """
    affine = np.zeros((4, 4))
    affine[3, 3] = 1
    for k, (world, sign) in enumerate(_WORLD):
        affine[world, k] = sign * spacing[k]
    return affine


def _oriented(path: Path, stored: Stored, kind: str) -> Volume:
    geometry = stored.affine is not None or stored.spacing is not None
    affine = stored.affine
    if affine is None:
        affine = default_affine(stored.spacing or (1.0, 1.0, 1.0))
    affine = np.asarray(affine, dtype=np.float64)
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    if affine.shape != (4, 4) or not np.isfinite(affine).all() or not _plausible(lengths):
        sizes = " x ".join(f"{length:.4g}" for length in lengths)
        raise DataError(f"{path}: voxels of {sizes} mm are not possible; correct the header")
    check_upright(path, affine)
    order = _closest_order(affine[:3, :3] / lengths)
    axes = [axis for axis, _ in order]
    array = _reverse(stored.array.transpose(axes), order)
    affine = affine[:, [*axes, 3]]
    for k, (_, back) in enumerate(order):
        if back:
            affine[:, 3] += affine[:, k] * (array.shape[k] - 1)
            affine[:, k] *= -1
    d, h, w = (float(length) for length in lengths[axes])
    array = np.ascontiguousarray(array)
    notes = stored.notes + (_doubts(array) if stored.units == "HU" else ())
    told = (stored.units, kind, geometry, order, notes, str(path), stored.stored)
    return Volume(array, (d, h, w), affine, *told)


def _reverse(array: np.ndarray, order: Sequence[tuple[int, bool]]) -> np.ndarray:
    return np.flip(array, tuple(k for k, (_, back) in enumerate(order) if back))


def _plausible(lengths: np.ndarray) -> bool:
    return bool(((lengths > 0.01) & (lengths < 100)).all())


def _closest_order(axes: np.ndarray) -> tuple[tuple[int, bool], ...]:
    """Return `Volume.order`: the axes of the file that run best along the wanted directions."""
    best = max(
        permutations(range(3)),
        key=lambda order: sum(
            abs(axes[world, axis]) for (world, _), axis in zip(_WORLD, order, strict=True)
        ),
    )
    return tuple(
        (axis, bool(axes[world, axis] * sign < 0))
        for (world, sign), axis in zip(_WORLD, best, strict=True)
    )


def _doubts(array: np.ndarray) -> tuple[str, ...]:
    step = max(1, array.size // 1_000_000) | 1  # odd, so that it meets every column
    sample = array.ravel()[::step]
    low = float(np.percentile(sample, 1))
    lung = float(np.mean((sample > -950) & (sample < -600)))
    if low <= -900 and lung >= 0.05:
        return ()
    return (
        f"does not look like a chest CT in HU (1st percentile {low:.0f}, expected <= -900; "
        f"lung-like voxels {lung:.1%}, expected >= 5%)",
    )
