"""Pictures of a scan and of where a network's features respond in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from papercommons.report import figure_png


def most_active_slices(heat: np.ndarray, count: int) -> list[int]:
    """Return the slices with the highest mean heat, at least a sixteenth of the scan apart.

    Args:
        heat: float, shape (D, H, W).
        count: how many, if the scan has room for so many.

    Returns:
        Slice numbers, ascending.
    """
    means = heat.mean((1, 2))
    apart = max(1, len(means) // 16)
    chosen: list[int] = []
    for number in np.argsort(-means, kind="stable").tolist():
        if all(abs(number - other) >= apart for other in chosen):
            chosen.append(number)
        if len(chosen) == count:
            break
    return sorted(chosen)


def scan_png(
    array: np.ndarray,
    heat: np.ndarray,
    spacing: Sequence[float],
    window: tuple[float, float],
    *,
    axial: int = 4,
) -> bytes:
    """Return a PNG: the most active axial slices and the coronal and sagittal plane of the peak.

    The upper row shows the scan alone, the lower one the heat map on it. As radiologists hang
    films: the patient's right is on the left; in sagittal planes anterior is on the left.

    Args:
        array: the scan, shape (D, H, W) as `nlran.volumes.Volume` orders it.
        heat: float in [0, 1], the same shape.
        spacing: mm along D, H, W.
        window: values shown as black and white.
        axial: number of axial slices.
    """
    _, row, column = np.unravel_index(int(heat.argmax()), heat.shape)
    depth, height, width = spacing
    planes: list[tuple[str, Any, float]] = [
        (f"slice {number}", np.s_[number], height / width)
        for number in most_active_slices(heat, axial)
    ]
    planes.append((f"coronal {row}", np.s_[::-1, row], depth / width))
    planes.append((f"sagittal {column}", np.s_[::-1, :, column], depth / height))

    def draw(figure: Any) -> None:
        places = figure.subplots(2, len(planes), squeeze=False)
        for column_of, (title, plane, aspect) in zip(places.T, planes, strict=True):
            for place, overlaid in zip(column_of, (False, True), strict=True):
                place.axis("off")
                _show(place, array[plane], heat[plane] if overlaid else None, window, aspect)
            column_of[0].set_title(title, fontsize=9, loc="center")

    return figure_png(draw, width=2.1 * len(planes), height=4.4)


def maps_png(
    array: np.ndarray,
    maps: Mapping[str, np.ndarray],
    spacing: Sequence[float],
    window: tuple[float, float],
    *,
    slice_number: int,
) -> bytes:
    """Return a PNG of one axial slice under several heat maps, for comparison.

    Args:
        array: the scan, shape (D, H, W).
        maps: slices of heat by name, float in [0, 1], shape (H, W).
        spacing: mm along D, H, W.
        window: values shown as black and white.
        slice_number: which slice.
    """

    def draw(figure: Any) -> None:
        places = figure.subplots(1, len(maps) + 1, squeeze=False)[0]
        shown = [("scan", None), *maps.items()]
        for place, (name, heat) in zip(places, shown, strict=True):
            place.axis("off")
            _show(place, array[slice_number], heat, window, spacing[1] / spacing[2])
            place.set_title(name, fontsize=9, loc="center")

    return figure_png(draw, width=1.7 * (len(maps) + 1), height=2.1)


def _show(
    place: Any,
    pixels: np.ndarray,
    heat: np.ndarray | None,
    window: tuple[float, float],
    aspect: float,
) -> None:
    low, high = window
    place.imshow(pixels, cmap="gray", vmin=low, vmax=high, aspect=aspect)
    if heat is not None:
        place.imshow(heat, cmap="inferno", vmin=0, vmax=1, alpha=0.75 * heat, aspect=aspect)
