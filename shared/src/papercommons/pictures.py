"""Pictures that a report shows: enlarged, under a heat map, with a region outlined, in a strip."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from papercommons.report import figure_png

RED = (225, 29, 72)
YELLOW = (250, 204, 21)
LEAST_SIDE = 256
MOST_SIDE = 512
WIDTH = 8.0  # inches
_GAP = 6  # pixels
COLUMNS = 4


def enlarge(image: Image.Image, least: int = LEAST_SIDE) -> Image.Image:
    """Return a small image at a whole multiple of its size, its pixels as squares.

    Args:
        image: of any size.
        least: its longer side is at least this afterwards.
    """
    factor = -(-least // max(image.size))
    if factor <= 1:
        return image
    size = (image.width * factor, image.height * factor)
    return image.resize(size, Image.Resampling.NEAREST)


def shrink(image: Image.Image, most: int) -> Image.Image:
    """Return an image whose longer side is at most `most`."""
    factor = most / max(image.size)
    if factor >= 1:
        return image
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    return image.resize(size, Image.Resampling.LANCZOS)


def heat(image: Image.Image, levels: np.ndarray) -> Image.Image:
    """Return an image in grey, with red where a map is high.

    Args:
        image: RGB.
        levels: float or uint8 in [0, 255], (h, w), of any size.
    """
    large = enlarge(image)
    shade = Image.fromarray(np.rint(levels).astype(np.uint8)).resize(
        large.size, Image.Resampling.BILINEAR
    )
    share = 0.85 * np.asarray(shade, dtype=np.float32)[..., None] / 255
    grey = np.asarray(large.convert("L"), dtype=np.float32)[..., None] * 0.8 + 40
    mixed = grey * (1 - share) + np.array(RED, dtype=np.float32) * share
    return Image.fromarray(np.clip(np.rint(mixed), 0, 255).astype(np.uint8))


def outline(
    image: Image.Image, mask: np.ndarray, color: tuple[int, int, int] = YELLOW
) -> Image.Image:
    """Return an image with a line around a region, inside of it.

    Args:
        image: RGB.
        mask: bool, (h, w), of any size.
        color: of the line.
    """
    large = enlarge(image)
    inside = _fitted(mask, large.size)
    width = max(2, max(large.size) // 128)
    core = inside.copy()
    for axis in (0, 1):
        for shift in (-width, width):
            core &= _shifted(inside, shift, axis)
    pixels = np.array(large.convert("RGB"))
    pixels[inside & ~core] = color
    return Image.fromarray(pixels)


def overlay(image: Image.Image, mask: np.ndarray) -> Image.Image:
    """Return an image, darker outside a region and with a yellow line around it.

    Without a region nothing is darker.

    Args:
        image: RGB; a small one is enlarged.
        mask: bool, (H, W).
    """
    large = enlarge(image.convert("RGB"))
    if not mask.any():
        return large
    pixels = np.array(large)
    outside = ~_fitted(mask, large.size)
    pixels[outside] = pixels[outside] // 2
    return outline(Image.fromarray(pixels), mask)


def _fitted(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    grey = Image.fromarray(mask.astype(np.uint8) * 255)
    return np.asarray(grey.resize(size, Image.Resampling.NEAREST)) > 127


def _shifted(mask: np.ndarray, shift: int, axis: int) -> np.ndarray:
    moved = np.roll(mask, shift, axis)
    edge = slice(None, shift) if shift > 0 else slice(shift, None)
    moved[(slice(None),) * axis + (edge,)] = False
    return moved


def strip(
    pictures: Sequence[Image.Image], captions: Sequence[str], *, columns: int = COLUMNS
) -> bytes:
    """Return a PNG of pictures side by side, each below its caption in short lines.

    Args:
        pictures: of about the same shape, at least one.
        captions: one for each.
        columns: pictures in a row; fewer pictures are as large as if the row were full.
    """
    wide = WIDTH / columns
    lines = [textwrap.wrap(caption, round(13 * wide))[:4] for caption in captions]
    rows = -(-len(pictures) // columns)
    shape = max(picture.height / picture.width for picture in pictures)
    height = min(2.5, shape) * wide + 0.17 * max(map(len, lines)) + 0.15

    def draw(figure: Any) -> None:
        places = list(figure.subplots(rows, columns, squeeze=False).flat)
        for place in places:
            place.axis("off")
        for place, picture, caption in zip(places, pictures, lines, strict=False):
            place.imshow(np.asarray(shrink(enlarge(picture), MOST_SIDE)), interpolation="nearest")
            place.set_title("\n".join(caption), fontsize=9, loc="left")

    return figure_png(draw, width=WIDTH, height=rows * height)


def side_by_side(pictures: Sequence[Image.Image], side: int = 224) -> bytes:
    """Return a PNG of pictures in a row, scaled so that their longer sides fit.

    Args:
        pictures: at least one; small ones are enlarged, their pixels as squares.
        side: of each, in pixels.
    """
    fitted = []
    for picture in pictures:
        longer = max(picture.size)  # enlarged as often as it fits
        fitted.append(shrink(enlarge(picture.convert("RGB"), side - longer + 1), side))
    width = sum(picture.width + _GAP for picture in fitted) - _GAP
    row = Image.new("RGB", (width, max(picture.height for picture in fitted)), "white")
    left = 0
    for picture in fitted:
        row.paste(picture, (left, 0))
        left += picture.width + _GAP
    buffer = io.BytesIO()
    row.save(buffer, format="png")
    return buffer.getvalue()
