"""Square crops of faces; what lies beyond the image is its border, repeated."""

from __future__ import annotations

from typing import Any

import numpy as np

from papercommons.faces.detection import check_image


def crop_box(image: np.ndarray, box: np.ndarray, size: int) -> np.ndarray:
    """Return what is in a box as a square picture; smaller is smoothed, larger interpolated.

    Args:
        image: uint8, shape (H, W, 3) or (H, W).
        box: (left, top, right, bottom), see `papercommons.faces.boxes`; `square_box` keeps
            proportions.
        size: side in pixels, >= 1.

    Returns:
        uint8, shape (size, size, 3) or (size, size).

    Raises:
        ValueError: not as described, a box beside the image, or one more than 8 times as large.
    """
    from PIL import Image

    if size < 1:
        raise ValueError(f"size must be >= 1, got {size}")
    region, corner = _cut(image, box)
    left, top, right, bottom = np.asarray(box, np.float64) - np.tile(corner, 2)
    small = region.resize((size, size), Image.Resampling.BILINEAR, (left, top, right, bottom))
    return np.asarray(small)


def _cut(image: np.ndarray, box: np.ndarray) -> tuple[Any, np.ndarray]:
    """Return what is in the box, rounded outwards, as PIL image, and its upper left corner."""
    from PIL import Image

    height, width = check_image(image).shape[:2]
    box = np.asarray(box, np.float64)
    if box.shape != (4,) or not np.isfinite(box).all() or not (box[:2] < box[2:]).all():
        raise ValueError(f"box must be left < right, top < bottom, got {box.tolist()}")
    if (box[:2] >= (width, height)).any() or (box[2:] <= 0).any():
        raise ValueError(f"box {box.tolist()} lies beside the image of {width} x {height}")
    if (box[2:] - box[:2]).max() > 8 * max(width, height):
        raise ValueError(f"box {box.tolist()} is too large for an image of {width} x {height}")
    low, high = np.floor(box[:2]).astype(int), np.ceil(box[2:]).astype(int)
    first, last = np.maximum(low, 0), np.minimum(high, (width, height))
    inside = image[first[1] : last[1], first[0] : last[0]]
    before, after = first - low, high - last
    beyond = [(before[1], after[1]), (before[0], after[0]), (0, 0)][: image.ndim]
    return Image.fromarray(np.pad(inside, beyond, mode="edge")), low
