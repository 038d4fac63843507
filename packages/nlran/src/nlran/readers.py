"""Readers of single files: NIfTI by nibabel, MetaImage and NRRD by SimpleITK, NumPy."""

from __future__ import annotations

import gzip
import math
import re
import zipfile
import zlib
from contextlib import nullcontext
from pathlib import Path
from typing import IO, Any

import numpy as np
from papercommons.errors import DataError, missing_library, one_line

from nlran.content import HEADER, pointers
from nlran.volumes import Stored, Units, check_shape

MAX_HEADER = 64 << 20
_COMPRESSED = re.compile(
    rb"^\s*(?:CompressedData\s*[=:]\s*[T1]|encoding: *gz)", re.MULTILINE | re.IGNORECASE
)
_SKIPPED = re.compile(
    rb"^\s*(?:HeaderSize|(?:line|byte) ?skip)", re.MULTILINE | re.IGNORECASE
)  # bytes before the voxels
_ZLIB_OR_GZIP = 32 + zlib.MAX_WBITS
_CHUNK = 64 << 10
_DENSEST = 1032  # bytes that deflate packs into one
_FROM_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def read_nifti(path: Path, max_bytes: int) -> Stored:
    """Read .nii, .nii.gz, or .hdr with its .img.

    Args:
        path: the file.
        max_bytes: limit on the decoded voxels.

    Raises:
        DataError: not a 3-D scan of numbers, or too large.
    """
    import nibabel

    _check_nifti_header(path)
    if path.suffix.lower() == ".hdr":
        _check_inside(path, f"{path.stem}.img")
    image: Any = nibabel.load(path)
    dtype = image.get_data_dtype()
    _check_dtype(path, dtype)
    shape = check_shape(path, image.shape, max_bytes, dtype.itemsize)
    _check_length(path, Path(image.file_map["image"].filename), math.prod(shape))
    with gzip.open(path) if path.suffix.lower() == ".gz" else nullcontext() as packed:
        whole = image if packed is None else type(image).from_stream(packed)
        array = whole.get_fdata(dtype=np.float32, caching="unchanged").reshape(shape, order="F")
        if packed is not None and len(packed.read(MAX_HEADER)) == MAX_HEADER:  # to the checksum
            raise DataError(f"{path}: goes on behind its voxels; the file is broken")
    stated = dtype == np.uint8 and image.dataobj.slope == 1 and image.dataobj.inter == 0
    notes: tuple[str, ...] = ()
    if not (image.header.get("sform_code", 0) or image.header.get("qform_code", 0)):
        notes = ("the header tells no orientation; taken as left, anterior, superior",)
    units: Units = "uint8" if stated else "HU"
    return Stored(array, image.affine, units, notes, stored=dtype.name)


def _check_nifti_header(path: Path) -> None:
    """Refuse a header that promises endless extensions: nibabel reads them on opening."""
    from nibabel import Nifti1Header, Nifti2Header
    from nibabel.openers import ImageOpener

    with ImageOpener(str(path)) as file:
        first = file.read(540)
    kinds = {348: Nifti1Header, 540: Nifti2Header}
    for size, kind in kinds.items():
        if size in (int.from_bytes(first[:4], order) for order in ("little", "big")):
            offset = float(kind(first[:size], check=False)["vox_offset"])
            if not 0 <= offset <= MAX_HEADER:
                raise DataError(f"{path}: a header of {offset:.3g} bytes; the file is broken")


def _check_length(path: Path, data: Path, voxels: int) -> None:
    """Refuse a file too short for its voxels before there is memory for them."""
    if voxels > data.stat().st_size * _DENSEST:
        raise DataError(
            f"{path}: promises {voxels:,} voxels, but is cut off; copy it again or remove it"
        )


def read_metaimage(path: Path, max_bytes: int) -> Stored:
    """Read .mha, .mhd or .nrrd.

    Args:
        path: the file; data in a file of their own must lie in the same folder or below.
        max_bytes: limit on the decoded voxels.

    Raises:
        DataError: SimpleITK is absent, or the file is not a 3-D scan of numbers, too large, or
            damaged.
    """
    try:
        import SimpleITK as sitk
    except ImportError:
        raise missing_library(f"{path}: a {path.suffix} file", "SimpleITK", "nlran[itk]") from None
    _check_data_file(path)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
        if reader.GetNumberOfComponents() != 1:
            raise DataError(
                f"{path}: {reader.GetNumberOfComponents()} values per voxel; expected 1"
            )
        itemsize = sitk.Image([1, 1], reader.GetPixelIDValue()).GetSizeOfPixelComponent()
        shape = check_shape(path, reader.GetSize(), max_bytes, itemsize)
        name, start = next(iter(pointers(path).items()))
        data = path if name == "LOCAL" else path.parent / name
        _check_length(path, data, math.prod(shape))
        _check_stream(path, data, start if data == path else 0, math.prod(shape) * itemsize)
        image = reader.Execute()
    except RuntimeError as error:  # whose reasons mislead: "No such file" for a file cut off
        raise DataError(
            f"{path}: not readable by SimpleITK, cut off or damaged; copy it again or remove it"
        ) from error
    count = image.GetDimension()
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (count, count))[:3, :3]
    affine[:3, :3] *= image.GetSpacing()[:3]
    affine[:3, 3] = image.GetOrigin()[:3]
    voxels = sitk.GetArrayViewFromImage(image)
    _check_dtype(path, voxels.dtype)
    units: Units = "uint8" if voxels.dtype == np.uint8 else "HU"
    array = voxels.reshape(shape[::-1]).T.astype(np.float32)
    return Stored(array, _FROM_LPS @ affine, units, stored=voxels.dtype.name)


def _check_data_file(path: Path) -> None:
    """Refuse a header that sends the reader to files outside its folder, or to several."""
    names = pointers(path)
    if not names:
        raise DataError(
            f"{path}: its header does not say where the voxels are: it is cut off or damaged; "
            "copy it again or remove it"
        )
    for name in names.keys() - {"LOCAL"}:
        if name.upper().startswith("LIST") or "%" in name or " " in name:
            raise DataError(f"{path}: its voxels are in several files; write them into one")
        _check_inside(path, name)


def _check_inside(path: Path, name: str) -> None:
    folder = path.parent.resolve()
    if not (folder / name).resolve().is_relative_to(folder):
        raise DataError(f"{path}: its voxels are in {one_line(name)}, outside its folder")


def _check_stream(path: Path, data: Path, start: int, size: int) -> None:
    """Refuse damaged compressed voxels: SimpleITK gives zeros in their place."""
    with path.open("rb") as file:
        header = file.read(HEADER)
    if not _COMPRESSED.search(header) or _SKIPPED.search(header):
        return
    unpacker, unpacked = zlib.decompressobj(_ZLIB_OR_GZIP), 0
    with data.open("rb") as file:
        file.seek(start)
        while unpacked <= size and (chunk := file.read(_CHUNK)):
            unpacked += len(unpacker.decompress(chunk))
    if unpacked != size or not unpacker.eof:
        raise DataError(f"{path}: its compressed voxels are cut off; copy it again or remove it")


def read_numpy(path: Path, max_bytes: int) -> Stored:
    """Read .npy, or .npz with ``volume`` or a single 3-D array, and optional geometry.

    Args:
        path: .npy: axes (D, H, W) as in `Volume`. .npz: the same with ``spacing`` (3) in mm along
            the axes, or ``affine`` (4, 4) from places in the array to RAS+ mm.
        max_bytes: limit on the decoded voxels.

    Raises:
        DataError: pickled, not a 3-D array of numbers, or too large.
    """
    if path.suffix.lower() == ".npy":
        with path.open("rb") as file:
            _check_npy(path, file, max_bytes)
        return _from_numpy(np.load(path, allow_pickle=False), {})
    with zipfile.ZipFile(path) as archive:
        members = [name.removesuffix(".npy") for name in archive.namelist()]
        shapes = {}
        for name in members:
            with archive.open(f"{name}.npy") as file:
                shapes[name] = _npy_header(file)[0]
        volumes = [name for name in members if len(shapes[name]) >= 3]
        chosen = "volume" if "volume" in members else volumes[0] if len(volumes) == 1 else None
        if chosen is None:
            raise DataError(
                f"{path}: holds {', '.join(map(one_line, members)) or 'nothing'}; "
                "expected an array named volume, or a single 3-D one"
            )
        with archive.open(f"{chosen}.npy") as file:
            _check_npy(path, file, max_bytes)
    small = {"spacing": (3,), "affine": (4, 4)}
    for name, shape in small.items():
        if shapes.get(name, shape) != shape:
            raise DataError(f"{path}: {name} has shape {shapes[name]}; expected {shape}")
    with np.load(path, allow_pickle=False) as arrays:
        return _from_numpy(arrays[chosen], {name: arrays[name] for name in small if name in shapes})


def _npy_header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    from numpy.lib import format as npy

    version = npy.read_magic(file)
    if version == (1, 0):
        shape, _, dtype = npy.read_array_header_1_0(file)
    else:
        shape, _, dtype = npy.read_array_header_2_0(file)
    return shape, dtype


def _check_npy(path: Path, file: IO[bytes], max_bytes: int) -> None:
    shape, dtype = _npy_header(file)
    _check_dtype(path, dtype)
    check_shape(path, shape, max_bytes, dtype.itemsize)


def _from_numpy(array: np.ndarray, given: dict[str, np.ndarray]) -> Stored:
    units: Units = "uint8" if array.dtype in (np.uint8, np.bool_) else "HU"
    affine = given.get("affine")
    spacing = given.get("spacing")
    d, h, w = array.shape[:3]
    return Stored(
        array.reshape(d, h, w).astype(np.float32),
        None if affine is None else affine.astype(np.float64),
        units,
        spacing=None
        if spacing is None
        else (float(spacing[0]), float(spacing[1]), float(spacing[2])),
        stored=array.dtype.name,
    )


def _check_dtype(path: Path, dtype: np.dtype) -> None:
    if dtype.kind not in "biuf":
        raise DataError(f"{path}: voxels of type {dtype}; expected one number each")
