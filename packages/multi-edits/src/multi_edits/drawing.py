"""Pictures of how an image was edited: attention maps, regions, branches."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from papercommons.report import Section, figure_png
from PIL import Image

from multi_edits.editing import EditedImage
from multi_edits.edits import Edit
from multi_edits.grouping import Aspect, AspectGroup

RED = (225, 29, 72)
YELLOW = (250, 204, 21)
LEAST_SIDE = 256
MOST_SIDE = 512
WIDTH = 8.0  # inches
COLUMNS = 4
MOST_SHOWN = 16


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


def outline(image: Image.Image, mask: np.ndarray) -> Image.Image:
    """Return an image with a yellow line around a region, inside of it.

    Args:
        image: RGB.
        mask: bool, (h, w), of any size.
    """
    large = enlarge(image)
    inside = np.asarray(
        Image.fromarray(mask.astype(np.uint8) * 255).resize(large.size, Image.Resampling.NEAREST)
    )
    inside = inside > 127
    width = max(2, max(large.size) // 128)
    core = inside.copy()
    for axis in (0, 1):
        for shift in (-width, width):
            core &= _shifted(inside, shift, axis)
    pixels = np.array(large.convert("RGB"))
    pixels[inside & ~core] = YELLOW
    return Image.fromarray(pixels)


def _shifted(mask: np.ndarray, shift: int, axis: int) -> np.ndarray:
    moved = np.roll(mask, shift, axis)
    edge = slice(None, shift) if shift > 0 else slice(shift, None)
    moved[(slice(None),) * axis + (edge,)] = False
    return moved


def branch_label(number: int, group: AspectGroup, edits: Sequence[Edit]) -> str:
    """Return a branch in a few words, for example ``1, rigid: red -> green``."""
    return f"{number}, {group.kind}: {', '.join(str(edits[k]) for k in group.edits)}"


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


def step_sections(done: EditedImage) -> list[Section]:
    """Return the parts of a report that show how an image was edited.

    Args:
        done: of one request.
    """
    output = done.output
    labels = [
        branch_label(n, group, output.edits)
        for n, group in enumerate(output.groups[:MOST_SHOWN], 1)
    ]
    pictures = output.branches[: len(labels)]
    sections = [
        Section(
            "From branch to branch",
            figure=strip([done.source, *pictures], ["source", *labels]),
            caption="The source, then each branch's picture, which has the edits of all before it;"
            " the last is the result.",
        )
    ]
    if output.masks is not None:
        outlined = [
            outline(picture, mask.numpy())
            for picture, mask in zip(pictures, output.masks, strict=False)
        ]
        sections.append(
            Section(
                "Where a branch may differ from the one before",
                figure=strip(outlined, labels),
                caption="Outside of the yellow line a branch leaves what was there before.",
            )
        )
    maps = map_pictures(done.source, output.branches[-1], output.aspects, output.edits)
    sections += map_sections(maps)
    prompts = [
        {"branch": "source" if n == 0 else str(n), "prompt": prompt}
        for n, prompt in enumerate(output.prompts)
    ]
    return [*sections, Section("Prompts", rows=prompts)]


def map_sections(drawn: Sequence[tuple[str, Image.Image]]) -> list[Section]:
    """Return the part that shows the attention maps by which edits were typed, if there are any.

    Args:
        drawn: from `map_pictures`.
    """
    if not drawn:
        return []
    shown = drawn[:MOST_SHOWN]
    return [
        Section(
            "Attention",
            text="The maps of the short pass, scaled by their own maximum. An edit is rigid where "
            "the old phrase's map and the new one's agree, and global where the new one's covers "
            "the image.",
            figure=strip([picture for _, picture in shown], [name for name, _ in shown]),
            caption="Red: where the words are seen.",
        )
    ]


def map_pictures(
    source: Image.Image, result: Image.Image, aspects: Sequence[Aspect], edits: Sequence[Edit]
) -> list[tuple[str, Image.Image]]:
    """Return the maps on their images, each with its words.

    Args:
        source: the image.
        result: likewise, after the edits.
        aspects: with their maps.
        edits: that they belong to.
    """
    drawn = []
    for aspect in aspects:
        words = ", ".join(str(edits[k]) for k in aspect.edits)
        for which, levels, image in (
            ("old", aspect.source, source),
            ("new", aspect.target, result),
        ):
            if levels is not None:
                drawn.append((f"{words} ({which})", heat(image, levels.cpu().numpy())))
    return drawn
