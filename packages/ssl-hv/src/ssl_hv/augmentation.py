"""Random changes of word images, for a whole batch at once on its own device; torch alone.

Images are float in [0, 1] with ink = 1 and paper = 0, shape (N, C, H, W). Random numbers come from
torch's generator of that device, one draw per image.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Augment = Literal["handwriting", "paper", "none"]


def handwriting(
    images: Tensor, *, strength: float = 0.5, size: int | None = None, share: float = 1.0
) -> Tensor:
    """Change what a writer would not call another hand; no mirror writing; our choice.

    At strength 1: rotation to 10 degrees, shear to 0.2, scale 0.8 to 1.2 per axis, shift to 10 %,
    stroke width by grey dilation or erosion of radius 1; at any: contrast, and one erased patch.

    Args:
        images: see above.
        strength: factor of rotation, shear, scale, shift and stroke width; at 0.5 more is left of
            the slant and size that tell writers apart than at 1.
        size: side of the result; that of the images if not given.
        share: part of the image, by side, that is seen: 0.5 is a local crop at a random place.

    Returns:
        float, shape (N, C, size, size).
    """
    count, side = len(images), size or images.shape[-1]
    angle = _between(images, -1, 1) * math.radians(10 * strength)
    shear = _between(images, -0.2, 0.2) * strength
    scale_x, scale_y = (_between(images, 1 - 0.2 * strength, 1 + 0.2 * strength) for _ in "xy")
    scale_x, scale_y = scale_x / share, scale_y / share
    reach = 0.2 * strength if share == 1 else max(0.1, 1 - share)
    shift_x, shift_y = (_between(images, -1, 1) * reach for _ in "xy")
    cos, sin = angle.cos(), angle.sin()
    matrix = torch.stack(
        [
            torch.stack([cos / scale_x, (shear * cos - sin) / scale_x, shift_x], dim=1),
            torch.stack([sin / scale_y, (shear * sin + cos) / scale_y, shift_y], dim=1),
        ],
        dim=1,
    )
    changed = _warp(images, matrix, side)
    changed = _stroke_width(changed, _between(images, -1, 1) * strength)
    changed = (changed * _column(_between(images, 0.7, 1.3))).clamp(0, 1)
    return _erase(changed, *(_between(images, 0, 1) for _ in range(4))) if count else changed


def paper(
    images: Tensor,
    *,
    size: int | None = None,
    scale: tuple[float, float] = (0.08, 1.0),
    solarize: float = 0.0,
    vertical: float = 0.0,
    rotate: float = 0.0,
) -> Tensor:
    """Return the paper's views (section 3.3): lightly's recipe without blur.

    Random resized crop, horizontal flip, brightness and contrast jitter (colours of grey images
    stay grey), and where asked solarisation, vertical flip and a quarter turn.

    Args:
        images: see above.
        size: side of the result; that of the images if not given.
        scale: least and greatest area of the crop.
        solarize: probability of inverting what is darker than a half.
        vertical: probability of a vertical flip.
        rotate: probability of a quarter turn.

    Returns:
        float, shape (N, C, size, size).
    """
    area = _between(images, *scale)
    ratio = _between(images, math.log(3 / 4), math.log(4 / 3)).exp()
    width, height = ((area * r).sqrt().clamp(max=1) for r in (ratio, 1 / ratio))
    shift_x = _between(images, -1, 1) * (1 - width)
    shift_y = _between(images, -1, 1) * (1 - height)
    zero = torch.zeros_like(width)
    matrix = torch.stack(
        [
            torch.stack([width * _sign(images, 0.5), zero, shift_x], dim=1),
            torch.stack([zero, height * _sign(images, vertical), shift_y], dim=1),
        ],
        dim=1,
    )
    changed = _warp(images, matrix, size or images.shape[-1])
    if rotate:
        turned = changed.rot90(dims=(2, 3))
        changed = torch.where(_chance(images, rotate), turned, changed)
    jittered = 1 - (1 - changed) * _column(_between(images, 0.2, 1.8))
    middle = jittered.mean((1, 2, 3), keepdim=True)
    jittered = (middle + (jittered - middle) * _column(_between(images, 0.2, 1.8))).clamp(0, 1)
    changed = torch.where(_chance(images, 0.8), jittered, changed)
    if solarize:
        inverted = torch.where(changed > 0.5, 1 - changed, changed)
        changed = torch.where(_chance(images, solarize), inverted, changed)
    return changed


def _warp(images: Tensor, matrix: Tensor, side: int) -> Tensor:
    """Sample at the places of an affine map, in float32; outside lies paper."""
    grid = F.affine_grid(matrix, [len(images), images.shape[1], side, side], align_corners=False)
    return F.grid_sample(images.float(), grid, padding_mode="zeros", align_corners=False)


def _stroke_width(images: Tensor, amount: Tensor) -> Tensor:
    """Go from erosion (-1) over the image (0) to dilation (1), radius 1."""
    amount = _column(amount)
    thick = F.max_pool2d(images, 3, stride=1, padding=1)
    thin = -F.max_pool2d(-images, 3, stride=1, padding=1)
    return images + amount.clamp(min=0) * (thick - images) + amount.clamp(max=0) * (images - thin)


def _erase(images: Tensor, x: Tensor, y: Tensor, width: Tensor, height: Tensor) -> Tensor:
    """Make one rectangle of up to 30 % of each side paper, in every other image."""
    side = torch.linspace(0, 1, images.shape[-1], device=images.device)
    across = (side - x[:, None]).abs() < 0.15 * width[:, None]
    down = (side - y[:, None]).abs() < 0.15 * height[:, None]
    patch = (down[:, :, None] & across[:, None, :])[:, None] & _chance(images, 0.5)
    return images.masked_fill(patch, 0)


def _between(images: Tensor, low: float, high: float) -> Tensor:
    return torch.rand(len(images), device=images.device) * (high - low) + low


def _chance(images: Tensor, probability: float) -> Tensor:
    return _column(torch.rand(len(images), device=images.device) < probability)


def _sign(images: Tensor, probability: float) -> Tensor:
    return 1 - 2 * (torch.rand(len(images), device=images.device) < probability).float()


def _column(values: Tensor) -> Tensor:
    return values[:, None, None, None]
