"""How well a heat map finds lesions: scores against a mask, and the maps that know nothing.

A score is only readable beside those of `random_map` and `centre_of_lung_map`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from papercommons.metrics.roc import binary_auc

SCORES = ("pointing", "top_k_iou", "energy_inside", "average_precision")


def pointing_game(heat: ArrayLike, lesion: ArrayLike) -> float:
    """Return 1 if the map's maximum lies in a lesion, else 0 (Zhang et al. 2018).

    Of several equal maxima it is the share inside, so that a flat map earns no luck.

    Args:
        heat: the map, finite numbers, any shape.
        lesion: the mask, bool, the same shape.

    Returns:
        In [0, 1]; NaN without a lesion.

    Raises:
        ValueError: the shapes differ, or the map is not finite.
    """
    heat, lesion = _checked(heat, lesion)
    return float(lesion[heat == heat.max()].mean()) if lesion.any() else np.nan


def top_k_iou(heat: ArrayLike, lesion: ArrayLike) -> float:
    """Return the IoU of the lesion with the k highest voxels, k = voxels of the lesion.

    Voxels equal to the k-th count in proportion: the result does not depend on their order.

    Args:
        heat: the map, finite numbers, any shape.
        lesion: the mask, bool, the same shape.

    Returns:
        In [0, 1]; NaN without a lesion.

    Raises:
        ValueError: the shapes differ, or the map is not finite.
    """
    heat, lesion = _checked(heat, lesion)
    k = int(lesion.sum())
    if k == 0:
        return np.nan
    kth = np.partition(heat, -k)[-k]
    above, level = heat > kth, heat == kth
    common = lesion[above].sum() + (k - above.sum()) * lesion[level].mean()
    return float(common / (2 * k - common))


def energy_inside(heat: ArrayLike, lesion: ArrayLike) -> float:
    """Return the share of the map's sum that lies in a lesion (Wang et al. 2020, Score-CAM).

    Args:
        heat: the map, finite numbers >= 0, any shape.
        lesion: the mask, bool, the same shape.

    Returns:
        In [0, 1]; NaN without a lesion, or for a map of zeros.

    Raises:
        ValueError: the shapes differ, or the map is not finite or below 0 somewhere.
    """
    heat, lesion = _checked(heat, lesion)
    if heat.min() < 0:
        raise ValueError(f"the map must be >= 0, its minimum is {heat.min():.4g}")
    total = heat.sum()
    return float(heat[lesion].sum() / total) if lesion.any() and total > 0 else np.nan


def voxel_average_precision(heat: ArrayLike, lesion: ArrayLike) -> float:
    """Return the average precision of the map as a classifier of voxels.

    Args:
        heat: the map, finite numbers, any shape.
        lesion: the mask, bool, the same shape.

    Returns:
        In [0, 1], the lesion's share of the volume for a flat map; NaN without a lesion.

    Raises:
        ValueError: the shapes differ, or the map is not finite.
    """
    from sklearn.metrics import average_precision_score

    heat, lesion = _checked(heat, lesion)
    return float(average_precision_score(lesion, heat)) if lesion.any() else np.nan


def localization(heat: ArrayLike, lesion: ArrayLike) -> dict[str, float]:
    """Return all four scores by name, in the order of `SCORES`.

    Args:
        heat: the map, finite numbers >= 0, any shape.
        lesion: the mask, bool, the same shape.

    Raises:
        ValueError: see `energy_inside`.

    Example:
        >>> localization([0.0, 0.2, 0.8], [False, False, True])
        {'pointing': 1.0, 'top_k_iou': 1.0, 'energy_inside': 0.8, 'average_precision': 1.0}
    """
    functions = (pointing_game, top_k_iou, energy_inside, voxel_average_precision)
    return {name: score(heat, lesion) for name, score in zip(SCORES, functions, strict=True)}


def slice_auc(heat: ArrayLike, infected: ArrayLike) -> float:
    """Return the AUC of the map's mean per slice for infected slices.

    Args:
        heat: the map, finite numbers, shape (D, H, W).
        infected: whether a radiologist called each slice infected, bool, shape (D,).

    Returns:
        In [0, 1]; NaN where all slices are called alike, or the map does not change along them.

    Raises:
        ValueError: the shapes do not agree.
    """
    heat, infected = np.asarray(heat), np.asarray(infected, dtype=bool)
    if heat.ndim != 3 or infected.shape != heat.shape[:1]:
        raise ValueError(
            f"the map must be (D, H, W) and infected (D,), got {heat.shape} and {infected.shape}"
        )
    means = heat.mean((1, 2))
    if np.ptp(means) <= 1e-6 * np.abs(means).max():
        return np.nan
    return binary_auc(means, infected)


def random_map(shape: tuple[int, ...], seed: int) -> NDArray[np.float32]:
    """Return independent uniform values in [0, 1), float32: the lowest bar.

    Args:
        shape: of the map.
        seed: >= 0.
    """
    return np.random.default_rng(seed).random(shape, dtype=np.float32)


def centre_of_lung_map(
    lung: ArrayLike, spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)
) -> NDArray[np.float32]:
    """Return the depth of each voxel in the lung: a prior that has seen no lesion.

    Args:
        lung: the mask, bool, shape (D, H, W).
        spacing: mm per voxel, (D, H, W).

    Returns:
        Distance to the nearest voxel that is no lung over the largest one, float32, in [0, 1].
    """
    from scipy.ndimage import distance_transform_edt

    padded = np.pad(np.asarray(lung, dtype=bool), 1)  # beyond the scan there is no lung
    depth: Any = distance_transform_edt(padded, spacing)
    return (depth / max(depth.max(), 1e-9))[1:-1, 1:-1, 1:-1].astype(np.float32)


def _checked(heat: ArrayLike, lesion: ArrayLike) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Return both flat, the map in float64."""
    values, mask = np.asarray(heat, dtype=np.float64), np.asarray(lesion, dtype=bool)
    if values.shape != mask.shape:
        raise ValueError(f"map and mask must have one shape, got {values.shape} and {mask.shape}")
    if not np.isfinite(values).all():
        raise ValueError("the map has values that are not finite")
    return values.ravel(), mask.ravel()
