"""What recompression, blur, noise and resizing do to a result: which strengths are tried.

Written as ``jpeg=100:50:10`` (from 100 down to 50 in steps of 10, both ends) or ``jpeg=95,70``. The
distortions themselves are those of `defi_net.postprocess`.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from defi_net.postprocess import Postprocess

STANDARD = ("jpeg=100:50:10", "blur=0.5:2:0.5", "noise=2:10:2", "resize=0.5:1.5:0.25")
"""Section 5's strengths: JPEG quality, blur and noise by their sigma, factor of resizing."""

MOST = 100  # strengths of one kind
_HOW = "expected KIND=START:STOP:STEP or KIND=VALUE,VALUE,..., such as jpeg=100:50:10"


class Distortion(NamedTuple):
    """One kind of distortion at one strength.

    Attributes:
        kind: jpeg, webp, blur, noise or resize.
        strength: quality, sigma in pixels, sigma in grey levels, or factor.
    """

    kind: str
    strength: float

    def __str__(self) -> str:
        return f"{self.kind}={self.strength:g}"


def parse_distortions(words: Iterable[str]) -> list[Distortion]:
    """Return the distortions that words name, in their order, each once.

    Args:
        words: each ``KIND=START:STOP:STEP`` or ``KIND=VALUE,VALUE,...``.

    Raises:
        ValueError: a word is not of that form, names no distortion, or leaves its range.

    Example:
        >>> [str(distortion) for distortion in parse_distortions(["jpeg=100:80:10", "blur=1.5"])]
        ['jpeg=100', 'jpeg=90', 'jpeg=80', 'blur=1.5']
    """
    found: dict[Distortion, None] = {}
    for word in words:
        kind, equals, text = word.strip().partition("=")
        if not equals or not kind:
            raise ValueError(f"distortion {word!r}: {_HOW}")
        for strength in _strengths(word, text):
            distortion = Distortion(kind, strength)
            _steps(distortion)
            found[distortion] = None
    return list(found)


def _strengths(word: str, text: str) -> list[float]:
    separator = ":" if ":" in text else ","
    try:
        numbers = [float(part) for part in text.split(separator)]
    except ValueError:
        raise ValueError(f"distortion {word!r}: not numbers; {_HOW}") from None
    if not np.isfinite(numbers).all():
        raise ValueError(f"distortion {word!r}: not finite; {_HOW}")
    if separator == ",":
        return numbers
    if len(numbers) != 3 or numbers[2] <= 0:
        raise ValueError(f"distortion {word!r}: needs three numbers, the step above 0; {_HOW}")
    start, stop, step = numbers
    count = int(abs(stop - start) / step + 1e-9) + 1
    if count > MOST:
        raise ValueError(f"distortion {word!r}: {count} strengths; at most {MOST}, widen the step")
    sign = 1 if stop >= start else -1
    return [float(f"{start + sign * step * turn:.6g}") for turn in range(count)]


def _steps(distortion: Distortion) -> Postprocess:
    kind, strength = distortion
    if kind in ("jpeg", "webp") and strength != round(strength):
        raise ValueError(f"{distortion}: a quality must be a whole number")
    return Postprocess({kind: (strength, strength)})


def distort(
    photo: np.ndarray, distortion: Distortion, *, name: str = "", seed: int = 0
) -> np.ndarray:
    """Return a photograph after a distortion.

    Args:
        photo: uint8, shape (H, W, 3).
        distortion: ``resize`` changes H and W.
        name: of the photograph; noise depends on it and on `seed`, on nothing else.
        seed: of the noise.

    Raises:
        ValueError: there is no such kind, or the strength is out of range.
    """
    rng = np.random.default_rng((seed, zlib.crc32(name.encode("utf-8", "surrogateescape"))))
    return _steps(distortion)(photo, rng)[0]
