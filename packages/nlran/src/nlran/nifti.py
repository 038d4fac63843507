"""Writing NIfTI files."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
from papercommons.files import atomic_path


def write_nifti(
    path: str | Path, array: np.ndarray, affine: np.ndarray, *, scale: float = 1.0, note: str = ""
) -> None:
    """Write an array as NIfTI in millimetres; the same content gives the same bytes.

    Args:
        path: ends in .nii.gz; its folder is made.
        array: in the order of the affine's axes, int16 or uint8.
        affine: index to millimetres, RAS+, shape (4, 4).
        scale: what a reader multiplies the values by.
        note: the header's description, at most 79 characters.
    """
    import nibabel

    image = nibabel.Nifti1Image(array, affine)
    image.header.set_slope_inter(scale, 0)
    image.header["descrip"] = note.encode()
    image.header.set_xyzt_units("mm")
    with atomic_path(path) as temporary:
        temporary.write_bytes(gzip.compress(image.to_bytes(), 6, mtime=0))
