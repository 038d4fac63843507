"""Made-up handwriting for tests: the word "and", with a hand that each writer keeps."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

AND = [  # strokes of the word, in units of the image
    [(0.30, 0.45), (0.15, 0.42), (0.10, 0.62), (0.28, 0.62), (0.30, 0.42), (0.33, 0.66)],
    [(0.42, 0.42), (0.42, 0.66), (0.44, 0.48), (0.54, 0.44), (0.58, 0.66)],
    [(0.82, 0.48), (0.68, 0.46), (0.66, 0.64), (0.80, 0.64), (0.84, 0.18), (0.86, 0.68)],
]


def draw_word(writer: int, sample: int, size: int = 64) -> Any:
    """Return a word in dark ink, a grey PIL image.

    Args:
        writer: gives slant, thickness and height.
        sample: gives what chance adds.
        size: side in pixels.
    """
    random = np.random.default_rng((writer, sample))
    slant, height = 0.25 * (writer % 4 - 1.5), 0.7 + 0.15 * (writer % 3)
    picture = Image.new("L", (size, size), 255)
    for stroke in AND:
        x, y = np.array(stroke).T + random.normal(0, 0.012, (2, len(stroke)))
        y = 0.5 + height * (y - 0.5)
        points = np.stack([x - slant * (y - 0.5), y], axis=1) * size
        ImageDraw.Draw(picture).line(
            [tuple(point) for point in points.tolist()],
            fill=20 * (writer % 4),
            width=2 + writer % 5,
        )
    return picture


def write_words(root: Path, writers: Iterable[int], samples: int, **how: Any) -> Path:
    """Write words as ROOT/WRITER/*.png and return the root.

    Args:
        root: folder; those of the writers must not exist.
        writers: their numbers.
        samples: words of each.
        **how: of `draw_word`.
    """
    for writer in writers:
        (root / f"w{writer:02d}").mkdir(parents=True)
        for sample in range(samples):
            path = root / f"w{writer:02d}" / f"{writer:02d}_{sample}.png"
            draw_word(writer, sample, **how).save(path)
    return root
