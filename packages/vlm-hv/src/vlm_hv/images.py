"""The pictures that a model gets: sizes, one canvas for two, controls; needs no torch.

A crop of 64 pixels is below what most vision encoders resolve, so it is enlarged and gets a margin.
What this module returns are the exact bytes that are sent, and their hash is what records keep.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from vlm_hv.conversation import Picture

if TYPE_CHECKING:
    from PIL.Image import Image

Ablation = Literal["none", "blank", "shuffle", "text-only"]
ABLATIONS = ("none", "blank", "shuffle", "text-only")
BAR = 8  # pixels between two samples on one canvas (specification 3.2)


@dataclass(frozen=True)
class PictureOptions:
    """How images become the pictures that are sent.

    Attributes:
        min_side: enlarge until the longer side has this many pixels; 0 leaves small ones.
        max_side: reduce until the longer side has this many pixels (paper, whole letters: 800).
        border: white margin on each side, in pixels, added after that.
        resample: how to enlarge: bicubic, or nearest, which invents no grey. Reducing is Lanczos.
        layout: two pictures, or concat: one canvas, for models that take one picture.
    """

    min_side: int = 512
    max_side: int = 800
    border: int = 32
    resample: Literal["bicubic", "nearest"] = "bicubic"
    layout: Literal["two", "concat"] = "two"

    def __post_init__(self) -> None:
        if not 0 <= self.min_side <= self.max_side:
            raise ValueError(
                "--min-side must be >= 0 and not above --max-side, "
                f"got {self.min_side} and {self.max_side}"
            )
        if not 1 <= self.max_side <= 4096:
            raise ValueError(f"--max-side must be in [1, 4096], got {self.max_side}")
        if not 0 <= self.border <= 512:
            raise ValueError(f"--border must be in [0, 512], got {self.border}")


def fit(image: Image, options: PictureOptions) -> Image:
    """Return the image at the size it is sent in, with its margin, as RGB; grey stays grey.

    Args:
        image: dark ink on white, any size >= 1 x 1.
        options: sizes.
    """
    from PIL import Image as Images
    from PIL import ImageOps

    image, longer = image.convert("L" if image.mode in ("1", "L") else "RGB"), max(image.size)
    goal = min(max(longer, options.min_side), options.max_side)
    if goal != longer:
        size = tuple(max(1, round(side * goal / longer)) for side in image.size)
        enlarge = {"bicubic": Images.Resampling.BICUBIC, "nearest": Images.Resampling.NEAREST}
        how = enlarge[options.resample] if goal > longer else Images.Resampling.LANCZOS
        image = image.resize((size[0], size[1]), how)
    return ImageOps.expand(image, options.border, "white") if options.border else image


def concat(known: Image, questioned: Image, *, bar: int = BAR) -> Image:
    """Return one canvas: the known sample left, a black bar, the questioned sample right.

    The lower one is centred in height on white.

    Args:
        known: grey or RGB.
        questioned: likewise.
        bar: width of the bar in pixels.
    """
    from PIL import Image as Images

    height = max(known.height, questioned.height)
    mode = "L" if known.mode == questioned.mode == "L" else "RGB"
    canvas = Images.new(mode, (known.width + bar + questioned.width, height), "white")
    canvas.paste(known, (0, (height - known.height) // 2))
    canvas.paste("black", (known.width, 0, known.width + bar, height))
    canvas.paste(questioned, (known.width + bar, (height - questioned.height) // 2))
    return canvas


def encode(image: Image, name: str) -> Picture:
    """Return the image as the PNG that is sent; equal pixels give equal bytes.

    Args:
        image: grey or RGB; what else the file held (comments, profiles, places) stays behind.
        name: for records.
    """
    file = io.BytesIO()
    plain = image.copy()
    plain.info = {}
    plain.save(file, "PNG", compress_level=3)
    return Picture(file.getvalue(), name)


def pictures(
    known: Image,
    questioned: Image,
    options: PictureOptions,
    *,
    blank: bool = False,
    names: tuple[str, str] = ("known", "questioned"),
) -> tuple[Picture, ...]:
    """Return what is sent for a pair: two pictures, or one canvas with both.

    Args:
        known: any size and mode.
        questioned: likewise.
        options: sizes and layout.
        blank: send white pictures of the same sizes: a control.
        names: for records.
    """
    from PIL import Image as Images

    fitted = [fit(image, options) for image in (known, questioned)]
    if blank:
        fitted = [Images.new(image.mode, image.size, "white") for image in fitted]
    if options.layout == "concat":
        return (encode(concat(*fitted), f"{names[0]} | {names[1]}"),)
    return tuple(encode(image, name) for image, name in zip(fitted, names, strict=True))


def shuffled(count: int, seed: int = 0) -> list[int]:
    """Return for each pair the place of the other pair whose pictures it gets: a control.

    No pair keeps its own, and each is used once, so the pictures are the same as a whole and only
    what belongs together is torn apart.

    Args:
        count: of pairs, >= 2.
        seed: of the draw.

    Raises:
        ValueError: there are fewer than two pairs.
    """
    if count < 2:
        raise ValueError(f"--ablate shuffle needs at least 2 pairs, got {count}")
    import numpy as np

    order = np.random.default_rng(seed).permutation(count)
    given = np.empty(count, np.int64)
    given[order] = np.roll(order, 1)  # one round through all: nobody keeps his own
    found: Sequence[int] = given.tolist()
    return list(found)
