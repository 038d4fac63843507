"""Pictures of trajectories and their geometry, as PNG bytes in the house's look.

Axes over noise levels are logarithmic and run as sampling does, from sigma_max on the left. Bands
are one standard deviation over the samples.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from papercommons.report import PALETTE, figure_png
from torch import Tensor

from gits_sampling.analysis import (
    ChordFrame,
    Curve,
    OptimalityGap,
    Reconstruction,
    TrajectoryStatistics,
    central_trajectories,
)
from gits_sampling.axes import as_array, log_axis, sigma_axis


def statistics_png(statistics: TrajectoryStatistics) -> bytes:
    """Return magnitude, distance, deviation and cosine along trajectories, four panels.

    Args:
        statistics: of `trajectory_statistics`.
    """
    curves = statistics.curves()
    panels: dict[str, dict[str, str]] = {
        "Magnitude": {
            "state x": "magnitude_state",
            "denoised D(x)": "magnitude_denoised",
            "slope": "magnitude_slope",
        },
        "Distance to the end point": {
            "state x": "distance_state",
            "denoised D(x)": "distance_denoised",
        },
        "Distance to the chord": {
            "state x": "deviation_state",
            "denoised D(x)": "deviation_denoised",
        },
        "Cosine: slope, way to the end": {"": "cosine"},
    }

    def draw(figure: Any) -> None:
        places = list(figure.subplots(2, 2).flat)
        for axes, (title, names) in zip(places, panels.items(), strict=True):
            for label, name in names.items():
                _band(axes, curves[name], label)
            axes.set_title(title)
            sigma_axis(axes)
            if len(names) > 1:
                axes.legend()
            if title in ("Magnitude", "Distance to the end point"):
                log_axis(axes.yaxis, "log")  # from sigma_max sqrt(d) down to the size of an image

    return figure_png(draw, width=9.0, height=6.4)


def boomerang_png(frame: ChordFrame, *, keep: float = 0.8) -> bytes:
    """Return trajectories in their own axes: chord, PC1 and PC2, in space and from two sides.

    Args:
        frame: of `chord_frame` with two components or more.
        keep: share of the samples drawn, the middle ones, see `central_trajectories`.

    Raises:
        ValueError: fewer than two components, or keep out of range.
    """
    if frame.coordinates.shape[2] < 3:
        raise ValueError(f"frame must have 2 components, got {frame.coordinates.shape[2] - 1}")
    coordinates = frame.coordinates[..., :3]
    chord, first, second = as_array(coordinates[:, central_trajectories(coordinates, keep=keep)]).T
    share = frame.energy[:, :2].mean(0).tolist()
    many = {"lw": 0.8, "alpha": max(0.15, min(0.8, 8 / len(chord)))}

    def draw(figure: Any) -> None:
        grid = figure.add_gridspec(2, 2, width_ratios=[1.15, 1])
        space = figure.add_subplot(grid[:, 0], projection="3d")
        for a, b, c in zip(chord, first, second, strict=True):
            space.plot(a, b, c, color=PALETTE[0], **many)
        space.set(xlabel="chord", ylabel="PC1", zlabel="PC2")
        space.set_title(f"{len(chord)} trajectories in their own axes")
        space.set_box_aspect((1.6, 1, 1), zoom=0.85)
        space.locator_params(nbins=4)
        sides = (first, "PC1", share[0]), (second, "PC2", share[1] - share[0])
        for row, (values, name, energy) in enumerate(sides):
            axes = figure.add_subplot(grid[row, 1])
            axes.plot(chord.T, values.T, color=PALETTE[0], **many)
            axes.plot(chord.mean(0), values.mean(0), color=PALETTE[1], lw=2, label="mean")
            axes.set(ylabel=name, title=f"{name}: {energy:.1%} of what lies across the chord")
            axes.invert_xaxis()
            if row:
                axes.set_xlabel("along the chord (sampling runs to the right, to 0)")
            else:
                axes.legend()

    return figure_png(draw, width=10.0, height=4.6)


def pca_png(reconstruction: Reconstruction) -> bytes:
    """Return how much of each trajectory few principal directions hold: energy and error.

    Args:
        reconstruction: of `pca_reconstruction`.
    """

    def draw(figure: Any) -> None:
        left, right = figure.subplots(1, 2)
        count = np.arange(1, reconstruction.energy.shape[1] + 1)
        _spread(left, count, 1 - reconstruction.energy, "", 0)
        left.set(title="Share of the variance left out", xlabel="principal directions")
        _spread(right, count, reconstruction.error, "PCs of the centred points", 0)
        _spread(right, count, reconstruction.chord_error, "chord and as many PCs across it", 1)
        right.set(title="Relative error of rebuilding", xlabel="principal directions")
        right.legend()
        for axes in (left, right):
            log_axis(axes.yaxis, "log")
            axes.set_xticks(count)

    return figure_png(draw, width=9.0, height=3.6)


def curvature_png(sigmas: Tensor, curvature: Tensor, torsion: Tensor) -> bytes:
    """Return curvature and torsion along trajectories, two panels.

    Args:
        sigmas: noise levels, shape (N,).
        curvature: of `curvature_torsion`, shape (N,) or (N, B).
        torsion: its shape; nan, where a curve is straight, is left out.

    Raises:
        ValueError: the shapes do not match.
    """
    shape = curvature.shape
    if sigmas.shape != shape[:1] or curvature.ndim not in (1, 2) or torsion.shape != shape:
        raise ValueError(
            "sigmas must be (N,) and curvature and torsion (N,) or (N, B), got "
            f"{tuple(sigmas.shape)}, {tuple(shape)} and {tuple(torsion.shape)}"
        )

    def draw(figure: Any) -> None:
        panels = zip(
            figure.subplots(1, 2), ("Curvature", "Torsion"), (curvature, torsion), strict=True
        )
        for axes, title, values in panels:
            levels = as_array(sigmas)
            low, middle, high = _quartiles(as_array(values).reshape(len(levels), -1))
            axes.fill_between(levels, low, high, alpha=0.2, lw=0)
            axes.plot(levels, middle, label="median, middle half of the samples")
            axes.set_title(title)
            sigma_axis(axes)
        axes.axhline(0, color="#94a3b8", lw=0.8)
        axes.legend()
        log_axis(axes.yaxis, "symlog", linthresh=_threshold(torsion))
        if (curvature > 0).all():
            log_axis(figure.axes[0].yaxis, "log")

    return figure_png(draw, width=9.0, height=3.6)


def gap_png(sigmas: Tensor, gap: OptimalityGap) -> bytes:
    """Return how far a model and its trajectories are from the optimal ones.

    Args:
        sigmas: noise levels, shape (N,).
        gap: of `optimality_gap`.
    """
    lines = {
        "x and x*": gap.state,
        "D(x) and D*(x*)": gap.denoised,
        "D(x) and D*(x)": gap.on_own,
        "D(x*) and D*(x*)": gap.on_optimal,
    }

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        for label, values in lines.items():
            mean, std = values.mean(1), values.std(1, correction=0)
            _band(axes, Curve(sigmas[: len(values)], mean, std), label)
        axes.set(title="Distance between the model and the optimal one (*)")
        axes.legend()
        sigma_axis(axes)

    return figure_png(draw, width=7.0, height=3.8)


def _band(axes: Any, curve: Curve, label: str) -> None:
    sigmas, mean, std = (as_array(values) for values in curve)
    # a last sigma of 0 has no place on the axis, nor has the end's distance to itself
    seen = (sigmas > 0) & (mean != 0)
    sigmas, mean, std = sigmas[seen], mean[seen], std[seen]
    low = np.maximum(mean - std, 1e-3 * np.abs(mean))  # a logarithmic axis has no place below 0
    axes.fill_between(sigmas, low, mean + std, alpha=0.2, lw=0)
    axes.plot(sigmas, mean, label=label or None)


def _spread(axes: Any, places: np.ndarray, values: Tensor, label: str, number: int) -> None:
    """Draw the median over the samples, (B, k), with its middle half."""
    low, middle, high = _quartiles(as_array(values).T.clip(min=1e-16))
    colour = PALETTE[number]
    axes.fill_between(places, low, high, alpha=0.2, lw=0, color=colour)
    axes.plot(places, middle, marker="o", ms=4, color=colour, label=label or None)


def _quartiles(values: np.ndarray) -> np.ndarray:
    """Return the quartiles over the last axis, nan left out, shape (3, n)."""
    masked = np.ma.masked_invalid(values)
    result = np.full((3, len(values)), np.nan)
    for row, sample in enumerate(masked):
        if sample.count():
            result[:, row] = np.quantile(sample.compressed(), (0.25, 0.5, 0.75))
    return result


def _threshold(values: Tensor) -> float:
    """Return where a symlog axis turns linear: a tenth of the median size."""
    sizes = values[values.isfinite()].abs()
    return max(float(sizes.median()) / 10, 1e-12) if len(sizes) else 1.0
