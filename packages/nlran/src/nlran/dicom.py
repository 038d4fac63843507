"""DICOM: the slices of one CT series, ordered by their positions in the patient, in HU."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from papercommons.errors import DataError, one_line

from nlran.volumes import (
    AIR,
    Stored,
    check_shape,
    check_upright,
    readable,
    refuse_tilt,
    slice_files,
    volume_kind,
)

_TO_RAS = np.diag([-1.0, -1.0, 1.0])  # DICOM's patient axes run to the left and posterior
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_SAME_MM = 0.05
_PADDING_HU = -2000.0


@dataclass(frozen=True, eq=False)
class _Slice:
    """One slice, before its pixels are read; lengths in mm, in DICOM's patient axes."""

    file: Path
    frame: int
    series: str
    shape: tuple[int, int]
    position: np.ndarray  # (3,), of the first pixel
    axes: np.ndarray  # (2, 3), unit vectors along rows and columns of pixels
    pixel: np.ndarray  # (2,), between rows, between columns
    slope: float
    intercept: float
    tilt: float
    stored: str


def read_dicom(path: Path, *, allow_gaps: bool, max_bytes: int) -> Stored:
    """Read the largest CT series of a folder, or a file with many frames.

    Slices are ordered by their position along the normal. Padding becomes -1024 HU. Uneven spacing
    beyond 1 % is resampled, linearly.

    Args:
        path: a folder with DICOM files, or one such file.
        allow_gaps: interpolate missing slices.
        max_bytes: limit on the decoded voxels.

    Raises:
        DataError: no CT, two series alike, a tilted gantry, missing or doubled slices, slices that
            do not fit together, a broken file, or no decoder for its compression.
    """
    slices, notes = _find_slices(path)
    slices, ignored = _largest_series(path, slices)
    rows, columns = slices[0].shape
    check_shape(path, (len(slices), rows, columns), max_bytes)
    _check_alike(path, slices)
    slices, depth = _in_order(slices)
    uneven = _check_gaps(path, slices, depth, allow_gaps)
    usual = float(np.median(np.diff(depth)))
    count = round((depth[-1] - depth[0]) / usual) + 1 if uneven else len(slices)
    check_shape(path, (count, rows, columns), max_bytes)
    affine = _affine(path, slices, depth, count)
    array = _read_pixels(slices)
    notes += ignored
    if uneven:
        array = _evenly(array, depth, count)
        notes += (f"{uneven}; resampled to {count} even slices",)
    return Stored(array, affine, notes=notes, stored=slices[0].stored)


def _find_slices(path: Path) -> tuple[list[_Slice], tuple[str, ...]]:
    import pydicom

    files = slice_files(path) if path.is_dir() else [path]
    slices: list[_Slice] = []
    left_out: Counter[str] = Counter()
    for file in files:
        if volume_kind(file) != "dicom":
            left_out["not DICOM"] += 1
            continue
        with readable(file, "DICOM"):
            _check_deflated(file)
            header = pydicom.dcmread(file, stop_before_pixels=True, force=True)
            if why := _why_not(header):
                left_out[why] += 1
            else:
                slices.extend(_slices_of(file, header))
    notes = tuple(f"{n} of {len(files)} files left out: {why}" for why, n in left_out.items())
    if not slices:
        raise DataError(f"{path}: no CT slices ({'; '.join(notes)}); expected a CT series")
    return slices, notes


def _check_deflated(file: Path) -> None:
    """Refuse a file that pydicom would inflate on opening, to whatever size."""
    from pydicom.filereader import read_dataset, read_preamble
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    for implicit in (False, True):
        with file.open("rb") as stream:
            read_preamble(stream, force=True)
            meta = read_dataset(stream, implicit, True, stop_when=lambda tag, *_: tag >> 16 != 2)
        try:
            next(iter(meta), None)
            break
        except NotImplementedError:  # pydicom reads the other way then, and so does this
            continue
    if meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
        raise DataError(f"{file}: deflated DICOM is not read; expand it with a DICOM tool first")


def _why_not(header: Any) -> str:
    if len(header) == 0:
        raise DataError(f"{header.filename}: not DICOM, or cut off; copy it again or remove it")
    if "DirectoryRecordSequence" in header:
        return "a DICOMDIR"
    if (modality := header.get("Modality", "CT")) != "CT":
        return f"of modality {one_line(str(modality))}, not CT"
    if str(header.get("SOPClassUID", "")).startswith(_SECONDARY_CAPTURE):
        return "a secondary capture"
    if any("LOCALIZER" in str(word).upper() for word in _words(header.get("ImageType"))):
        return "a localizer"
    return ""


def _words(value: Any) -> Sequence[Any]:
    return [value] if isinstance(value, str) else value or []


def _slices_of(file: Path, header: Any) -> Iterator[_Slice]:
    """Give the slices of one file: one, or the frames of an enhanced CT."""
    shared = list(header.get("SharedFunctionalGroupsSequence") or [])
    frames = list(header.get("PerFrameFunctionalGroupsSequence") or [{}])
    count = int(header.get("NumberOfFrames") or 1)
    if count != len(frames):
        raise DataError(
            f"{file}: {count} frames but positions of {len(frames)}; export it as one file a slice"
        )
    if header.get("SamplesPerPixel", 1) != 1:
        raise DataError(f"{file}: a colour picture in a CT series; remove it")
    shape = int(_find(file, [header], "Rows")), int(_find(file, [header], "Columns"))
    signed = "" if header.get("PixelRepresentation") else "u"
    stored = f"{signed}int{header.get('BitsStored', '')}"
    for number, frame in enumerate(frames):
        places = [group for part in (frame, *shared) for group in _groups(part)] + [header]
        yield _Slice(
            file,
            number,
            str(header.get("SeriesInstanceUID", "")),
            shape,
            _numbers(_find(file, places, "ImagePositionPatient"), 3),
            _numbers(_find(file, places, "ImageOrientationPatient"), 6).reshape(2, 3),
            _numbers(_find(file, places, "PixelSpacing"), 2),
            float(_find(file, places, "RescaleSlope", 1)),
            float(_find(file, places, "RescaleIntercept", 0)),
            float(_find(file, places, "GantryDetectorTilt", 0)),
            stored,
        )


def _groups(part: Any) -> list[Any]:
    """Return the functional groups of one frame, or of what all frames share."""
    return [element.value[0] for element in part if element.VR == "SQ" and element.value]


def _find(file: Path, places: Sequence[Any], name: str, default: Any = None) -> Any:
    """Return a value from the first of `places` that has one."""
    for place in places:
        if (value := place.get(name)) is not None:
            return value
    if default is None:
        raise DataError(f"{file}: has no {name}; not a slice of a CT, or its header is cut off")
    return default


def _numbers(values: Any, count: int) -> np.ndarray:
    array = np.array([float(value) for value in values])
    if array.shape != (count,) or not np.isfinite(array).all():
        raise ValueError(f"expected {count} numbers in the header, got {values}")
    return array


def _largest_series(path: Path, slices: list[_Slice]) -> tuple[list[_Slice], tuple[str, ...]]:
    series = defaultdict(list)
    for one in slices:
        series[one.series].append(one)
    ordered = sorted(series.values(), key=len, reverse=True)
    largest = ordered[0]
    if len(ordered) > 1 and len(ordered[1]) == len(largest):
        names = " and ".join(f"that of {group[0].file.name}" for group in ordered[:2])
        raise DataError(
            f"{path}: two series of {len(largest)} slices, {names}; keep one in the folder"
        )
    ignored = [f"ignored a series of {len(group)} slices" for group in ordered[1:]]
    return largest, tuple(ignored)


def _check_alike(path: Path, slices: Sequence[_Slice]) -> None:
    """Refuse slices that differ from the first in what a scan has once."""
    first = slices[0]
    if np.abs(first.axes @ first.axes.T - np.eye(2)).max() > 0.01:
        raise DataError(
            f"{first.file}: ImageOrientationPatient is not two unit vectors at 90 degrees"
        )
    if first.pixel.min() <= 0:
        raise DataError(f"{first.file}: PixelSpacing must be above 0, is {first.pixel.tolist()}")
    for one in slices:
        for what, differs in {
            "orientations": np.abs(one.axes - first.axes).max() > 0.01,
            "image sizes": one.shape != first.shape,
            "pixel spacings": np.abs(one.pixel / first.pixel - 1).max() > 0.01,
        }.items():
            if differs:
                raise DataError(
                    f"{path}: mixed {what}: {first.file.name} and {one.file.name} differ; "
                    "keep the slices of one scan"
                )
    if (tilt := max(abs(one.tilt) for one in slices)) > 1:
        refuse_tilt(path, tilt)


def _in_order(slices: Sequence[_Slice]) -> tuple[list[_Slice], np.ndarray]:
    """Return slices in order, and their places along the normal in mm."""
    normal = np.cross(*slices[0].axes)
    depth = np.array([one.position @ normal for one in slices])
    order = np.argsort(depth, kind="stable")
    return [slices[index] for index in order], depth[order]


def _affine(path: Path, slices: Sequence[_Slice], depth: np.ndarray, count: int) -> np.ndarray:
    """Return the affine of `count` even slices, from (slice, row, column) to RAS+ mm.

    Raises:
        DataError: the slices are sheared by a tilted gantry, or lie beside one line.
    """
    first = slices[0]
    positions = np.stack([one.position for one in slices])
    way = positions[-1] - positions[0]
    affine = np.eye(4)
    affine[:3, 0] = way / (count - 1)
    affine[:3, 1] = first.axes[1] * first.pixel[0]
    affine[:3, 2] = first.axes[0] * first.pixel[1]
    affine[:3, 3] = first.position
    affine[:3] = _TO_RAS @ affine[:3]
    check_upright(path, affine)
    line = positions[0] + np.outer((depth - depth[0]) / (depth[-1] - depth[0]), way)
    beside = np.abs(positions - line).max(axis=1)
    if beside.max() > 2 * first.pixel.max():
        raise DataError(
            f"{slices[int(beside.argmax())].file}: shifted sideways against the other slices; "
            "keep the slices of one scan"
        )
    return affine


def _check_gaps(path: Path, slices: Sequence[_Slice], depth: np.ndarray, allow_gaps: bool) -> str:
    """Return what is uneven about the spacing in words, or an empty string.

    Raises:
        DataError: slices are doubled, or missing without `allow_gaps`.
    """
    gaps = np.diff(depth)
    if len(gaps) and gaps.min() < _SAME_MM:
        at = int(gaps.argmin())
        raise DataError(
            f"{path}: {slices[at].file.name} and {slices[at + 1].file.name} are at the same "
            "position; remove one"
        )
    usual = float(np.median(gaps))
    missing = np.flatnonzero(gaps >= 1.5 * usual)
    if len(missing) and not allow_gaps:
        at = int(missing[0])
        raise DataError(
            f"{path}: missing slices: {gaps[at]:.4g} mm between {slices[at].file.name} and "
            f"{slices[at + 1].file.name}, usually {usual:.4g}; complete the scan, or pass "
            "--allow-gaps to interpolate"
        )
    if len(missing):
        return f"missing slices in {len(missing)} places, interpolated"
    uneven = float(np.abs(gaps / usual - 1).max())
    return f"spacing varies by {uneven:.1%}" if uneven > 0.01 else ""


def _read_pixels(slices: Sequence[_Slice]) -> np.ndarray:
    """Return HU, float32, shape (slices, rows, columns)."""
    places = defaultdict(list)
    for place, one in enumerate(slices):
        places[one.file].append(place)
    array = np.empty((len(slices), *slices[0].shape), dtype=np.float32)
    for file, of_file in places.items():
        with readable(file, "DICOM"):
            pixels, padding = _decode(file)
            frames = pixels.reshape(-1, *slices[0].shape)
            for place in of_file:
                one = slices[place]
                stored = frames[one.frame]
                hu = array[place]
                np.multiply(stored, one.slope, out=hu, casting="unsafe")
                hu += one.intercept
                hu[(stored >= padding[0]) & (stored <= padding[1]) | (hu <= _PADDING_HU)] = AIR
    return array


def _decode(file: Path) -> tuple[np.ndarray, tuple[float, float]]:
    """Return stored values, and the lowest and highest that stand for padding (NaN for none)."""
    import pydicom
    from pydicom.pixels.decoders.base import get_decoder

    dataset = pydicom.dcmread(file, force=True)
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    if syntax is not None and syntax.is_encapsulated and not get_decoder(syntax).is_available:
        raise DataError(
            f"{file}: compressed as {syntax.name}, for which there is no decoder; "
            "pip install python-gdcm"
        )
    pixels = dataset.pixel_array
    one = dataset.get("PixelPaddingValue")
    if one is None:
        return pixels, (np.nan, np.nan)
    other = dataset.get("PixelPaddingRangeLimit", one)
    low, high = sorted(int(value) for value in np.array([one, other]).astype(pixels.dtype))
    return pixels, (low, high)


def _evenly(array: np.ndarray, depth: np.ndarray, count: int) -> np.ndarray:
    """Return `count` evenly spaced slices from the first to the last, linear in between."""
    wanted = np.linspace(depth[0], depth[-1], count)
    after = np.clip(np.searchsorted(depth, wanted), 1, len(depth) - 1)
    share = ((wanted - depth[after - 1]) / (depth[after] - depth[after - 1])).astype(np.float32)
    even = np.empty((count, *array.shape[1:]), dtype=np.float32)
    for out, index, weight in zip(even, after, share, strict=True):
        out[:] = (1 - weight) * array[index - 1] + weight * array[index]
    return even
