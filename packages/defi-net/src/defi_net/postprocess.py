"""What happens to a picture after it was forged: JPEG, WebP, resizing, blur, noise (section 4).

Functions take and return uint8 pictures (H, W, 3). `Postprocess` draws a strength for each step and
says what it did, so that a manifest can record it.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from papercommons.errors import nearest

Range = tuple[float, float]


def jpeg(photo: np.ndarray, quality: float) -> np.ndarray:
    """Return the picture after JPEG compression.

    Args:
        photo: uint8, shape (H, W, 3).
        quality: of Pillow, 1 to 100; rounded; chroma is halved, as cameras and sites do.
    """
    return _through(photo, "JPEG", quality=round(quality))


def webp(photo: np.ndarray, quality: float) -> np.ndarray:
    """Return the picture after lossy WebP compression.

    Args:
        photo: uint8, shape (H, W, 3).
        quality: of Pillow, 1 to 100; rounded.
    """
    return _through(photo, "WEBP", quality=round(quality))


def _through(photo: np.ndarray, form: str, **options: Any) -> np.ndarray:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(photo).save(file, form, **options)
    with Image.open(file) as image:
        return np.asarray(image.convert("RGB"))


def resize(photo: np.ndarray, factor: float) -> np.ndarray:
    """Return the picture resized, bilinear with antialiasing.

    Args:
        photo: uint8, shape (H, W, 3).
        factor: of both sides, > 0; a side stays >= 16 pixels.
    """
    from PIL import Image

    size = resized_shape(photo.shape[:2], factor)[::-1]
    return np.asarray(Image.fromarray(photo).resize(size, Image.Resampling.BILINEAR))


def resized_shape(shape: tuple[int, ...], factor: float) -> tuple[int, int]:
    """Return height and width after `resize`.

    Args:
        shape: height and width.
        factor: of both.
    """
    return max(16, round(shape[0] * factor)), max(16, round(shape[1] * factor))


def resize_mask(mask: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return a mask resized by nearest neighbour.

    Args:
        mask: bool, shape (H, W).
        shape: height and width wanted.
    """
    from PIL import Image

    if mask.shape == tuple(shape):
        return mask
    image = Image.fromarray(mask.astype(np.uint8)).resize(
        (shape[1], shape[0]), Image.Resampling.NEAREST
    )
    return np.asarray(image).astype(bool)


def blur(photo: np.ndarray, sigma: float) -> np.ndarray:
    """Return the picture after a Gaussian blur.

    Args:
        photo: uint8, shape (H, W, 3).
        sigma: in pixels, >= 0.
    """
    from PIL import Image, ImageFilter

    return np.asarray(Image.fromarray(photo).filter(ImageFilter.GaussianBlur(sigma)))


def noise(photo: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Return the picture with independent Gaussian noise on every channel.

    Args:
        photo: uint8, shape (H, W, 3).
        sigma: in grey levels, >= 0.
        rng: where the noise comes from.
    """
    noisy = photo + rng.normal(0, sigma, photo.shape).astype(np.float32)
    return np.clip(np.rint(noisy), 0, 255).astype(np.uint8)


_LIMITS: Mapping[str, Range] = {
    "resize": (0.1, 10),
    "blur": (0, 20),
    "noise": (0, 100),
    "webp": (1, 100),
    "jpeg": (1, 100),
}
_ALONE: Mapping[str, Callable[[np.ndarray, float], np.ndarray]] = {
    "resize": resize,
    "blur": blur,
    "webp": webp,
    "jpeg": jpeg,
}


class Postprocess:
    """Steps of random strength, in the order given.

    Args:
        steps: name (resize, blur, noise, webp, jpeg) -> least and greatest strength; the same twice
            is no choice. Factors of resize are drawn on a logarithmic scale, qualities are whole.

    Raises:
        ValueError: no such step, or a range that is empty or out of bounds.

    Example:
        >>> photo = np.zeros((32, 32, 3), np.uint8)
        >>> steps = Postprocess({"resize": (0.5, 0.5), "jpeg": (90, 90)})
        >>> steps(photo, np.random.default_rng(0))[1]
        'resize=0.5;jpeg=90'
    """

    def __init__(self, steps: Mapping[str, Range]) -> None:
        for name, (low, high) in steps.items():
            if name not in _LIMITS:
                hint = nearest(name, _LIMITS) or f"; there are {', '.join(_LIMITS)}"
                raise ValueError(f"no post-processing {name!r}{hint}")
            least, most = _LIMITS[name]
            if not least <= low <= high <= most:
                raise ValueError(
                    f"{name} must be a range within {least:g} to {most:g}, got {low:g} to {high:g}"
                )
        self.steps = dict(steps)

    def __call__(self, photo: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, str]:
        """Return the picture and what was done to it, as ``resize=0.8;jpeg=83``.

        Args:
            photo: uint8, shape (H, W, 3).
            rng: where strengths and noise come from.
        """
        done: list[str] = []
        for name, (low, high) in self.steps.items():
            strength = _draw(name, low, high, rng)
            if name == "noise":
                photo = noise(photo, strength, rng)
            else:
                photo = _ALONE[name](photo, strength)
            done.append(f"{name}={strength:g}")
        return photo, ";".join(done)


def _draw(name: str, low: float, high: float, rng: np.random.Generator) -> float:
    if name in ("jpeg", "webp"):
        return float(rng.integers(round(low), round(high) + 1))
    if name == "resize":
        return float(f"{np.exp(rng.uniform(np.log(low), np.log(high))):.4g}")
    return float(f"{rng.uniform(low, high):.4g}")
