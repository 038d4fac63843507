"""Pseudo-forgeries of real faces: a face blended with itself (Shiohara and Yamasaki, CVPR 2022).

Two copies of one picture differ a little in colour, sharpness and place; one is laid over the other
through a soft random mask. What is left is what all swaps have: a border of blending. The paper's
mask follows landmarks; here it is a random shape about the middle of the crop (our choice).
"""

from __future__ import annotations

import numpy as np

from semforge.augmentation import gaussian_blur
from semforge.graph import LabelGraph
from semforge.lists import known_label

RATIOS = (0.25, 0.5, 0.75, 1.0, 1.0, 1.0)  # how much of the upper copy is seen, as in the paper


def self_blend(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a real face blended with an altered copy of itself.

    Args:
        image: RGB crop of a face, uint8, shape (H, W, 3), sides >= 32.
        rng: where chance comes from.

    Returns:
        uint8, shape (H, W, 3).
    """
    altered = alter(image, rng)
    upper, lower = (altered, image) if rng.random() < 0.5 else (image, altered)
    mask = soft_mask((image.shape[0], image.shape[1]), rng)[..., None]
    mask = mask * RATIOS[rng.integers(len(RATIOS))]
    blended = lower + mask * (shift(upper, rng).astype(np.float32) - lower)
    return np.rint(blended).clip(0, 255).astype(np.uint8)


def self_blend_label(graph: LabelGraph) -> np.ndarray:
    """Return the label of what `self_blend` makes: fake, and nothing else is known.

    Args:
        graph: of the label.

    Returns:
        int8, shape (n,).

    Raises:
        ValueError: the graph never lets the root be 1.
    """
    return known_label(graph, {graph.nodes[0]: 1})


def alter(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the picture with other colours, brightness and contrast, and blurred or sharpened.

    Args:
        image: uint8, shape (H, W, 3), sides >= 32.
        rng: where chance comes from.
    """
    values = image + rng.uniform(-20, 20, 3)  # shift of each channel, in grey levels
    grey = values.mean(2, keepdims=True)
    values = grey + (values - grey) * rng.uniform(0.7, 1.3)  # saturation
    middle = values.mean()
    values = middle + (values - middle) * rng.uniform(0.9, 1.1) + rng.uniform(-25, 25)
    changed = np.rint(values).clip(0, 255).astype(np.uint8)
    blurred = gaussian_blur(changed, int(rng.choice((3, 5, 7))))
    if rng.random() < 0.5:
        return blurred
    sharp = changed + rng.uniform(0.2, 0.5) * (changed.astype(np.float32) - blurred)
    return np.rint(sharp).clip(0, 255).astype(np.uint8)


def shift(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the picture moved by up to 3 % across and 1.5 % down, and scaled by up to 5 %.

    Args:
        image: uint8, shape (H, W, 3).
        rng: where chance comes from.
    """
    from PIL import Image

    height, width = image.shape[:2]
    scale = rng.uniform(0.95, 1 / 0.95)
    left = rng.uniform(-0.03, 0.03) * width + width * (1 - scale) / 2
    top = rng.uniform(-0.015, 0.015) * height + height * (1 - scale) / 2
    margin = 1 + int(0.1 * max(height, width))
    padded = np.pad(image, ((margin, margin), (margin, margin), (0, 0)), mode="edge")
    box = (
        left + margin,
        top + margin,
        left + margin + scale * width,
        top + margin + scale * height,
    )
    moved = Image.fromarray(padded).resize((width, height), Image.Resampling.BILINEAR, box)
    return np.asarray(moved)


def soft_mask(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Return a soft mask of random outline about the middle.

    An ellipse whose radius waves with the angle; its border is as wide as chance says.

    Args:
        shape: H and W.
        rng: where chance comes from.

    Returns:
        float32 in [0, 1], shape (H, W); 1 inside.
    """
    height, width = shape
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    across = (x / (width - 1) - rng.uniform(0.45, 0.55)) / rng.uniform(0.18, 0.36)
    down = (y / (height - 1) - rng.uniform(0.5, 0.6)) / rng.uniform(0.22, 0.4)
    angle = np.arctan2(down, across)
    waves = sum(
        rng.uniform(-0.12, 0.12) * np.cos(k * angle + rng.uniform(0, 2 * np.pi)) for k in (2, 3, 4)
    )
    inside = 1 + waves - np.hypot(across, down)
    softness = rng.uniform(0.05, 0.4)
    t = np.clip(inside / softness + 0.5, 0, 1)
    return (t * t * (3 - 2 * t)).astype(np.float32)
