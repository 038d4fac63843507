"""multi-edits: four edits of a scene at once, a case of its study: no model is trained for this."""

from __future__ import annotations

from typing import Any

import numpy as np
from card import ASSETS, TEXT, save, show
from PIL import Image
from scipy import ndimage

STUDY = ASSETS / "multi-edits-cases.png"  # drawn by packages/multi-edits/reproduce/pictures.py
SIDE = 100  # least pixels of a picture in it
CASE = 5  # row: four edits, one of them of the background
EDITS = "black → purple, blue → yellow,\ncross → triangle, checked → striped"
SHOWN = {"source": 0, "edited": 2, "target": 7}  # columns; 2 is the default, control word by word


def cut(picture: np.ndarray) -> list[list[np.ndarray]]:
    """Return the pictures of a grid by row, from left to right.

    Args:
        picture: uint8, shape (H, W, 3), the pictures on white.
    """
    blocks, _ = ndimage.label((picture < 240).any(2))
    cells = [at for at in ndimage.find_objects(blocks) if at[0].stop - at[0].start >= SIDE]
    rows: dict[int, list[tuple[slice, ...]]] = {}
    for down, across in sorted(cells, key=lambda at: at[1].start):
        rows.setdefault(down.start, []).append((down, across))
    return [[picture[at] for at in rows[top]] for top in sorted(rows)]


def main() -> None:
    """Draw the source, what the default editor makes of it, and the exact target."""
    row = cut(np.asarray(Image.open(STUDY).convert("RGB")))[CASE]

    def draw(figure: Any) -> None:
        figure.suptitle(EDITS, fontsize=TEXT)
        panels = figure.subplots(1, len(SHOWN))
        for axes, (title, column) in zip(panels, SHOWN.items(), strict=True):
            show(axes, row[column], title)

    save("multi-edits", draw)


if __name__ == "__main__":
    main()
