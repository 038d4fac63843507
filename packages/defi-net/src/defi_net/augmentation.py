"""Random changes of photograph and mask alike, and the square that the network sees (section 3.7).

Photographs are uint8 (H, W, 3), masks bool (H, W). Masks move by nearest neighbour and stay binary,
unless `soft` is asked for: then they are float32 in [0, 1] and move like the official code's.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from papercommons.data.distortions import blur, jpeg, noise, resize

from defi_net.postprocess import resize_mask

Augment = Literal["none", "paper", "robust"]
Fit = Literal["resize", "crop"]

MOST_CUT = 40  # pixels the paper's crop takes away at most
SHORTEST = 16


def augment(
    photo: np.ndarray, mask: np.ndarray, how: Augment, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return a changed photograph and its mask.

    Args:
        photo: uint8, shape (H, W, 3).
        mask: bool, shape (H, W); or float32 in [0, 1], a soft one.
        how: none; `paper`; or `robust`.
        rng: where chance comes from.
    """
    if how == "paper":
        return paper(photo, mask, rng)
    if how == "robust":
        return robust(photo, mask, rng)
    return photo, mask


def paper(
    photo: np.ndarray, mask: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return the official recipe's change (section 3.7): flip, centred crop, rotation.

    Mirrored in half of the cases; cut around the centre to a width and height each in
    [side - 40, side); in 40 % of the cases turned by whole degrees in [-90, 90), black around it.

    Args:
        photo: uint8, shape (H, W, 3).
        mask: bool or float32, shape (H, W).
        rng: where chance comes from.
    """
    if rng.random() < 0.5:
        photo, mask = photo[:, ::-1], mask[:, ::-1]
    height, width = (
        int(rng.integers(max(SHORTEST, side - MOST_CUT), max(side, SHORTEST + 1)))
        for side in photo.shape[:2]
    )
    top, left = (photo.shape[0] - height) // 2, (photo.shape[1] - width) // 2
    photo, mask = (x[top : top + height, left : left + width] for x in (photo, mask))
    if rng.random() < 0.4:
        angle = int(rng.integers(-90, 90))
        photo, mask = _turn(photo, angle), _turn(mask, angle)
    return photo, mask


def _turn(picture: np.ndarray, angle: int) -> np.ndarray:
    from PIL import Image

    if picture.dtype == bool:
        binary = Image.fromarray(picture.astype(np.uint8))
        return np.asarray(binary.rotate(angle, Image.Resampling.NEAREST)).astype(bool)
    turned = np.asarray(Image.fromarray(picture).rotate(angle, Image.Resampling.BICUBIC))
    return turned.clip(0, 1) if picture.ndim == 2 else turned


def robust(
    photo: np.ndarray, mask: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return a change that keeps traces or wears them down as sites do; our choice.

    Mirrored and turned by right angles, which moves no pixel between grid points; then resized
    by 0.5 to 1.5 (30 %), blurred with sigma 0.3 to 1 (10 %), noise of sigma 1 to 5 (10 %), JPEG of
    quality 50 to 100 (50 %).

    Args:
        photo: uint8, shape (H, W, 3).
        mask: bool or float32, shape (H, W).
        rng: where chance comes from.
    """
    if rng.random() < 0.5:
        photo, mask = photo[:, ::-1], mask[:, ::-1]
    turns = int(rng.integers(4))
    photo, mask = np.rot90(photo, turns), np.rot90(mask, turns)
    photo = np.ascontiguousarray(photo)
    resized, blurred, noisy, compressed = rng.random(4) < (0.3, 0.1, 0.1, 0.5)
    if resized:
        photo = resize(photo, rng.uniform(0.5, 1.5))
        mask = fit_mask(mask, photo.shape[:2])
    if blurred:
        photo = blur(photo, rng.uniform(0.3, 1))
    if noisy:
        photo = noise(photo, rng.uniform(1, 5), rng)
    if compressed:
        photo = jpeg(photo, rng.uniform(50, 100))
    return photo, mask


def fit(
    photo: np.ndarray,
    mask: np.ndarray,
    size: int,
    how: Fit = "resize",
    rng: np.random.Generator | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the square that the network sees.

    Args:
        photo: uint8, shape (H, W, 3).
        mask: bool or float32, shape (H, W).
        size: side of the square.
        how: ``resize`` fits the whole picture, bilinear with antialiasing, as the paper does;
            ``crop`` cuts at full resolution, so that no trace is lost (reflected where the picture
            is smaller).
        rng: where the cut lies; half of the cuts of a forged picture are around a forged pixel.
            None: around the middle of what is forged.

    Returns:
        uint8 (size, size, 3) and a mask (size, size) of the dtype given.
    """
    from PIL import Image

    if how == "resize":
        image = Image.fromarray(photo).resize((size, size), Image.Resampling.BILINEAR)
        return np.asarray(image), fit_mask(mask, (size, size))
    missing = [max(0, size - side) for side in photo.shape[:2]]
    if any(missing):
        edges = [(0, missing[0]), (0, missing[1])]
        photo = np.pad(photo, [*edges, (0, 0)], mode="symmetric")
        mask = np.pad(mask, edges, mode="symmetric")
    top, left = _corner(mask, size, rng)
    return photo[top : top + size, left : left + size], mask[top : top + size, left : left + size]


def _corner(mask: np.ndarray, size: int, rng: np.random.Generator | None) -> tuple[int, int]:
    """Return where a cut begins; see `fit`."""
    room = np.array(mask.shape) - size
    forged = np.argwhere(mask > 0.5)
    if rng is None and len(forged):
        corner = np.rint(np.median(forged, axis=0) - size / 2).astype(int)
    elif rng is None:
        corner = room // 2
    elif len(forged) and rng.random() < 0.5:
        corner = forged[rng.integers(len(forged))] - rng.integers(size, size=2)
    else:
        corner = rng.integers(room + 1)
    top, left = np.clip(corner, 0, room)
    return int(top), int(left)


def fit_mask(mask: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return a mask of another size: nearest for a binary one, bilinear for a soft one.

    Args:
        mask: bool, or float32 in [0, 1], shape (H, W).
        shape: height and width wanted.
    """
    from PIL import Image

    if mask.dtype == bool:
        return resize_mask(mask, shape)
    values = np.rint(mask * 255).astype(np.uint8)
    image = Image.fromarray(values).resize((shape[1], shape[0]), Image.Resampling.BILINEAR)
    return np.asarray(image, dtype=np.float32) / 255
