"""What a picture of a scene shows, read without a model: the judge of edited and made pictures."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from itertools import product
from typing import NamedTuple

import numpy as np

from papercommons.data.scene_parts import (
    BACKGROUND,
    UNIT,
    Preset,
    darkened,
    shape_mask,
    texture_pattern,
)
from papercommons.data.scenes import Fact, Scene, Thing

LEAST_IOU = 0.35  # below it no shape is there


class _Templates(NamedTuple):
    """Shapes at known places: words (T,) and masks, float32 of 0 and 1, (T, H * W)."""

    shapes: tuple[str, ...]
    masks: np.ndarray


def read_scene(image: np.ndarray, scene: Scene, *, search: bool = False) -> tuple[Fact, ...]:
    """Return the facts that a picture shows, in the form and order of `Scene.facts`.

    Background: majority of the border's nearest colours. Shape: at each place, among the pixels
    nearer to a colour of things than to that background, the shape with the greatest intersection
    over union. Colour: majority of nearest colours there. Texture: the pattern that most of its
    light and dark pixels agree with.

    Args:
        image: uint8, shape (H, H, 3), H >= 16.
        scene: gives the preset and where things are or could be; what they are is not looked at.
        search: look for each thing anywhere in the preset's range instead of where `scene` has it,
            for pictures that were made from a caption alone.

    Raises:
        ValueError: not such an image.
    """
    if image.ndim != 3 or image.shape[0] != image.shape[1] or image.shape[2] != 3:
        raise ValueError(f"image must be (H, H, 3), got {image.shape}")
    if image.dtype != np.uint8 or len(image) < 16:
        raise ValueError(f"image must be uint8 with H >= 16, got {image.dtype}, H = {len(image)}")
    preset, size = scene.preset, len(image)
    background = _read_background(image, preset)
    pairs = [(color, darkened(color)) for color in preset.colors.values()]
    prototypes = np.array([shade for pair in pairs for shade in pair])
    palette = np.concatenate([prototypes, [preset.backgrounds[background]]])
    closest = _nearest_color(image, palette)  # 2 k: colour k, 2 k + 1: its dark form
    region = closest < len(prototypes)
    facts: list[Fact] = []
    for thing, cell in zip(scene.things, _cells(preset, size), strict=True):
        place = thing.place
        templates = _all_templates(preset, place, size) if search else _here(thing, preset, size)
        found = _best_shape(region & cell, templates)
        facts.append(Fact(place, "present", found is not None))
        if found is None:
            continue
        shape, mask = found
        inside = closest[mask & region & cell]
        color = tuple(preset.colors)[np.bincount(inside // 2).argmax()]
        if len(preset.textures) > 1:
            facts.append(Fact(place, "texture", _read_texture(closest, mask, color, preset)))
        facts += [Fact(place, "color", color), Fact(place, "shape", shape)]
    return (*facts, Fact(BACKGROUND, "color", background))


def _nearest_color(pixels: np.ndarray, palette: np.ndarray) -> np.ndarray:
    """Return the number of each pixel's nearest colour; (..., 3) and (N, 3) -> (...)."""
    apart = pixels[..., None, :].astype(np.int32) - palette.astype(np.int32)
    return (apart**2).sum(-1).argmin(-1)


def _read_background(image: np.ndarray, preset: Preset) -> str:
    width = max(1, len(image) // UNIT)
    border = np.ones(image.shape[:2], bool)
    border[width:-width, width:-width] = False
    names, colors = tuple(preset.backgrounds), np.array([*preset.backgrounds.values()])
    return names[np.bincount(_nearest_color(image[border], colors)).argmax()]


@lru_cache(maxsize=8)
def _cells(preset: Preset, size: int) -> np.ndarray:
    """Return which pixels are nearest to each place, bool, (places, size, size)."""
    along = (np.arange(size) + 0.5) * UNIT / size
    apart = [
        (along[None, :] - x) ** 2 + (along[:, None] - y) ** 2 for x, y in preset.centers.values()
    ]
    owner = np.argmin(apart, axis=0)
    return np.stack([owner == number for number in range(len(preset.centers))])


def _here(thing: Thing, preset: Preset, size: int) -> _Templates:
    """Return every shape where the thing is."""
    spot = thing.x, thing.y, thing.radius
    return _templates([(shape, *spot) for shape in preset.shapes], size)


@lru_cache(maxsize=16)
def _all_templates(preset: Preset, place: str, size: int) -> _Templates:
    """Return every shape at every half step of the preset's range, in five sizes."""
    (x, y), (far_x, far_y) = preset.centers[place], preset.jitter
    across = np.arange(x - far_x, x + far_x + 0.5, 0.5)
    down = np.arange(y - far_y, y + far_y + 0.5, 0.5)
    return _templates(product(preset.shapes, across, down, np.linspace(*preset.radius, 5)), size)


def _templates(shapes: Iterable[tuple[str, float, float, float]], size: int) -> _Templates:
    shapes = list(shapes)
    masks = np.stack([shape_mask(name, x, y, radius, size) for name, x, y, radius in shapes])
    return _Templates(
        tuple(name for name, *_ in shapes), masks.reshape(len(masks), -1).astype(np.float32)
    )


def _best_shape(region: np.ndarray, templates: _Templates) -> tuple[str, np.ndarray] | None:
    """Return the shape and mask with the greatest IoU with a region, or None if none is close."""
    shared = templates.masks @ region.reshape(-1).astype(np.float32)
    iou = shared / (templates.masks.sum(1) + region.sum() - shared)
    best = int(iou.argmax())
    if iou[best] < LEAST_IOU:
        return None
    return templates.shapes[best], templates.masks[best].reshape(region.shape) > 0


def _read_texture(shades: np.ndarray, mask: np.ndarray, color: str, preset: Preset) -> str:
    """Return the texture that most pixels of a colour, light (even) or dark (odd), agree with."""
    own = mask & (shades // 2 == tuple(preset.colors).index(color))
    agreeing = [
        ((shades % 2 == 1) == texture_pattern(name, len(mask)))[own].sum()
        for name in preset.textures
    ]
    return preset.textures[int(np.argmax(agreeing))]
