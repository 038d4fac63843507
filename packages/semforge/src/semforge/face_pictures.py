"""The pictures of `semforge-predict`: faces found, what is said of each, and where it is seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from papercommons.report import PALETTE, figure_png

COLOURS = {"real": PALETTE[0], "fake": PALETTE[3]}
MAX_SHOWN = 1000  # pixels of a picture's longer side


def boxes_png(
    image: np.ndarray, boxes: Sequence[np.ndarray | None], says: Sequence[str], texts: Sequence[str]
) -> bytes:
    """Return a PNG of a picture with its faces framed.

    Args:
        image: RGB, uint8, shape (H, W, 3).
        boxes: of the faces; None frames nothing.
        says: real or fake, of each.
        texts: what stands at each frame.
    """
    from PIL import Image

    picture = Image.fromarray(image)
    scale = min(1.0, MAX_SHOWN / max(picture.size))
    small = picture.resize([max(1, round(side * scale)) for side in picture.size])

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        axes.imshow(np.asarray(small))
        axes.axis("off")
        for box, word, text in zip(boxes, says, texts, strict=True):
            if box is None:
                continue
            left, top, right, bottom = np.asarray(box) * scale
            x, y = [left, right, right, left, left], [top, top, bottom, bottom, top]
            axes.plot(x, y, color=COLOURS[word], linewidth=2)
            axes.text(
                left,
                max(0, top - 3),
                text,
                color="white",
                fontsize=8,
                va="bottom",
                bbox={"color": COLOURS[word], "pad": 1.5},
            )

    wide = small.width / small.height
    return figure_png(draw, width=4.5 * min(2.2, max(0.6, wide)), height=4.5 / max(1, wide / 2.2))


def face_png(
    crop: np.ndarray,
    heat: np.ndarray | None,
    probabilities: Mapping[str, float],
    decoded: Sequence[str],
    heat_title: str,
) -> bytes:
    """Return a PNG of a face: as the network sees it, where it looks, and p of every node.

    Args:
        crop: RGB, uint8, shape (S, S, 3).
        heat: float, shape (S, S); None leaves the map out.
        probabilities: node -> p.
        decoded: nodes of the most probable labels.
        heat_title: above the map.
    """

    def draw(figure: Any) -> None:
        shown = 2 if heat is None else 3
        panels = figure.subplots(1, shown, width_ratios=[1] * (shown - 1) + [1.25])
        panels[0].set_title("the face")
        for axes in panels[:-1]:
            axes.imshow(crop)
            axes.axis("off")
        if heat is not None:
            top = float(np.quantile(heat, 0.995))
            strength = np.clip(heat / top, 0, 1) if top > 0 else np.zeros_like(heat)
            opacity = 0.75 * strength**0.7
            panels[1].imshow(strength, cmap="inferno", vmin=0, vmax=1, alpha=opacity)
            panels[1].set_title(heat_title)
        names = list(probabilities)
        colours = [COLOURS["fake"] if name in decoded else "0.75" for name in names]
        panels[-1].barh(names, list(probabilities.values()), color=colours)
        panels[-1].set(xlim=(0, 1), title="p of each node (red: decoded)")
        panels[-1].invert_yaxis()

    height = max(2.6, 0.9 + 0.19 * len(probabilities))
    return figure_png(draw, width=6.2 if heat is None else 8.4, height=height)


def video_png(curves: Mapping[str, tuple[np.ndarray, np.ndarray]], threshold: float) -> bytes:
    """Return a PNG of p(fake) along a video.

    Args:
        curves: face -> seconds and p(fake) of its frames.
        threshold: on p(fake).
    """

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        for name, (seconds, p) in curves.items():
            axes.plot(seconds, p, marker="o", markersize=3, label=name)
        axes.axhline(threshold, color="0.4", linestyle="--", linewidth=1, label="threshold")
        axes.set(xlabel="seconds", ylabel="p(fake)", ylim=(-0.03, 1.03))
        axes.legend()

    return figure_png(draw, width=7, height=2.6)
