"""One look for the small pictures of the start page: size, font, colours, and where they go."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from papercommons.files import atomic_path
from papercommons.report import PALETTE, figure_png
from PIL import Image

WIDTH, HEIGHT = 5.0, 2.0  # inches of 120 pixels
TITLE, TEXT = 12, 11  # points: still read where the picture is half as wide
BLUE, ORANGE, GREY, YELLOW = *PALETTE[:2], "#cbd5e1", "#facc15"
COLORS = 256  # of the file's palette
ASSETS = Path(__file__).resolve().parents[1] / "assets"


def save(package: str, draw: Callable[[Any], None]) -> None:
    """Write ``docs/assets/PACKAGE.png`` and say so.

    Args:
        package: name of the distribution.
        draw: fills an empty matplotlib Figure.
    """
    whole = Image.open(io.BytesIO(figure_png(draw, width=WIDTH, height=HEIGHT))).convert("RGB")
    target = ASSETS / f"{package}.png"
    with atomic_path(target) as path:
        # The other methods give thin lines the colours of what lies around them.
        found = whole.quantize(COLORS, Image.Quantize.MAXCOVERAGE)
        found.save(path, format="png", optimize=True)
    print(f"{target.name}: {whole.width} x {whole.height}, {target.stat().st_size:,} bytes")


def show(axes: Any, pixels: Any, title: str = "", *, interpolation: str = "nearest") -> None:
    """Show a picture with a title over it, without axes.

    Args:
        axes: of matplotlib.
        pixels: PIL image, or uint8 (H, W) or (H, W, 3).
        title: in one or two lines.
        interpolation: of matplotlib.
    """
    axes.imshow(np.asarray(pixels), cmap="gray", vmin=0, vmax=255, interpolation=interpolation)
    axes.set_title(title, fontsize=TITLE, loc="center")
    axes.set_anchor("N")  # titles stand in one line
    axes.axis("off")


def mark(axes: Any, mask: np.ndarray, size: tuple[int, int]) -> None:
    """Draw a line around the true region of a picture that is shown.

    Args:
        axes: of matplotlib.
        mask: bool, (h, w), of any size.
        size: width and height of the picture in pixels.
    """
    grey = Image.fromarray(mask.astype(np.uint8) * 255)
    levels = np.asarray(grey.resize(size, Image.Resampling.BILINEAR))
    axes.contour(levels, levels=[127], colors=[YELLOW], linewidths=1.8)


def plain(axes: Any, *spines: str) -> None:
    """Take grid, ticks and spines off axes, but for the spines named."""
    axes.grid(visible=False)
    axes.tick_params(length=0, labelsize=TEXT)
    for name, spine in axes.spines.items():
        spine.set_visible(name in spines)
