"""Histograms of oriented gradients of word images (Dalal and Triggs 2005), by scikit-image."""

from __future__ import annotations

import numpy as np

SIDE = 64


def hog_features(images: np.ndarray) -> np.ndarray:
    """Return HOG: cells of 8 x 8 pixels, blocks of 2 x 2 cells, 9 orientations, L2-Hys.

    Args:
        images: uint8, shape (N, 64, 64).

    Returns:
        float32, shape (N, 1764), values in [0, 1].

    Raises:
        ValueError: not a uint8 (N, 64, 64).
    """
    from skimage.feature import hog

    images = np.asarray(images)
    if images.dtype != np.uint8 or images.ndim != 3 or images.shape[1:] != (SIDE, SIDE):
        raise ValueError(f"images must be uint8 (N, 64, 64), got {images.dtype} {images.shape}")
    features = np.empty((len(images), 1764), np.float32)
    for row, image in zip(features, images, strict=True):
        row[:] = hog(image, 9, pixels_per_cell=(8, 8), cells_per_block=(2, 2), block_norm="L2-Hys")
    return features
