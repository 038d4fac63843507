"""The pictures of a result as files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from papercommons.files import atomic_path
from papercommons.pictures import overlay
from PIL import Image

from d_tiil.masks import blur_map
from d_tiil.result import DTIILResult, NoiseMap


def save_picture(path: Path, image: Image.Image) -> None:
    """Write a picture, whole or not at all.

    Args:
        path: ends in .png.
        image: any mode that PNG has.
    """
    with atomic_path(path) as temporary:
        image.save(temporary)


def mask_picture(mask: np.ndarray) -> Image.Image:
    """Return a mask as a grey picture, white inside.

    Args:
        mask: bool, (H, W).
    """
    return Image.fromarray(mask.astype(np.uint8) * 255)


def map_levels(found: NoiseMap, blur: float) -> np.ndarray:
    """Return a map in 255ths as it is thresholded, uint8, (h, w) of the latents.

    Args:
        found: the map.
        blur: sigma of the settings.
    """
    levels: np.ndarray = blur_map(torch.from_numpy(found.values), blur).round().byte().numpy()
    return levels


def save_result(folder: Path, image: Image.Image, done: DTIILResult) -> dict[str, str]:
    """Write the pictures of a result into a folder, and return what was written, by kind.

    Args:
        folder: gets mask.png (white: what contradicts), map.png (8 bit, of the image's size),
            overlay.png and, if it was made, edited.png.
        image: RGB.
        done: what is written.
    """
    pictures = {}
    if done.final is not None:
        levels = map_levels(done.final, done.settings.maps.blur)
        pictures["mask"] = mask_picture(done.mask)
        pictures["map"] = Image.fromarray(levels).resize(image.size, Image.Resampling.NEAREST)
        pictures["overlay"] = overlay(image, done.mask)
    if done.edited is not None:
        pictures["edited"] = done.edited
    for name, picture in pictures.items():
        save_picture(folder / f"{name}.png", picture)
    return {name: str(folder / f"{name}.png") for name in pictures}
