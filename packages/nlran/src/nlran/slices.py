"""Scans kept as a folder of grey 8-bit pictures, such as CC-CCII's."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from papercommons.errors import DataError

from nlran.volumes import Stored, check_shape, is_picture, readable, slice_files

_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF")  # EPS would start Ghostscript


def natural_key(name: str) -> tuple[str | int, ...]:
    """Return a sort key by which the numbers in names count as numbers: 10 comes after 9.

    Args:
        name: of a file, without its suffix.

    Example:
        >>> sorted(["slice10", "slice9"], key=natural_key)
        ['slice9', 'slice10']
    """
    parts = re.split(r"([0-9]+)", name.lower())
    return tuple(int(part) if place % 2 else part for place, part in enumerate(parts))


def read_slices(folder: Path, max_bytes: int) -> Stored:
    """Read a folder of pictures as a scan; the first in natural order is d = 0.

    Args:
        folder: with one png or jpg picture for each slice, all of one size.
        max_bytes: limit on the decoded voxels.

    Raises:
        DataError: a single slice, two with one number, unequal sizes, colours, more than 8 bits,
            or a broken file.
    """
    from PIL import Image

    files = slice_files(folder)
    ordered = sorted((f for f in files if is_picture(f)), key=lambda file: natural_key(file.stem))
    for first, second in pairwise(ordered):
        if natural_key(first.stem) == natural_key(second.stem):
            raise DataError(
                f"{folder}: {first.name} and {second.name} have the same number; remove one"
            )
    array, stored = np.empty(0, dtype=np.float32), ""
    for index, file in enumerate(ordered):
        with readable(file, "a picture"), Image.open(file, formats=_FORMATS) as image:
            if index == 0:
                width, height = image.size
                shape = check_shape(folder, (len(ordered), height, width), max_bytes)
                array = np.empty(shape, dtype=np.float32)
                stored = image.mode
            if image.size != (width, height):
                raise DataError(
                    f"{file}: {image.width} x {image.height} pixels, but {width} x {height} in "
                    f"{ordered[0].name}; the slices of a scan must be of one size"
                )
            array[index] = _grey(file, image)
    others = len(files) - len(ordered)
    notes = (f"ignored {others} files that are not pictures",) if others else ()
    return Stored(array, units="uint8", notes=notes, stored=stored)


def _grey(file: Path, image: Any) -> np.ndarray:
    if getattr(image, "n_frames", 1) > 1:
        raise DataError(
            f"{file}: {image.n_frames} pictures in one file; expected one slice in each"
        )
    if image.mode[0] in "IF":
        raise DataError(
            f"{file}: more than 8 bits a pixel, of unknown meaning; give the scan as NIfTI or "
            "DICOM in HU, or 8-bit slices"
        )
    if image.mode in ("L", "LA"):
        return np.asarray(image.getchannel(0))
    colours = np.asarray(image.convert("RGB"))
    if (colours != colours[..., :1]).any():
        raise DataError(f"{file}: a colour picture; expected grey slices of a CT")
    return colours[..., 0]
