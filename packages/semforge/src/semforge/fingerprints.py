"""Traces that generators leave, the camera that takes all pictures alike, and lists of families.

Pictures are uint8, shape (H, W, 3), in RGB.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from papercommons.data.distortions import jpeg

from semforge.augmentation import gaussian_blur

TRAIN_FAMILIES = ("half", "checker", "sharpen", "levels", "median")
UNSEEN_FAMILIES = ("nearest", "colour")
FAMILIES = (*TRAIN_FAMILIES, *UNSEEN_FAMILIES)


def fingerprint(image: np.ndarray, family: str, rng: np.random.Generator) -> np.ndarray:
    """Return the picture with the trace of a family of generators.

    ``half``: half resolution and back, bilinear; ``checker``: a chequered pattern of pixels, as
    transposed convolutions leave it; ``sharpen``: halos; ``levels``: few levels of each colour;
    ``median``: of 3 x 3 pixels; ``nearest``: half resolution and back without interpolation;
    ``colour``: another tint.

    Args:
        image: uint8, shape (H, W, 3).
        family: one of `FAMILIES`.
        rng: where chance comes from.

    Raises:
        ValueError: another family.
    """
    from PIL import Image, ImageFilter

    height, width = image.shape[:2]
    picture = Image.fromarray(image)
    if family in ("half", "nearest"):
        way: Any = Image.Resampling.BILINEAR if family == "half" else Image.Resampling.NEAREST
        small = picture.resize((max(1, width // 2), max(1, height // 2)), way)
        return np.asarray(small.resize((width, height), way))
    if family == "median":
        return np.asarray(picture.filter(ImageFilter.MedianFilter(3)))
    values = image.astype(np.float64)
    if family == "checker":
        signs = 1 - 2 * (np.indices((height, width)).sum(0) % 2)
        values += (signs * rng.uniform(5, 9))[..., None]
    elif family == "sharpen":
        values += rng.uniform(0.8, 1.4) * (values - gaussian_blur(image, 5))
    elif family == "levels":
        step = 256 / rng.integers(12, 21)
        values = (np.floor(values / step) + 0.5) * step
    elif family == "colour":
        values += rng.uniform(14, 26, 3) * rng.choice((-1, 1), 3)
    else:
        raise ValueError(f"family must be one of {', '.join(FAMILIES)}, got {family!r}")
    return np.rint(values).clip(0, 255).astype(np.uint8)


def camera(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the picture as one and the same camera takes it, real or forged.

    Brightness and contrast, noise, and JPEG of quality 70 to 95: so none of these tells real
    pictures from forged ones.

    Args:
        image: uint8, shape (H, W, 3).
        rng: where chance comes from.
    """
    values = (image - 128.0) * rng.uniform(0.9, 1.1) + 128 + rng.uniform(-12, 12)
    values += rng.normal(0, rng.uniform(0.5, 3), image.shape)
    taken = np.rint(values).clip(0, 255).astype(np.uint8)
    return jpeg(taken, int(rng.integers(70, 96)))
