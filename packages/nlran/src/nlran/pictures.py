"""Pictures of a scan and of where a network's features respond in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from papercommons.report import figure_png

from nlran.saved import RESEARCH_USE
from nlran.volumes import Volume


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


def slice_names(volume: Volume) -> list[int]:
    """Return the number of each axial slice in the scan's own file, from 0.

    Args:
        volume: the scan.
    """
    numbers = list(range(len(volume.array)))
    return numbers[::-1] if volume.order[0][1] else numbers


def slice_titles(volume: Volume) -> list[str]:
    """Return what stands above each axial slice: its number, and z in the scanner's millimetres.

    Args:
        volume: the scan.
    """
    _, height, width = volume.array.shape
    titles = []
    for place, number in enumerate(slice_names(volume)):
        z = (volume.affine @ (place, height / 2, width / 2, 1))[2]
        titles.append(f"slice {number}" + (f", z {z:.0f} mm" if volume.geometry else ""))
    return titles


def planes(
    heat: np.ndarray, titles: Sequence[str], *, axial: int = 4
) -> list[tuple[str, Any, tuple[int, int]]]:
    """Return what `scan_png` shows: title, index that cuts the plane out, and its two axes.

    Args:
        heat: float, shape (D, H, W).
        titles: of the axial slices.
        axial: number of axial slices.
    """
    _, row, column = np.unravel_index(int(heat.argmax()), heat.shape)
    shown: list[tuple[str, Any, tuple[int, int]]] = [
        (titles[number], np.s_[number], (1, 2)) for number in most_active_slices(heat, axial)
    ]
    shown.append(("coronal", np.s_[::-1, row], (0, 2)))  # the head is up
    shown.append(("sagittal", np.s_[::-1, :, column], (0, 1)))
    return shown


def scan_png(volume: Volume, heat: np.ndarray, window: tuple[float, float]) -> bytes:
    """Return a PNG: the most active axial slices and the coronal and sagittal plane of the peak.

    The upper row shows the scan alone, the lower one the heat map on it. As radiologists hang
    films: the patient's right is on the left; in sagittal planes anterior is on the left.

    Args:
        volume: the scan.
        heat: float in [0, 1], shape (D, H, W) of the scan.
        window: values shown as black and white.
    """
    shown = planes(heat, slice_titles(volume))

    def draw(figure: Any) -> None:
        places = figure.subplots(2, len(shown), squeeze=False)
        for column, (title, plane, (rows, columns)) in zip(places.T, shown, strict=True):
            aspect = volume.spacing[rows] / volume.spacing[columns]
            for place, overlaid in zip(column, (False, True), strict=True):
                place.axis("off")
                _show(place, volume.array[plane], heat[plane] if overlaid else None, window, aspect)
            column[0].set_title(title, fontsize=8, loc="center")
        figure.supxlabel(RESEARCH_USE, fontsize=7, color="#64748b")

    return figure_png(draw, width=2.1 * len(shown), height=4.5)


def maps_png(
    volume: Volume,
    maps: Mapping[str, np.ndarray],
    window: tuple[float, float],
    *,
    slice_number: int,
) -> bytes:
    """Return a PNG of one axial slice under several heat maps, for comparison.

    Args:
        volume: the scan.
        maps: slices of heat by name, float in [0, 1], shape (H, W).
        window: values shown as black and white.
        slice_number: which slice of the array.
    """

    def draw(figure: Any) -> None:
        places = figure.subplots(1, len(maps) + 1, squeeze=False)[0]
        shown = [("scan", None), *maps.items()]
        for place, (name, heat) in zip(places, shown, strict=True):
            place.axis("off")
            aspect = volume.spacing[1] / volume.spacing[2]
            _show(place, volume.array[slice_number], heat, window, aspect)
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
