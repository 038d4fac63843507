"""Corruption of training pictures (specification 3.7): five kinds of two levels each.

Pictures are uint8, shape (H, W, 3), in RGB. Chance comes from the generator that is given.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from papercommons.data.distortions import jpeg

BLOCK = 8  # pixels of a side
GREY = 128
_RGB_OF_YCBCR = np.array([[1, 0, 1.402], [1, -0.344136, -0.714136], [1, 1.772, 0]], np.float32)
KINDS = ("blocks", "noise", "blur", "pixels", "jpeg")


def corrupt(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the picture corrupted in one of the five ways, each as likely, at one of two levels.

    Blocks {16, 32}; noise of variance {0.001, 0.002}; blur of {7, 9} taps; pixels of {2, 3}; JPEG
    of quality {70, 80, 90}. Those are the values of the paper's code.

    Args:
        image: uint8, shape (H, W, 3).
        rng: where chance comes from.
    """
    kind, level = KINDS[rng.integers(len(KINDS))], int(rng.integers(2))
    if kind == "blocks":
        return grey_blocks(image, (16, 32)[level], rng)
    if kind == "noise":
        return colour_noise(image, (0.001, 0.002)[level], rng)
    if kind == "blur":
        return gaussian_blur(image, (7, 9)[level])
    if kind == "pixels":
        return pixelate(image, (2, 3)[level])
    return jpeg(image, int(rng.choice((70, 80, 90))))


def grey_blocks(image: np.ndarray, blocks: int, rng: np.random.Generator) -> np.ndarray:
    """Return the picture with grey squares of 8 x 8 pixels at random places.

    The paper's code puts ``min(H, W) // 256 * blocks`` of them, that is none in pictures below 256
    pixels; those get as many as their area asks for here.

    Args:
        image: uint8, shape (H, W, 3), sides >= 8.
        blocks: for 256 pixels, >= 1.
        rng: where chance comes from.
    """
    side = min(image.shape[:2])
    count = side // 256 * blocks if side >= 256 else max(1, round((side / 256) ** 2 * blocks))
    tops = rng.integers(0, image.shape[0] - BLOCK + 1, count)
    lefts = rng.integers(0, image.shape[1] - BLOCK + 1, count)
    inside = np.arange(BLOCK)
    changed = image.copy()
    changed[(tops[:, None] + inside)[:, :, None], (lefts[:, None] + inside)[:, None, :]] = GREY
    return changed


def colour_noise(image: np.ndarray, variance: float, rng: np.random.Generator) -> np.ndarray:
    """Return the picture with Gaussian noise in Y, Cb and Cr.

    Args:
        image: uint8, shape (H, W, 3).
        variance: of the noise where values are in [0, 1], >= 0.
        rng: where chance comes from.
    """
    noise = rng.standard_normal(image.shape, np.float32) * np.float32(255 * variance**0.5)
    return _as_bytes(image + noise @ _RGB_OF_YCBCR.T)


def gaussian_blur(image: np.ndarray, kernel: int) -> np.ndarray:
    """Return the picture blurred, with sigma of a sixth of the kernel; mirrored at the border.

    Args:
        image: uint8, shape (H, W, 3), sides > kernel / 2.
        kernel: taps, odd.
    """
    taps = _gaussian(kernel)
    half = kernel // 2
    blurred = np.pad(image, ((half, half), (half, half), (0, 0)), mode="reflect").astype(np.float32)
    for axis in (0, 1):
        windows = np.lib.stride_tricks.sliding_window_view(blurred, kernel, axis)
        blurred = windows @ taps
    return _as_bytes(blurred)


def pixelate(image: np.ndarray, factor: int) -> np.ndarray:
    """Return the picture made smaller and as large again, both bilinear.

    Args:
        image: uint8, shape (H, W, 3).
        factor: of the sides, >= 1.
    """
    from PIL import Image

    height, width = image.shape[:2]
    small = (max(1, width // factor), max(1, height // factor))
    picture = Image.fromarray(image).resize(small, Image.Resampling.BILINEAR)
    return np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR))


@cache
def _gaussian(kernel: int) -> np.ndarray:
    places = np.arange(kernel) - (kernel - 1) / 2
    taps = np.exp(-(places**2) / (2 * (kernel / 6) ** 2))
    return (taps / taps.sum()).astype(np.float32)


def _as_bytes(values: np.ndarray) -> np.ndarray:
    return np.rint(values).clip(0, 255).astype(np.uint8)
