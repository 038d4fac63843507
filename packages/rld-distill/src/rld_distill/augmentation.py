"""Crops, flips and distortions of training images, on uint8 tensors."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as VF


def random_crop_flip(images: Tensor, draws: Tensor, *, flip: bool, pad: int = 4) -> Tensor:
    """Return each image shifted by up to `pad` pixels, with zeros coming in, and perhaps mirrored.

    Args:
        images: any dtype, shape (B, C, H, W).
        draws: uniform in [0, 1), shape (B, 3): down, right, mirrored if below a half.
        flip: whether to mirror at all.
        pad: the largest shift in pixels.
    """
    count, channels, height, width = images.shape
    padded = F.pad(images, (pad,) * 4)
    shift = (draws[:, :2] * (2 * pad + 1)).long()
    rows = shift[:, :1] + torch.arange(height)
    columns = shift[:, 1:] + torch.arange(width)
    if flip:
        columns = torch.where(draws[:, 2:] < 0.5, columns.flip(1), columns)
    places = rows[:, :, None] * padded.shape[-1] + columns[:, None, :]
    places = places.view(count, 1, -1).expand(-1, channels, -1)
    return padded.flatten(2).gather(2, places).view_as(images)


def strong_augment(image: Tensor) -> Tensor:
    """Return the image after two random distortions and a grey square over part of it.

    The paper's relatives use 14 distortions, drawn with replacement, of uniform strength. Random
    numbers come from torch's global generator.

    Args:
        image: uint8, shape (3, H, W).
    """
    size = image.shape[-1]
    for choice in torch.randint(14, (2,)).tolist():
        strength = float(torch.rand(()))
        factor, shear = 0.05 + 0.9 * strength, 0.6 * strength - 0.3
        degrees = torch.rad2deg(torch.tensor(shear)).item()
        shift = round(shear * size)
        match choice:
            case 0:
                image = VF.autocontrast(image)
            case 1:
                image = VF.adjust_brightness(image, factor)
            case 2:
                image = VF.adjust_saturation(image, factor)
            case 3:
                image = VF.adjust_contrast(image, factor)
            case 4:
                image = VF.equalize(image)
            case 5:
                pass
            case 6:
                image = VF.posterize(image, 4 + round(4 * strength))
            case 7:
                image = VF.rotate(image, 60 * strength - 30)
            case 8:
                image = VF.adjust_sharpness(image, factor)
            case 9:
                image = VF.affine(image, 0.0, [0, 0], 1.0, [degrees, 0.0])
            case 10:
                image = VF.affine(image, 0.0, [0, 0], 1.0, [0.0, degrees])
            case 11:
                image = VF.solarize(image, 256 * strength)
            case 12:
                image = VF.affine(image, 0.0, [shift, 0], 1.0, [0.0, 0.0])
            case 13:
                image = VF.affine(image, 0.0, [0, shift], 1.0, [0.0, 0.0])
    side = int(float(torch.rand(())) * 0.5 * size)
    top, left = (int(torch.randint(size, ())) - side // 2 for _ in range(2))
    top, left = max(top, 0), max(left, 0)
    grey = torch.tensor([125, 123, 114], dtype=image.dtype).view(3, 1, 1)
    image[:, top : top + side, left : left + side] = grey
    return image


def fit_size(image: Tensor, size: int) -> Tensor:
    """Return the image's centre at (C, size, size); above 64 pixels the border (1/8) is cut off.

    Args:
        image: uint8, shape (C, H, W).
        size: height and width wanted.
    """
    if image.shape[-2:] == (size, size):
        return image
    shorter = size if size <= 64 else round(size * 256 / 224)
    image = VF.resize(image, [shorter], antialias=True)
    return VF.center_crop(image, [size, size])
