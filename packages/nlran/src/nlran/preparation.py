"""From a scan to the network's grid and back, and the lungs in it."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from papercommons.errors import DataError

from nlran.volumes import AIR, Units, Volume, read_volume

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger("papercommons")
_HIGHEST = 32767.0  # HU; metal, and within float16
_LUNG_HU = -400.0
_LUNG_UINT8 = 109  # -400 HU, if the picture shows -1000 to 400 HU
_COARSE_MM = 2.5
MAX_SIDE = 1024  # voxels
_CLOSING_MM = 10.0


@dataclass(frozen=True)
class Preparation:
    """How scans are brought to one grid and range; stored with a trained network.

    Attributes:
        size: D, H, W of the grid, each >= 16; D = 0 keeps every slice.
        resample: size stretches a scan to the grid; spacing resamples it to `spacing`, then cuts or
            pads it about its centre.
        spacing: mm, along D, H, W.
        window: HU that become 0 and 1; not used for uint8.
        lung_mask: none; auto: see `lung_mask`; or a folder of masks named like the scans.
        units: of the scans.
        max_slices: where D = 0, the grid has no more slices than this; None: no limit.

    Raises:
        ValueError: a value is out of range.
    """

    size: tuple[int, int, int] = (64, 128, 128)
    resample: Literal["size", "spacing"] = "size"
    spacing: tuple[float, float, float] = (5.0, 2.5, 2.5)
    window: tuple[float, float] = (-1000.0, 400.0)
    lung_mask: str = "none"
    units: Units = "HU"
    max_slices: int | None = None

    def __post_init__(self) -> None:
        for name, count in {"size": 3, "spacing": 3, "window": 2}.items():
            values = tuple(getattr(self, name))
            if len(values) != count or not all(map(math.isfinite, values)):
                raise ValueError(f"{name} must be {count} numbers, got {values}")
            object.__setattr__(self, name, values)  # JSON gives lists
        if any(type(side) is not int or side > MAX_SIDE for side in self.size):
            raise ValueError(f"size must be whole and at most {MAX_SIDE}, got {self.size}")
        if min(self.size[1:]) < 16 or (self.size[0] < 16 and self.size[0] != 0):
            raise ValueError(f"size must be >= 16 each, or 0 for all slices, got {self.size}")
        if self.resample not in ("size", "spacing"):
            raise ValueError(f"resample must be size or spacing, got {self.resample!r}")
        if min(self.spacing) <= 0:
            raise ValueError(f"spacing must be > 0 mm, got {self.spacing}")
        if self.window[0] >= self.window[1]:
            raise ValueError(f"window must be low < high, got {self.window}")
        if self.units not in ("HU", "uint8"):
            raise ValueError(f"units must be HU or uint8, got {self.units!r}")
        if not isinstance(self.lung_mask, str):
            raise ValueError(f"lung_mask must be none, auto or a folder, got {self.lung_mask!r}")
        if self.max_slices is not None:
            if self.size[0]:
                raise ValueError(
                    f"max_slices needs a size that keeps all slices (0), got {self.size[0]}"
                )
            if self.max_slices < 1:
                raise ValueError(f"max_slices must be >= 1, got {self.max_slices}")


@dataclass(frozen=True)
class GridMap:
    """Where the voxels of a network's grid lie in the scan: ``scan = scale * grid + shift``.

    Attributes:
        scale: for d, h, w.
        shift: for d, h, w.
        scan_shape: D, H, W of the scan.
        grid_shape: d, h, w of the grid.
    """

    scale: tuple[float, float, float]
    shift: tuple[float, float, float]
    scan_shape: tuple[int, int, int]
    grid_shape: tuple[int, int, int]


def map_grid(shape: Sequence[int], spacing: Sequence[float], preparation: Preparation) -> GridMap:
    """Return where the network's grid lies in a scan; both share their centre.

    Args:
        shape: D, H, W of the scan.
        spacing: mm, of the scan.
        preparation: grid wanted.
    """
    scan = (int(shape[0]), int(shape[1]), int(shape[2]))
    depth = preparation.size[0] or min(scan[0], preparation.max_slices or scan[0])
    grid = (depth, *preparation.size[1:])
    if preparation.resample == "size":
        scale = [s / g for s, g in zip(scan, grid, strict=True)]
    else:
        scale = [wanted / own for wanted, own in zip(preparation.spacing, spacing, strict=True)]
        if preparation.size[0] == 0:
            scale[0] = scan[0] / depth
    shift = [(s - 1 - k * (g - 1)) / 2 for s, g, k in zip(scan, grid, scale, strict=True)]
    return GridMap((scale[0], scale[1], scale[2]), (shift[0], shift[1], shift[2]), scan, grid)


def prepare(
    volume: Volume, preparation: Preparation, mask: np.ndarray | None = None
) -> tuple[np.ndarray, GridMap]:
    """Return a scan on the network's grid; averages where it shrinks, so that nothing aliases.

    Args:
        volume: the scan.
        preparation: grid wanted; its `lung_mask` auto is done here if no `mask` is given.
        mask: bool, shape (D, H, W) of the scan; what is outside takes the window's low end.

    Returns:
        float16, shape of the grid, in the scan's own units; beyond the scan -1024 HU or 0, and with
        a mask no more than the window's low end. And where it lies in the scan.

    Raises:
        DataError: no lungs are found, or the scan does not tell the spacing that is to be changed.
        ValueError: the mask's shape is wrong, or it is wanted from a folder and not given.
    """
    array, hounsfield = volume.array, volume.units == "HU"
    if not volume.geometry and preparation.resample == "spacing":
        raise DataError(
            f"{volume.path or 'scan'}: the file tells no spacing; pass --resample size, or give "
            "the scan as NIfTI or DICOM"
        )
    if mask is None and preparation.lung_mask == "auto":
        if not volume.geometry:
            _warn_of_spacing()
        mask = lung_mask(array, volume.spacing, volume.units)
        if not mask.any():
            raise DataError(
                f"{volume.path or 'scan'}: no lungs found by threshold; pass --lung-mask none or "
                "a folder of masks"
            )
    if mask is None and preparation.lung_mask != "none":
        raise ValueError("lung_mask is a folder: read the scan's mask with read_mask and give it")
    air = AIR if hounsfield else 0.0
    if hounsfield and (array.min() < AIR or array.max() > _HIGHEST):
        array = np.clip(array, AIR, _HIGHEST)
    if mask is not None:
        if mask.shape != array.shape:
            raise ValueError(f"mask must have the scan's shape {array.shape}, got {mask.shape}")
        outside = preparation.window[0] if hounsfield else 0.0
        array, air = np.where(mask, array, np.float32(outside)), min(air, outside)
    grid = map_grid(array.shape, volume.spacing, preparation)
    rows = [
        _weights(count, length, scale, shift)
        for count, length, scale, shift in zip(
            grid.grid_shape, grid.scan_shape, grid.scale, grid.shift, strict=True
        )
    ]
    values = _resample(array, rows, (0, 1, 2))
    for axis, weights in enumerate(rows):
        beyond = [slice(None)] * axis + [weights.sum(axis=1) == 0]
        values[tuple(beyond)] = air
    return values.astype(np.float16), grid


@cache
def _warn_of_spacing() -> None:
    log.warning("files tell no spacing: to find the lungs, voxels are taken as 1 mm")


def to_scan_grid(heat: np.ndarray, grid: GridMap) -> np.ndarray:
    """Return values of the network's grid on the scan's grid, linear in between.

    Args:
        heat: float, shape `grid_shape`.
        grid: of `prepare`.

    Returns:
        float32, shape `scan_shape`; 0 where the grid did not reach.

    Raises:
        ValueError: the shape is not the grid's.
    """
    if heat.shape != grid.grid_shape:
        raise ValueError(f"heat must have the grid's shape {grid.grid_shape}, got {heat.shape}")
    rows = [
        _weights(length, count, 1 / scale, -shift / scale)
        for count, length, scale, shift in zip(
            grid.grid_shape, grid.scan_shape, grid.scale, grid.shift, strict=True
        )
    ]
    return _resample(heat.astype(np.float32), rows, (2, 1, 0))


def _weights(count: int, length: int, scale: float, shift: float) -> np.ndarray:
    """Return the matrix, float32, (count, length), that resamples one axis.

    Row i is a triangle about ``scale * i + shift``, one step wide to each side in the coarser of
    both grids, and sums to 1; or it is 0 if that place is outside the axis by over half a voxel.
    """
    centre = scale * np.arange(count)[:, None] + shift
    distance = np.abs(np.arange(length) - centre) / max(scale, 1.0)
    weights = np.maximum(0.0, 1.0 - distance)
    inside = (centre > -0.5 - 1e-6) & (centre < length - 0.5 + 1e-6)
    total = weights.sum(axis=1, keepdims=True)
    return np.where(inside, weights / np.where(inside, total, 1), 0).astype(np.float32)


def _resample(array: np.ndarray, rows: Sequence[np.ndarray], axes: Sequence[int]) -> np.ndarray:
    """Apply a matrix to each axis, in that order of `axes` that keeps the steps small."""
    for axis in axes:
        if axis == 0:
            flat = rows[0] @ array.reshape(len(array), -1)
            array = flat.reshape(-1, *array.shape[1:])
        else:
            array = rows[1] @ array if axis == 1 else array @ rows[2].T
    return array


def to_unit(values: Tensor, preparation: Preparation) -> Tensor:
    """Return what the network sees: the window as 0 to 1, cut off at both ends.

    Args:
        values: of `prepare`, any float dtype and shape.
        preparation: its window and units count.

    Returns:
        float32 in [0, 1], same shape.
    """
    low, high = preparation.window if preparation.units == "HU" else (0.0, 255.0)
    return ((values.float() - low) / (high - low)).clamp(0, 1)


def lung_mask(
    array: np.ndarray, spacing: tuple[float, float, float], units: Units = "HU"
) -> np.ndarray:
    """Return the lungs by threshold: air that does not reach the picture's border, then closed.

    The largest connected part is kept, and the second if it has a tenth of its size. Dense lesions
    inside are closed up to 10 mm; those beyond, and lungs cut by the border, are lost.

    Args:
        array: HU, or uint8 values in a window of about -1000 to 400 HU, shape (D, H, W).
        spacing: mm, along D, H, W.
        units: of `array`.

    Returns:
        bool, shape (D, H, W), in steps of about 2.5 mm; empty if there is no such air.
    """
    from scipy import ndimage

    steps = [max(1, round(_COARSE_MM / length)) for length in spacing]
    d, h, w = steps
    coarse = array[d // 2 :: d, h // 2 :: h, w // 2 :: w]
    air = coarse < _LUNG_HU if units == "HU" else (coarse > 0) & (coarse < _LUNG_UINT8)
    in_plane = ndimage.generate_binary_structure(3, 1)
    in_plane[[0, 2]] = False
    parts, _ = ndimage.label(air, in_plane)
    border = np.unique(np.concatenate([parts[:, [0, -1]].ravel(), parts[:, :, [0, -1]].ravel()]))
    parts, count = ndimage.label(air & ~np.isin(parts, border))
    sizes = np.bincount(parts.ravel(), minlength=count + 1)
    sizes[0] = 0
    largest = np.argsort(sizes)[::-1][:2]
    lungs = np.isin(parts, [part for part in largest if sizes[part] > 0.1 * sizes.max()])
    if lungs.any():
        sampling = [step * length for step, length in zip(steps, spacing, strict=True)]
        near = ndimage.distance_transform_edt(~lungs, sampling) <= _CLOSING_MM
        if not near.all():
            lungs |= ndimage.distance_transform_edt(near, sampling) > _CLOSING_MM
    places = [
        np.minimum(np.arange(length) // step, size - 1)
        for length, step, size in zip(array.shape, steps, lungs.shape, strict=True)
    ]
    return lungs[np.ix_(*places)]


def read_mask(path: str | Path, volume: Volume, *, may_be_empty: bool = False) -> np.ndarray:
    """Read a mask of any grid onto the grid of a scan, by world coordinates, the nearest voxel.

    Args:
        path: any scan format of `read_volume`; what is not 0 counts.
        volume: the scan.
        may_be_empty: whether a mask that marks nothing is one (of lesions, of a healthy person).

    Returns:
        bool, shape (D, H, W) of the scan.

    Raises:
        DataError: not readable, without the geometry that the scan has, empty, or beside the scan.
    """
    from scipy import ndimage

    mask = read_volume(path)
    if not (mask.geometry and volume.geometry):
        if mask.geometry != volume.geometry or mask.array.shape != volume.array.shape:
            raise DataError(
                f"{path}: a mask of shape {mask.array.shape} cannot be laid onto a scan of shape "
                f"{volume.array.shape}, since not both tell their place; give both as NIfTI"
            )
        chosen = mask.array != 0
    else:
        there = np.linalg.inv(mask.affine) @ volume.affine
        chosen = ndimage.affine_transform(
            mask.array != 0,
            there[:3, :3],
            there[:3, 3],
            output_shape=volume.array.shape,
            order=0,
            mode="grid-constant",
        )
    if mask.array.min() < 0:
        raise DataError(f"{path}: holds values below 0; expected a mask, 0 where nothing is marked")
    if not chosen.any() and (mask.array.any() or not may_be_empty):
        raise DataError(f"{path}: marks no voxel of the scan; expected a mask of the same patient")
    return chosen
