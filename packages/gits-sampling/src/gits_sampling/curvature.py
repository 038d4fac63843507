"""Curvature and torsion of curves in space, by local cubic fits over arc length (section 3.2)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def curvature_torsion(points: Tensor, *, window: int = 101) -> tuple[Tensor, Tensor]:
    """Return curvature and torsion along curves in space.

    At each point, r(s + h) - r(s) = r' h + r'' h^2 / 2 + r''' h^3 / 6 is fitted by least squares
    over the points of the window, s the arc length; curvature = |r' x r''| / |r'|^3, torsion =
    (r' x r'') . r''' / |r' x r''|^2. Near the ends the window keeps the side it has.

    Args:
        points: float, shape (N, 3) or (N, B, 3), N >= 4.
        window: points in a full window, odd, >= 7.

    Returns:
        Curvature, >= 0, and torsion, float64, shape (N,) or (N, B). Torsion is nan where a curve
        is straight to rounding (curvature times the window's half-length below 1e-9).

    Raises:
        ValueError: another shape, a window that is even or too small, or a curve that stands still
            through a window.
    """
    if points.ndim not in (2, 3) or points.shape[-1] != 3 or len(points) < 4:
        raise ValueError(
            f"points must be (N, 3) or (N, B, 3) with N >= 4, got {tuple(points.shape)}"
        )
    if window < 7 or window % 2 == 0:
        raise ValueError(f"window must be odd and >= 7, got {window}")
    half = window // 2
    curves = points.reshape(len(points), -1, 3).transpose(0, 1)  # (B, N, 3)
    size = max(1, 2**24 // (8 * window * len(points)))
    parts = [_bend(part.double(), half) for part in curves.split(size)]
    curvature, torsion = (torch.cat(part).T for part in zip(*parts, strict=True))
    return curvature.reshape(points.shape[:-1]), torsion.reshape(points.shape[:-1])


def _bend(points: Tensor, half: int) -> tuple[Tensor, Tensor]:
    """Return curvature and torsion of (B, N, 3), each (B, N)."""
    count = points.shape[1]
    segments = points.diff(dim=1).norm(dim=2)
    arc = F.pad(segments.cumsum(1), (1, 0))
    index = torch.arange(count, device=points.device)
    near = index[:, None] + torch.arange(-half, half + 1, device=points.device)
    inside = (near >= 0) & (near < count)
    near = near.clamp(0, count - 1)
    h = (arc[:, near] - arc[:, :, None]) * inside  # (B, N, W); 0, and so no weight, outside
    moved = F.pad((segments > 0).cumsum(1), (1, 0))
    if (moved[:, near[:, -1]] - moved[:, near[:, 0]] < 3).any():
        raise ValueError("a window needs four different points; remove repeated ones or widen it")
    scale = h.abs().amax(2, keepdim=True)
    u = h / scale
    powers = torch.stack([u, u**2 / 2, u**3 / 6], dim=3)  # (B, N, W, 3)
    moves = points[:, near] - points[:, :, None]
    fitted = torch.linalg.solve(powers.mT @ powers, powers.mT @ moves)  # (B, N, 3, 3)
    first, second, third = fitted.unbind(2)  # derivatives by u; both results are free of scale
    cross = torch.linalg.cross(first, second)
    speed, across = first.norm(dim=2), cross.norm(dim=2)
    bend = across / speed**3
    torsion = (cross * third).sum(2) / across.square()
    return bend, torsion.where(bend * scale[..., 0] > 1e-9, torch.nan)
