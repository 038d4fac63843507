"""Shapes to inpaint: strokes, boxes, blobs, and masks from files (section 4); needs no torch.

All but the files' are unrelated to what the picture shows: a localizer trained on object masks
alone learns to find objects. Sizes in pixels are those at 256 x 256 and grow with the picture.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from papercommons.data.images import find_images
from papercommons.errors import DataError

from defi_net.postprocess import resize_mask
from defi_net.reading import read_mask

Mask = Literal["freeform", "box", "blob", "thin", "medium", "thick", "file"]
Area = tuple[float, float]

ATTEMPTS = 60
_FULL = 256  # side for which sizes in pixels are given


@dataclass(frozen=True)
class Strokes:
    """How strokes are drawn.

    Attributes:
        count: fewest and most strokes.
        vertices: fewest and most corners of each.
        width: of the brush in pixels at 256, least and greatest.
        length: mean of a step, as a share of the picture's diagonal.
    """

    count: tuple[int, int]
    vertices: tuple[int, int]
    width: tuple[float, float]
    length: float


FREEFORM = Strokes((1, 4), (4, 12), (12, 40), 1 / 8)  # DeepFill v2's, from memory
PRESETS: Mapping[str, Strokes] = {  # after LaMa's three presets; the numbers are ours
    "thin": Strokes((4, 12), (2, 5), (2, 8), 1 / 8),
    "medium": Strokes((2, 5), (2, 5), (10, 24), 1 / 8),
    "thick": Strokes((1, 3), (1, 3), (32, 72), 1 / 6),
}


def draw_mask(
    kind: Mask, shape: tuple[int, int], rng: np.random.Generator, *, area: Area = (0.02, 0.4)
) -> np.ndarray:
    """Return a random mask whose area is within bounds.

    Args:
        kind: freeform (strokes as in DeepFill v2), box, blob (up to three ellipses with a wavy
            edge), thin, medium or thick strokes; not ``file``, see `MaskFiles`.
        shape: height and width, >= 16.
        rng: where chance comes from.
        area: least and greatest share of the picture, 0 < least < greatest < 1.

    Returns:
        bool, shape (H, W), True where to inpaint.

    Raises:
        ValueError: bounds out of order, or no such kind.

    Example:
        >>> mask = draw_mask("box", (64, 64), np.random.default_rng(0))
        >>> bool(0.02 <= mask.mean() <= 0.4)
        True
    """
    check_area(area)
    draw = _drawer(kind)
    mask, scale = np.zeros(shape, dtype=bool), 1.0
    for _ in range(ATTEMPTS):
        drawn = mask | draw(shape, rng, scale)
        if drawn.mean() > area[1]:
            mask, scale = np.zeros(shape, dtype=bool), 0.85 * scale
            continue
        mask = drawn
        if mask.mean() >= area[0]:
            return mask
    return _exact_box(shape, rng, math.sqrt(area[0] * area[1]))


def check_area(area: Area) -> None:
    """Check the bounds of a mask's area.

    Raises:
        ValueError: not 0 < least < greatest < 1.
    """
    if not 0 < area[0] < area[1] < 1:
        raise ValueError(f"area must be 0 < least < greatest < 1, got {area[0]:g} and {area[1]:g}")


_Draw = Callable[[tuple[int, int], np.random.Generator, float], np.ndarray]


def _drawer(kind: str) -> _Draw:
    if kind == "box":
        return _box
    if kind == "blob":
        return _blobs
    if kind == "freeform" or kind in PRESETS:
        how = PRESETS.get(kind, FREEFORM)
        return lambda shape, rng, scale: _strokes(how, shape, rng, scale)
    raise ValueError(f"no mask {kind!r}; there are freeform, box, blob, {', '.join(PRESETS)}, file")


def _strokes(
    how: Strokes, shape: tuple[int, int], rng: np.random.Generator, scale: float
) -> np.ndarray:
    """Draw strokes; they turn by 2 pi / 5 or so, left and right, around a heading."""
    from PIL import Image, ImageDraw

    height, width = shape
    image = Image.new("1", (width, height))
    draw = ImageDraw.Draw(image)
    grow = scale * min(shape) / _FULL
    step = how.length * math.hypot(height, width) * scale
    for _ in range(rng.integers(how.count[0], how.count[1] + 1)):
        brush = max(1.0, rng.uniform(*how.width) * grow)
        points = [rng.uniform((0, 0), (width, height))]
        heading = rng.uniform(0, 2 * math.pi)
        for number in range(rng.integers(how.vertices[0], how.vertices[1] + 1)):
            turn = rng.uniform(
                2 * math.pi / 5 - 2 * math.pi / 15, 2 * math.pi / 5 + 2 * math.pi / 15
            )
            angle = heading + (turn if number % 2 else -turn)
            length = np.clip(rng.normal(step, step / 2), 0, 2 * step)
            point = points[-1] + length * np.array([math.sin(angle), math.cos(angle)])
            points.append(np.clip(point, 0, (width, height)))
        draw.line([tuple(p) for p in points], fill=1, width=round(brush), joint="curve")
        for x, y in (points[0], points[-1]):
            draw.ellipse((x - brush / 2, y - brush / 2, x + brush / 2, y + brush / 2), fill=1)
    return np.asarray(image)


def _box(shape: tuple[int, int], rng: np.random.Generator, scale: float) -> np.ndarray:
    sides = [max(1, round(side * rng.uniform(0.12, 0.7) * scale)) for side in shape]
    return _placed_box(shape, rng, sides)


def _placed_box(
    shape: tuple[int, int], rng: np.random.Generator, sides: Sequence[int]
) -> np.ndarray:
    top, left = (
        int(rng.integers(0, whole - side + 1)) for whole, side in zip(shape, sides, strict=True)
    )
    mask = np.zeros(shape, dtype=bool)
    mask[top : top + sides[0], left : left + sides[1]] = True
    return mask


def _exact_box(shape: tuple[int, int], rng: np.random.Generator, share: float) -> np.ndarray:
    return _placed_box(shape, rng, [max(1, round(side * math.sqrt(share))) for side in shape])


def _blobs(shape: tuple[int, int], rng: np.random.Generator, scale: float) -> np.ndarray:
    """Draw one to three ellipses whose radius waves with the angle."""
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    mask = np.zeros(shape, dtype=bool)
    for _ in range(rng.integers(1, 4)):
        centre = rng.uniform((0.1, 0.1), (0.9, 0.9)) * shape
        radii = rng.uniform(0.08, 0.3, 2) * min(shape) * scale
        tilt = rng.uniform(0, math.pi)
        down, right = y - centre[0], x - centre[1]
        u = (right * math.cos(tilt) + down * math.sin(tilt)) / radii[0]
        v = (down * math.cos(tilt) - right * math.sin(tilt)) / radii[1]
        angle = np.arctan2(v, u)
        wave = sum(
            rng.uniform(0, 0.25 / k) * np.cos(k * angle + rng.uniform(0, 2 * math.pi))
            for k in range(2, 6)
        )
        mask |= np.hypot(u, v) <= 1 + wave
    return mask


class MaskFiles:
    """Masks from files, for objects of the photographs or any others.

    Args:
        folder: of masks; one with the stem of a photograph (or that and ``_mask``) is meant for it.

    Raises:
        DataError: no images in it.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.paths = find_images([self.folder])
        self._of = {path.stem.removesuffix("_mask"): path for path in self.paths}

    def meant_for(self, photo: Path) -> Path | None:
        """Return the mask that is meant for a photograph, if there is one."""
        return self._of.get(photo.stem)

    def draw(
        self,
        shape: tuple[int, int],
        rng: np.random.Generator,
        *,
        area: Area = (0.02, 0.4),
        photo: Path | None = None,
    ) -> np.ndarray:
        """Return the mask meant for a photograph, or else any one, mirrored by chance.

        Args:
            shape: height and width wanted; the mask is fitted to them by nearest neighbour.
            rng: where chance comes from.
            area: least and greatest share of the picture.
            photo: file of the photograph, if all of it is used; None takes any mask.

        Returns:
            bool, shape (H, W).

        Raises:
            DataError: unreadable, or no mask has an area within the bounds.
        """
        own = self.meant_for(photo) if photo else None
        if own is not None:
            mask = resize_mask(read_mask(own).mask, shape)
            if not area[0] <= mask.mean() <= area[1]:
                raise DataError(
                    f"{own}: marks {mask.mean():.1%} of the picture; expected {area[0]:.1%} to "
                    f"{area[1]:.1%}; change --area, or leave it out"
                )
            return mask
        for _ in range(ATTEMPTS):
            path = self.paths[rng.integers(len(self.paths))]
            mask = resize_mask(read_mask(path).mask, shape)
            if rng.random() < 0.5:
                mask = mask[:, ::-1]
            if area[0] <= mask.mean() <= area[1]:
                return np.ascontiguousarray(mask)
        raise DataError(
            f"{self.folder}: none of {ATTEMPTS} masks drawn from it marks {area[0]:.1%} to "
            f"{area[1]:.1%} of the picture; change --area"
        )
