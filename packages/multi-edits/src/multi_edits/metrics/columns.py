"""The metrics by name, as tables show them; needs no torch."""

from __future__ import annotations

from typing import Literal, NamedTuple


class Column(NamedTuple):
    """One metric.

    Attributes:
        name: in result files.
        title: in tables.
        factor: that published tables multiply by.
        better: which values are.
        needs: what has to be given to measure it; "" for nothing.
    """

    name: str
    title: str
    factor: float
    better: Literal["high", "low"]
    needs: Literal["", "clip", "dino", "lpips", "scorer"] = ""


COLUMNS = (
    Column("structure_distance", "structure distance x10^3", 1e3, "low", "dino"),
    Column("background_psnr", "background PSNR (dB)", 1, "high"),
    Column("background_lpips", "background LPIPS x10^3", 1e3, "low", "lpips"),
    Column("background_mse", "background MSE x10^4", 1e4, "low"),
    Column("background_ssim", "background SSIM x10^2", 1e2, "high"),
    Column("clip", "CLIP", 1, "high", "clip"),
    Column("clip_edited", "CLIP in the mask", 1, "high", "clip"),
    Column("d_clip", "D-CLIP", 1, "high", "clip"),
    Column("aspect_accuracy", "aspect accuracy (%)", 1e2, "high", "clip"),
    Column("aspect_preservation", "aspect preservation (CLIP)", 1, "high", "clip"),
    Column("vlm_accuracy", "aspect accuracy, asked (%)", 1e2, "high", "scorer"),
)
NAMES = tuple(column.name for column in COLUMNS)
