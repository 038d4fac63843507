"""Square crops of faces: plain, or turned and scaled to a template of five landmarks.

What lies beyond the image is its border, repeated.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from papercommons.faces.detection import check_image

# Where the landmarks of `papercommons.faces.boxes.LANDMARKS` lie in a picture of 112 x 112.
TEMPLATE = np.array(
    [
        (38.2946, 51.6963),
        (73.5318, 51.5014),
        (56.0252, 71.7366),
        (41.5493, 92.3655),
        (70.7299, 92.2041),
    ]
)


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

    _check_size(size)
    region, corner = _cut(image, box)
    left, top, right, bottom = np.asarray(box, np.float64) - np.tile(corner, 2)
    small = region.resize((size, size), Image.Resampling.BILINEAR, (left, top, right, bottom))
    return np.asarray(small)


def crop_boxes(images: Iterable[np.ndarray], boxes: np.ndarray, size: int) -> np.ndarray:
    """Return the crop of each frame.

    Args:
        images: T frames; they are taken one by one.
        boxes: float, shape (T, 4), see `crop_box`.
        size: side in pixels, >= 1.

    Returns:
        uint8, shape (T, size, size, 3) or (T, size, size).

    Raises:
        ValueError: see `crop_box`; or the numbers of images and boxes differ, or are 0.
    """
    if not len(boxes):
        raise ValueError("boxes must hold at least one box")
    frames = iter(images)
    crops = [crop_box(image, box, size) for box, image in zip(boxes, frames, strict=False)]
    if len(crops) < len(boxes) or next(frames, None) is not None:
        raise ValueError(f"images must be as many as boxes, {len(boxes)}")
    return np.stack(crops)


def align_face(
    image: np.ndarray, landmarks: np.ndarray, size: int, *, margin: float = 1.3
) -> np.ndarray:
    """Return the face turned, scaled and moved so that its landmarks lie on the template.

    Args:
        image: uint8, shape (H, W, 3) or (H, W).
        landmarks: float, shape (5, 2), see `papercommons.faces.boxes.Face`.
        size: side of the picture in pixels, >= 1.
        margin: how much wider the view is than the template's, >= 1.

    Returns:
        uint8, shape (size, size, 3) or (size, size).

    Raises:
        ValueError: not as described, all landmarks in one place, or a face that lies beside the
            image or is more than 8 times as large.
    """
    _check_size(size)
    if np.shape(landmarks) != (5, 2):
        raise ValueError(f"landmarks must be (5, 2), got {np.shape(landmarks)}")
    return warp(image, similarity(landmarks, face_template(size, margin)), size)


def face_template(size: int, margin: float = 1.3) -> np.ndarray:
    """Return where the landmarks lie in a picture of `size`, with a margin about `TEMPLATE`.

    The template is scaled to the size, moved by half of ``size * (margin - 1)``, and shrunk by
    ``1 / margin``.

    Args:
        size: side in pixels.
        margin: >= 1.

    Returns:
        float64, shape (5, 2), x and y.

    Raises:
        ValueError: margin below 1.
    """
    if not margin >= 1:
        raise ValueError(f"margin must be >= 1, got {margin}")
    return (TEMPLATE * (size / 112) + size * (margin - 1) / 2) / margin


def similarity(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return the rotation, scale and shift that bring `source` closest to `target`.

    Least squares; a point is a complex number z here, and the map a z + b.

    Args:
        source: points, float, shape (N, 2).
        target: points, float, shape (N, 2).

    Returns:
        float64, shape (2, 3): ``target ~ matrix @ (x, y, 1)``.

    Raises:
        ValueError: shapes differ, values are not finite, or all points of `source` are one.
    """
    source, target = np.asarray(source, np.float64), np.asarray(target, np.float64)
    if source.shape != target.shape or source.ndim != 2 or source.shape[1:] != (2,):
        raise ValueError(f"points must be (N, 2) both, got {source.shape} and {target.shape}")
    z, w = (points[:, 0] + 1j * points[:, 1] for points in (source, target))
    spread = np.abs(z - z.mean()) ** 2
    if not (np.isfinite(z).all() and np.isfinite(w).all() and spread.sum() > 0):
        raise ValueError("points must be finite and not all in one place")
    a = np.vdot(z - z.mean(), w - w.mean()) / spread.sum()
    b = w.mean() - a * z.mean()
    return np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]])


def warp(image: np.ndarray, matrix: np.ndarray, size: int) -> np.ndarray:
    """Return a square picture of the image under a similarity; bilinear, first made smaller.

    Args:
        image: uint8, shape (H, W, 3) or (H, W).
        matrix: from the image to the picture, see `similarity`; pixel centres are whole numbers.
        size: side in pixels.

    Returns:
        uint8, shape (size, size, 3) or (size, size).

    Raises:
        ValueError: not as described, or the picture would show nothing of the image, or more than
            8 times its size.
    """
    from PIL import Image

    scale, turn = np.abs(np.linalg.det(matrix[:, :2])) ** 0.5, np.linalg.inv(matrix[:, :2])
    # pixel edges from here on: centres are at halves
    shift = turn @ (-0.5 - matrix[:, 2]) + 0.5
    corners = np.array([(0, 0), (size, 0), (0, size), (size, size)]) @ turn.T + shift
    margin = 1 + 1 / scale
    bounds = np.concatenate([corners.min(0) - margin, corners.max(0) + margin])
    region, corner = _cut(image, bounds)
    factor = max(1, int(1 / scale))
    region = region.reduce(factor)
    shift = (shift - corner) / factor
    turn = turn / factor
    coefficients = (*turn[0], shift[0], *turn[1], shift[1])
    return np.asarray(
        region.transform(
            (size, size), Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR
        )
    )


def _check_size(size: int) -> None:
    if size < 1:
        raise ValueError(f"size must be >= 1, got {size}")


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
