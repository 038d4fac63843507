"""What happens to a picture after it was forged: distortions of random strength (section 4).

`Postprocess` draws a strength for each step and says what it did, so that a manifest can record it.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from papercommons.data.distortions import Distortion, check_range

Range = tuple[float, float]


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
            check_range(name, low, high)
        self.steps = dict(steps)

    def __call__(self, photo: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, str]:
        """Return the picture and what was done to it, as ``resize=0.8;jpeg=83``.

        Args:
            photo: uint8, shape (H, W, 3).
            rng: where strengths and noise come from.
        """
        done: list[str] = []
        for name, (low, high) in self.steps.items():
            step = Distortion(name, _draw(name, low, high, rng))
            photo = step(photo, rng)
            done.append(str(step))
        return photo, ";".join(done)


def _draw(name: str, low: float, high: float, rng: np.random.Generator) -> float:
    if name in ("jpeg", "webp"):
        return float(rng.integers(round(low), round(high) + 1))
    if name == "resize":
        return float(f"{np.exp(rng.uniform(np.log(low), np.log(high))):.4g}")
    return float(f"{rng.uniform(low, high):.4g}")
