"""Where the parts of a face lie in a square crop, as soft ellipses.

Measured on crops of the LBP detector's box, widened by 1.3; shares of the crop's side.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

# region -> ellipses: centre x, centre y, radius x, radius y
ELLIPSES: dict[str, tuple[tuple[float, float, float, float], ...]] = {
    "eye": ((0.35, 0.405, 0.09, 0.045), (0.65, 0.405, 0.09, 0.045)),
    "eyebrow": ((0.34, 0.335, 0.11, 0.035), (0.66, 0.335, 0.11, 0.035)),
    "lip": ((0.5, 0.725, 0.15, 0.075),),
    "mouth": ((0.5, 0.725, 0.085, 0.035),),
    "nose": ((0.5, 0.53, 0.085, 0.1),),
    "skin": (
        (0.5, 0.235, 0.15, 0.065),
        (0.345, 0.56, 0.06, 0.085),
        (0.655, 0.56, 0.06, 0.085),
        (0.5, 0.845, 0.1, 0.035),
    ),
}
REGIONS = tuple(ELLIPSES)
SOFTNESS = 0.35  # of a radius, to both sides of the outline


def region_mask(region: str, size: int) -> np.ndarray:
    """Return the soft mask of one region; the lips lie around the mouth, without it.

    Args:
        region: one of `REGIONS`.
        size: side of the crop in pixels.

    Returns:
        float32 in [0, 1], shape (size, size).
    """
    mask = np.max([_ellipse(ellipse, size) for ellipse in ELLIPSES[region]], axis=0)
    if region == "lip":
        mask = mask * (1 - np.max([_ellipse(e, size) for e in ELLIPSES["mouth"]], axis=0))
    return mask.astype(np.float32)


def union(regions: Iterable[str], size: int) -> np.ndarray:
    """Return the soft mask of several regions, see `region_mask`.

    Args:
        regions: at least one.
        size: side of the crop in pixels.
    """
    mask: np.ndarray = np.max([region_mask(region, size) for region in regions], axis=0)
    return mask


def _ellipse(ellipse: tuple[float, float, float, float], size: int) -> np.ndarray:
    x, y, across, down = ellipse
    places = (np.arange(size) + 0.5) / size
    distance = np.hypot((places[None] - x) / across, (places[:, None] - y) / down)
    t = np.clip((1 + SOFTNESS - distance) / (2 * SOFTNESS), 0, 1)
    return t * t * (3 - 2 * t)
