"""What recompression, resizing, blur and noise do to a picture, and words that name strengths.

Functions take and return uint8 pictures (H, W, 3).
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from papercommons.errors import nearest

MOST = 100  # strengths of one kind
SHORTEST = 16  # pixels that a resized side keeps
_HOW = "expected KIND=START:STOP:STEP or KIND=VALUE,VALUE,..., such as jpeg=100:50:10"


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
    return _resized(photo, resized_shape(photo.shape[:2], factor))


def _resized(photo: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    from PIL import Image

    way = Image.Resampling.BILINEAR
    return np.asarray(Image.fromarray(photo).resize((shape[1], shape[0]), way))


def resized_shape(shape: tuple[int, ...], factor: float) -> tuple[int, int]:
    """Return height and width after `resize`.

    Args:
        shape: height and width.
        factor: of both.
    """
    return max(SHORTEST, round(shape[0] * factor)), max(SHORTEST, round(shape[1] * factor))


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


LIMITS: Mapping[str, tuple[float, float]] = {
    "resize": (0.05, 10),
    "blur": (0, 20),
    "noise": (0, 100),
    "webp": (1, 100),
    "jpeg": (1, 100),
}
"""Least and greatest strength: factor, sigma in pixels, sigma in grey levels, qualities."""

_ALONE: Mapping[str, Callable[[np.ndarray, float], np.ndarray]] = {
    "resize": resize,
    "blur": blur,
    "webp": webp,
    "jpeg": jpeg,
}


class Distortion(NamedTuple):
    """One kind of distortion at one strength.

    Attributes:
        kind: resize, blur, noise, webp or jpeg.
        strength: see `LIMITS`.
    """

    kind: str
    strength: float

    def __str__(self) -> str:
        return f"{self.kind}={self.strength:g}"

    def __call__(self, photo: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return the picture after it; ``resize`` changes height and width.

        Args:
            photo: uint8, shape (H, W, 3).
            rng: of the noise.
        """
        if self.kind == "noise":
            return noise(photo, self.strength, rng)
        return _ALONE[self.kind](photo, self.strength)

    def check(self) -> None:
        """Raise ValueError if there is no such kind, or not at that strength."""
        check_range(self.kind, self.strength, self.strength)
        if self.kind in ("jpeg", "webp") and self.strength != round(self.strength):
            raise ValueError(f"{self}: a quality must be a whole number")


@dataclass(frozen=True)
class AtSameSize:
    """A distortion after which a picture has its height and width again.

    Attributes:
        distortion: what is done.
    """

    distortion: Distortion

    def __str__(self) -> str:
        return str(self.distortion)

    def __call__(self, photo: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return the picture after it.

        Args:
            photo: uint8, shape (H, W, 3).
            rng: of the noise.
        """
        changed = self.distortion(photo, rng)
        return changed if changed.shape == photo.shape else _resized(changed, photo.shape[:2])


def check_range(kind: str, low: float, high: float) -> None:
    """Raise ValueError unless there is such a distortion, and a range of its strengths.

    Args:
        kind: one of `LIMITS`.
        low: least strength.
        high: greatest.
    """
    if kind not in LIMITS:
        hint = nearest(kind, LIMITS) or f"; there are {', '.join(LIMITS)}"
        raise ValueError(f"no distortion {kind!r}{hint}")
    least, most = LIMITS[kind]
    if not least <= low <= high <= most:
        found = f"{low:g}" if low == high else f"{low:g} to {high:g}"
        raise ValueError(f"{kind} must be within {least:g} to {most:g}, got {found}")


def distort(
    photo: np.ndarray, distortion: Distortion, *, name: str = "", seed: int = 0
) -> np.ndarray:
    """Return a photograph after a distortion whose noise is the photograph's own.

    Args:
        photo: uint8, shape (H, W, 3).
        distortion: what is done.
        name: of the photograph; noise depends on it and on `seed`, on nothing else.
        seed: of the noise.
    """
    rng = np.random.default_rng((seed, zlib.crc32(name.encode("utf-8", "surrogateescape"))))
    return distortion(photo, rng)


def parse_distortions(
    words: Iterable[str], standard: Mapping[str, Sequence[float]]
) -> list[Distortion]:
    """Return the distortions that words name, in their order, each once.

    Args:
        words: what stood between commas: ``KIND=START:STOP:STEP`` (both ends), ``KIND=VALUE`` and
            further values, ``KIND`` for its standard strengths, or ``standard`` for all of those.
        standard: kind -> its standard strengths.

    Raises:
        ValueError: a word is not of that form, names no distortion, or leaves its range.

    Example:
        >>> words = ["jpeg=100:80:10", "blur=1.5", "2", "noise"]
        >>> [str(each) for each in parse_distortions(words, {"noise": (5, 10)})]
        ['jpeg=100', 'jpeg=90', 'jpeg=80', 'blur=1.5', 'blur=2', 'noise=5', 'noise=10']
    """
    found: dict[Distortion, None] = {}
    kind = ""
    for word in words:
        name, equals, text = word.strip().partition("=")
        if not equals and (name == "standard" or name in standard):
            for each in standard if name == "standard" else (name,):
                found |= dict.fromkeys(Distortion(each, float(s)) for s in standard[each])
            kind = ""
            continue
        if equals:
            kind = name
        if not kind:
            raise ValueError(f"distortion {word!r}: {_HOW}")
        for strength in _strengths(word, text if equals else name):
            distortion = Distortion(kind, strength)
            distortion.check()
            found[distortion] = None
    return list(found)


def _strengths(word: str, text: str) -> list[float]:
    try:
        numbers = [float(part) for part in text.split(":")]
    except ValueError:
        raise ValueError(f"distortion {word!r}: not numbers; {_HOW}") from None
    if not np.isfinite(numbers).all():
        raise ValueError(f"distortion {word!r}: not finite; {_HOW}")
    if len(numbers) == 1:
        return numbers
    if len(numbers) != 3 or numbers[2] <= 0:
        raise ValueError(f"distortion {word!r}: needs three numbers, the step above 0; {_HOW}")
    start, stop, step = numbers
    count = int(abs(stop - start) / step + 1e-9) + 1
    if count > MOST:
        raise ValueError(f"distortion {word!r}: {count} strengths; at most {MOST}, widen the step")
    sign = 1 if stop >= start else -1
    return [float(f"{start + sign * step * turn:.6g}") for turn in range(count)]
