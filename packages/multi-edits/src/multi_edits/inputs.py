"""What a user gives the pipeline, checked and in the form that the loop takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from papercommons.data.images import read_image
from papercommons.errors import DataError
from PIL import Image
from torch import Tensor

from multi_edits.blending import latent_mask
from multi_edits.edits import Edit
from multi_edits.grouping import Aspect, AspectGroup

ImageLike = Image.Image | np.ndarray | str | Path


def open_picture(image: ImageLike) -> Image.Image:
    """Return an image in RGB.

    Args:
        image: PIL image of any mode, uint8 array (H, W, 3), or file.

    Raises:
        DataError: another array, or a file that is no readable image.
    """
    if isinstance(image, str | Path):
        return read_image(image)
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise DataError(
                f"an array must be uint8 (height, width, 3), got {image.dtype} {image.shape}"
            )
        return Image.fromarray(image)
    return image.convert("RGB")


def latent_regions(
    masks: Mapping[int, np.ndarray | Tensor], count: int, image: Image.Image, latents: Tensor
) -> dict[int, Tensor]:
    """Return the masks at the size of the latents.

    Args:
        masks: index of an edit -> where it may change the image, (H, W) of the image.
        count: number of edits.
        image: that is edited.
        latents: of the image, (1, C, h, w).

    Raises:
        DataError: there is no such edit, or a mask has another shape.
    """
    regions = {}
    for edit, given in masks.items():
        mask = torch.as_tensor(given)
        if not 0 <= edit < count:
            raise DataError(f"a mask is given for edit {edit}, and there are {count}, from 0")
        if tuple(mask.shape) != (image.height, image.width):
            raise DataError(
                f"the mask of edit {edit} has the shape {tuple(mask.shape)}, the image "
                f"{(image.height, image.width)}"
            )
        regions[edit] = latent_mask(mask, (latents.shape[-2], latents.shape[-1]))
    return regions


def check_held(
    name: str, parts: Sequence[AspectGroup] | Sequence[Aspect], edits: Sequence[Edit]
) -> None:
    """Raise unless every edit that counts is in exactly one of the parts.

    Args:
        name: of the parts, for the message.
        parts: groups or aspects.
        edits: all of them; one of strength 0 does not count.

    Raises:
        ValueError: one is in none or in several.
    """
    held = sorted(edit for part in parts for edit in part.edits)
    wanted = [k for k, edit in enumerate(edits) if edit.strength > 0]
    if held != wanted:
        raise ValueError(f"{name} must hold the edits {wanted} once each, got {held}")
