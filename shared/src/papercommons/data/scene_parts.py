"""What scenes are made of: two frozen presets, shapes and textures. Needs NumPy alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from papercommons.errors import nearest

Color = tuple[int, int, int]

BACKGROUND = "background"
UNIT = 32  # pixels of a picture in which coordinates are given


@dataclass(frozen=True)
class Preset:
    """What scenes are made of.

    Attributes:
        name: of the preset.
        centers: place -> x and y of its middle.
        jitter: how far a thing's centre may be from there, in x and y.
        radius: least and greatest.
        fewest: how many things there are at least; at most one at each place.
        shapes: their words.
        colors: word -> RGB, of things.
        textures: their words.
        backgrounds: word -> RGB.
        relation: words between the phrases of two things where that says which place they are at;
            empty where the place is named after each.
        held_out: pairs of a colour and a shape that training does not see together.
        full_share: share of the training captions that say everything; the others say one or two
            facts.
    """

    name: str
    centers: Mapping[str, tuple[float, float]] = field(hash=False)
    jitter: tuple[float, float]
    radius: tuple[float, float]
    fewest: int
    shapes: tuple[str, ...]
    colors: Mapping[str, Color] = field(hash=False)
    textures: tuple[str, ...]
    backgrounds: Mapping[str, Color] = field(hash=False)
    relation: str = ""
    held_out: frozenset[tuple[str, str]] = frozenset()
    full_share: float = 1.0

    def values(self, place: str, attribute: str) -> tuple[str, ...]:
        """Return the words that an attribute can have.

        Raises:
            ValueError: no such place or attribute.
        """
        if place == BACKGROUND:
            known = {"color": tuple(self.backgrounds)}
        elif place in self.centers:
            known = {
                "shape": self.shapes,
                "color": tuple(self.colors),
                "texture": self.textures,
            }
        else:
            places = (*self.centers, BACKGROUND)
            raise ValueError(
                f"place {place!r}: must be {', '.join(places)}{nearest(place, places)}"
            )
        if attribute not in known:
            raise ValueError(f"{place} has no {attribute!r}; it has {', '.join(known)}")
        return known[attribute]


SIMPLE = Preset(
    name="simple",
    centers={"left": (8.0, 16.0), "right": (23.5, 16.0)},
    jitter=(1.0, 5.0),
    radius=(5.5, 6.5),
    fewest=2,
    shapes=("circle", "square", "triangle"),
    colors={
        "red": (220, 40, 40),
        "green": (40, 180, 60),
        "blue": (50, 80, 230),
        "yellow": (235, 215, 50),
    },
    textures=("plain",),
    backgrounds={"black": (15, 15, 15), "white": (240, 240, 240), "purple": (120, 40, 140)},
    relation="left of",
)

CROWDED = Preset(
    name="crowded",
    centers={
        "top left": (8.0, 8.0),
        "top right": (24.0, 8.0),
        "bottom left": (8.0, 24.0),
        "bottom right": (24.0, 24.0),
    },
    jitter=(1.0, 1.0),
    radius=(5.5, 6.5),
    fewest=3,
    shapes=("circle", "square", "triangle", "cross"),
    colors={**SIMPLE.colors, "cyan": (40, 200, 210)},
    textures=("plain", "striped", "checked"),
    backgrounds={**SIMPLE.backgrounds, "grey": (128, 128, 128)},
    held_out=frozenset(
        {("red", "triangle"), ("green", "circle"), ("blue", "cross"), ("yellow", "square")}
    ),
    full_share=0.2,
)


def find_preset(name: str) -> Preset:
    """Return `SIMPLE` or `CROWDED` by name.

    Raises:
        ValueError: no such preset.
    """
    presets = {preset.name: preset for preset in (SIMPLE, CROWDED)}
    if name not in presets:
        raise ValueError(f"preset {name!r}: must be simple or crowded{nearest(name, presets)}")
    return presets[name]


def shape_mask(shape: str, x: float, y: float, radius: float, size: int = UNIT) -> np.ndarray:
    """Return the pixels whose centre is in a shape, bool, shape (size, size).

    Args:
        shape: circle, square, triangle (apex up) or cross.
        x: of the centre.
        y: of the centre.
        radius: of the circle; the others are as high, or a little less.
        size: side in pixels.
    """
    along = (np.arange(size) + 0.5) * UNIT / size
    dx, dy = (along - x)[None, :] / radius, (along - y)[:, None] / radius
    far, near = np.maximum(abs(dx), abs(dy)), np.minimum(abs(dx), abs(dy))
    if shape == "circle":
        return dx**2 + dy**2 <= 1
    if shape == "square":
        return far <= 0.88
    if shape == "triangle":
        return (abs(dx) <= 0.55 * (dy + 1)) & (dy <= 0.88)
    if shape == "cross":
        return (far <= 1) & (near <= 0.35)
    raise ValueError(f"no shape {shape!r}")


def texture_pattern(texture: str, size: int = UNIT) -> np.ndarray:
    """Return where a texture is dark, bool, shape (size, size): bands or squares of two units."""
    band = (np.arange(size) * UNIT // size) // 2 % 2 == 1
    if texture == "striped":
        return np.repeat(band[:, None], size, axis=1)
    if texture == "checked":
        return band[:, None] ^ band[None, :]
    return np.zeros((size, size), bool)


def darkened(color: Color) -> Color:
    """Return the second colour of a texture."""
    red, green, blue = (value // 2 for value in color)
    return red, green, blue
