"""JPEG, resizing, blur and noise for robustness curves: what is done to faces before judging.

They act on a face at the network's size.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from semforge.corruption import jpeg

STANDARD = {
    "jpeg": (90.0, 70.0, 50.0, 30.0),
    "resize": (0.75, 0.5, 0.35, 0.25),
    "blur": (0.5, 1.0, 2.0, 3.0),
    "noise": (2.0, 5.0, 10.0, 20.0),
}
"""Strengths of a curve: JPEG quality, factor (and back), sigma in pixels, sigma in grey levels."""

_RANGES = {"jpeg": (1, 100), "resize": (0.05, 1), "blur": (0.1, 20), "noise": (0.1, 100)}


@dataclass(frozen=True)
class Perturbation:
    """One kind at one strength.

    Attributes:
        kind: jpeg, resize, blur or noise.
        strength: see `STANDARD`.
    """

    kind: str
    strength: float

    def __str__(self) -> str:
        return f"{self.kind}{self.strength:g}"

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return a face after it.

        Args:
            image: RGB, uint8, shape (S, S, 3).
            rng: of the noise.
        """
        if self.kind == "jpeg":
            return jpeg(image, int(self.strength))
        if self.kind == "noise":
            noisy = image + rng.normal(0, self.strength, image.shape)
            return noisy.round().clip(0, 255).astype(np.uint8)
        picture = Image.fromarray(image)
        if self.kind == "blur":
            return np.asarray(picture.filter(ImageFilter.GaussianBlur(self.strength)))
        small = [max(1, round(side * self.strength)) for side in picture.size]
        way = Image.Resampling.BILINEAR
        return np.asarray(picture.resize(small, way).resize(picture.size, way))


def parse_perturbations(words: Iterable[str]) -> list[Perturbation]:
    """Return the perturbations that words name, in their order, each once.

    Args:
        words: a kind, which means the strengths of `STANDARD`; a kind with its strength, such as
            ``jpeg70``; or ``all``.

    Raises:
        ValueError: another word, or a strength out of range.

    Example:
        >>> [str(each) for each in parse_perturbations(["jpeg70", "blur"])]
        ['jpeg70', 'blur0.5', 'blur1', 'blur2', 'blur3']
    """
    found: dict[Perturbation, None] = {}
    for word in words:
        if word == "all":
            found |= dict.fromkeys(parse_perturbations(STANDARD))
            continue
        parts = re.fullmatch(r"([a-z]+?)(\d+(?:\.\d+)?)?", word.strip())
        if parts is None or parts[1] not in STANDARD:
            raise ValueError(
                f"--perturb {word!r}: expected {', '.join(STANDARD)} or all, or one with its "
                "strength, such as jpeg70 or resize0.5"
            )
        kind, number = parts[1], parts[2]
        for strength in STANDARD[kind] if number is None else (float(number),):
            low, high = _RANGES[kind]
            if not low <= strength <= high or (kind == "jpeg" and strength % 1):
                whole = "a whole number " if kind == "jpeg" else ""
                raise ValueError(
                    f"--perturb {word}: the strength of {kind} must be {whole}in [{low}, {high}]"
                )
            found[Perturbation(kind, strength)] = None
    return list(found)
