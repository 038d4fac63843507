"""Chest phantoms in Hounsfield units whose class only a long-range relation tells.

Normal: no lesion. CP: two lesions in one lung. NCP: one lesion in each lung. Number, size and
density of lesions are drawn alike for CP and NCP, and the lesions' masks are known, so that heat
maps can be scored exactly. Phantoms test programs and ideas; they say nothing about patients.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nlran.nifti import write_nifti

CLASSES = ("NCP", "CP", "Normal")
WIDTH_MM = 320.0  # of a phantom
AIR, TISSUE, LUNG = -1000.0, 40.0, -850.0  # HU
VESSELS = 6  # in each lung

Volume = NDArray[np.float32]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Lesions:
    """What a lesion looks like: a soft ball with a ragged edge.

    Attributes:
        contrast: lowest and highest HU that a lesion adds.
        radius: lowest and highest, in 32nds of the volume's width.
        edge: width over which the HU fall to 0, in 32nds of the volume's width, > 0.
        ragged: standard deviation of the edge's place, in 32nds of the volume's width.
    """

    contrast: tuple[float, float] = (250.0, 450.0)
    radius: tuple[float, float] = (2.2, 3.4)
    edge: float = 1.0
    ragged: float = 0.4

    def __post_init__(self) -> None:
        for name, (low, high) in {"contrast": self.contrast, "radius": self.radius}.items():
            if not 0 < low <= high:
                raise ValueError(f"{name} must be LOW HIGH with 0 < LOW <= HIGH, got {low} {high}")
        if self.edge <= 0 or self.ragged < 0:
            raise ValueError(f"edge must be > 0 and ragged >= 0, got {self.edge}, {self.ragged}")


CLEAR = Lesions(contrast=(400.0, 600.0), radius=(3.5, 5.0))  # a tiny network learns them soon


def make_phantom(
    label: str,
    seed: int | Sequence[int],
    *,
    size: int = 32,
    noise: float = 35.0,
    lesions: Lesions = Lesions(),
) -> tuple[NDArray[np.int16], Mask]:
    """Return a phantom and the mask of its lesions.

    The seed decides everything but the class: phantoms of one seed differ in their lesions only.

    Args:
        label: ``NCP``, ``CP`` or ``Normal``.
        seed: >= 0, or several such numbers.
        size: voxels along each axis, >= 16.
        noise: standard deviation, HU, >= 0.
        lesions: what they look like.

    Returns:
        HU, int16, and lesions, bool, both (D, H, W): caudal to cranial, anterior to posterior,
        right to left.

    Raises:
        ValueError: an argument is out of range.
    """
    if size < 16 or noise < 0:
        raise ValueError(f"size must be >= 16 and noise >= 0, got {size} and {noise}")
    rng = np.random.default_rng(seed)
    chest, lungs = _chest(rng, size)
    chest += noise * rng.standard_normal(chest.shape, dtype=np.float32)
    hu, mask = plant_lesions(chest, lungs, label, rng, lesions)
    return np.clip(hu, -1024, 3071).round().astype(np.int16), mask


def plant_lesions(
    hu: Volume, lungs: Mask, label: str, rng: np.random.Generator, lesions: Lesions = Lesions()
) -> tuple[Volume, Mask]:
    """Return a copy of a chest with the lesions of a class, and their mask.

    Args:
        hu: HU, float32, shape (D, H, W).
        lungs: right and left lung, bool, shape (2, D, H, W), neither empty.
        label: ``NCP``, ``CP`` or ``Normal``.
        rng: makes the same draws for every class.
        lesions: what they look like.

    Returns:
        HU float32, and the voxels whose HU rise by at least half of their lesion's contrast, bool;
        both (D, H, W).

    Raises:
        ValueError: unknown class, or a lung is empty.
    """
    from scipy.ndimage import distance_transform_edt, gaussian_filter

    if label not in CLASSES:
        raise ValueError(f"label must be one of {', '.join(CLASSES)}, got {label}")
    if not lungs.any((1, 2, 3)).all():
        raise ValueError("both lungs must have voxels")
    unit = hu.shape[-1] / 32
    radii = unit * rng.uniform(*lesions.radius, 2)
    contrasts = rng.uniform(*lesions.contrast, 2)
    edges = gaussian_filter(rng.standard_normal((2, *hu.shape), dtype=np.float32), (0, *[unit] * 3))
    edges *= lesions.ragged * unit / edges.std()
    side = int(rng.integers(2))
    picks = rng.random(2)
    if label == "Normal":
        return hu.copy(), np.zeros(hu.shape, dtype=bool)
    sides = (side, side) if label == "CP" else (side, 1 - side)
    grid = np.indices(hu.shape, dtype=np.float32)
    away: Volume = np.full(hu.shape, np.inf, dtype=np.float32)  # from the lesions so far
    added, mask = np.zeros_like(hu), np.zeros(hu.shape, dtype=bool)
    for lung, radius, contrast, edge, pick in zip(
        lungs[list(sides)], radii, contrasts, edges, picks, strict=True
    ):
        depth = distance_transform_edt(lung)
        places = np.argwhere((depth >= 0.6 * min(radius, depth.max())) & (away > radius + 2 * unit))
        if not len(places):  # a small lung: as far from the first lesion as it allows
            places = np.argwhere(lung & (away == away[lung].max()))
        centre = places[int(pick * len(places))].astype(np.float32)
        distance = np.sqrt(((grid - centre[:, None, None, None]) ** 2).sum(0)) - radius
        away = np.minimum(away, distance)
        share = np.clip(0.5 - (distance + edge) / (lesions.edge * unit), 0, 1) * lung
        added = np.maximum(added, contrast * share)
        mask |= share >= 0.5
    return hu + added, mask


def write_phantoms(
    folder: str | Path,
    count: int,
    seed: int = 0,
    *,
    size: int = 32,
    noise: float = 35.0,
    lesions: Lesions = Lesions(),
) -> list[Path]:
    """Write ``ct/CLASS/NUMBER.nii.gz``, and the lesions under ``masks/`` by the same names.

    Args:
        folder: gets ``ct`` and ``masks``; files of the same names are overwritten.
        count: phantoms in all, >= 3; the classes take turns.
        seed: >= 0; the same seed writes the same bytes.
        size: see `make_phantom`.
        noise: see `make_phantom`.
        lesions: what they look like.

    Returns:
        The scans' paths.

    Raises:
        ValueError: an argument is out of range.
    """
    if count < len(CLASSES):
        raise ValueError(f"count must be >= {len(CLASSES)}, one for each class, got {count}")
    written = []
    for number in range(count):
        label = CLASSES[number % len(CLASSES)]
        hu, mask = make_phantom(label, (seed, number), size=size, noise=noise, lesions=lesions)
        name = f"{label}/{number:0{len(str(count - 1))}}.nii.gz"
        _write_cube(Path(folder) / "masks" / name, mask.astype(np.uint8))
        written.append(Path(folder) / "ct" / name)
        _write_cube(written[-1], hu)
    return written


def _chest(rng: np.random.Generator, size: int) -> tuple[Volume, Mask]:
    """Return a body with two lungs full of vessels, float32 HU without noise, and the lungs."""
    axis = (2 * np.arange(size, dtype=np.float32) + 1) / size - 1  # the voxels' centres
    place = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"))[None]
    body = ((place * _vectors([[0, 1 / 0.75, 1 / 0.95]])) ** 2).sum(1)[0] < 1
    centres = np.array([[0, 0, -0.45], [0, 0, 0.45]]) + rng.uniform(-0.05, 0.05, (2, 3))
    radii = np.array([0.85, 0.52, 0.34]) * rng.uniform(0.88, 1.08, (2, 3))
    offset = (place - _vectors(centres)) / _vectors(radii)
    lungs = ((offset**2).sum(1) < 1) & body
    hu = np.where(body, np.float32(TISSUE), np.float32(AIR))
    hu[lungs.any(0)] = LUNG
    of_lung = np.repeat([0, 1], VESSELS)
    hila = centres * [1, 1, 0.55]
    way = rng.standard_normal((2 * VESSELS, 3))  # straight, from the hilum to near the edge
    way *= 0.9 * radii[of_lung] / np.linalg.norm(way, axis=1, keepdims=True)
    start, run = _vectors(hila[of_lung]), _vectors((centres - hila)[of_lung] + way)
    along = np.clip(((place - start) * run).sum(1) / (run**2).sum(1), 0, 1)[:, None]
    distance = np.sqrt(((place - start - along * run) ** 2).sum(1)) * (size / 2)
    shape = (2 * VESSELS, 1, 1, 1)
    share = np.clip(rng.uniform(0.4, 1.0, shape) * size / 32 + 0.5 - distance, 0, 1)
    brighter = share * lungs[of_lung] * (rng.uniform(-300, 30, shape) - LUNG)
    return hu + brighter.max(0).astype(np.float32), lungs


def _vectors(rows: ArrayLike) -> Volume:
    """Return rows (n, 3) as (n, 3, 1, 1, 1), to meet a grid (1, 3, D, H, W)."""
    return np.asarray(rows, dtype=np.float32)[:, :, None, None, None]


def _write_cube(path: Path, array: NDArray[np.generic]) -> None:
    step = WIDTH_MM / array.shape[-1]
    middle = step * (array.shape[-1] - 1) / 2
    affine = np.diag([-step, -step, step, 1.0])  # w runs to the left, h to the back
    affine[:3, 3] = middle, middle, -middle
    write_nifti(path, array.transpose(2, 1, 0), affine)
