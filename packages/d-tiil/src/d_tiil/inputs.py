"""What a user gives the pipeline, checked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from papercommons.data.images import read_image
from papercommons.errors import DataError
from PIL import Image

ImageLike = Image.Image | np.ndarray | str | Path


def open_picture(image: ImageLike) -> Image.Image:
    """Return an image in RGB.

    Args:
        image: PIL image, uint8 array (H, W, 3) or file.

    Raises:
        DataError: the file is no image, or the array has another form.
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
