"""The geometry of a model's trajectories, as numbers and pictures; `gits-sampling-analyze`."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from papercommons.cli import ComputeOptions
from papercommons.data.sampling import mix_seeds
from papercommons.errors import DataError
from papercommons.files import atomic_path, prepare_out
from papercommons.report import Result, Section, describe_device, write_report
from torch import Tensor

from gits_sampling.analysis import (
    ChordFrame,
    OptimalityGap,
    Reconstruction,
    TrajectoryStatistics,
    chord_frame,
    optimality_gap,
    pca_reconstruction,
    trajectory_statistics,
)
from gits_sampling.curvature import curvature_torsion
from gits_sampling.euler import euler_trajectories
from gits_sampling.latents import draw_latents
from gits_sampling.loading import Loaded
from gits_sampling.models import Denoiser, EmpiricalDenoiser
from gits_sampling.opening import batch_of, fingerprint_of, open_model, settings_of
from gits_sampling.options import PACKAGE, ModelOptions
from gits_sampling.sigmas import polynomial
from gits_sampling.trajectory_pictures import (
    boomerang_png,
    curvature_png,
    gap_png,
    pca_png,
    statistics_png,
)

CURVED = 16
"""Most samples whose curvature is measured: their trajectories have many points."""

LIMITS = (
    "Of trajectories of Euler's method from pure noise; torsion is not given where a curve is "
    "straight to rounding. Curvature and torsion are those of each trajectory's own three axes."
)


@dataclass(frozen=True)
class Geometry:
    """What is measured of trajectories.

    Attributes:
        statistics: of each point.
        frame: each trajectory in its own axes.
        reconstruction: from few directions.
        curved: noise levels (N,), curvature and torsion (N, B); None if not measured.
        gap: to an optimal model; None without one.
    """

    statistics: TrajectoryStatistics
    frame: ChordFrame
    reconstruction: Reconstruction
    curved: tuple[Tensor, Tensor, Tensor] | None = None
    gap: OptimalityGap | None = None


def analyze_model(
    model: str,
    points: int,
    samples: int,
    curvature_points: int,
    window: int,
    data: str | None,
    out: str,
    about: ModelOptions,
    run: ComputeOptions,
) -> Result:
    """Measure a model's trajectories, write numbers, pictures and a report; return the result.

    Args:
        model: see `gits_sampling.loading.load_denoiser`.
        points: of the trajectories.
        samples: trajectories.
        curvature_points: of those for curvature; 0 for none.
        window: points of a local fit.
        data: training images; None for none.
        out: folder of the run.
        about: the model.
        run: where and how to compute.

    Raises:
        DataError: the model or the images cannot be used.
        ValueError: an argument out of range, the model gives NaN or infinity, or a trajectory that
            ends where it starts.
    """
    loaded = open_model(model, about, run)
    optimal = None if data is None else optimal_denoiser(data, loaded)
    batch = batch_of(loaded, about.batch_size)
    started = time.perf_counter()
    seeds = [mix_seeds(run.seed, k) for k in range(samples)]
    latents = draw_latents(seeds, loaded.shape, loaded.sigma_max, loaded.like)
    found = measure(loaded, latents, points, curvature_points, window, optimal=optimal, batch=batch)
    settings: dict[str, Any] = settings_of(model, about, loaded)
    settings |= {"points": points, "samples": samples, "curvature_points": curvature_points}
    settings |= {"window": window, "data": data, "out": out, **run.settings()}
    metrics = headline(found)
    result = Result(
        package=PACKAGE,
        command="gits-sampling-analyze",
        title=f"{model}: {samples} trajectories of {points} points; two directions across the "
        f"chord hold {metrics['energy_across_chord_2']:.1%} of what lies across it",
        metrics=metrics | {"seconds": time.perf_counter() - started},
        settings=settings,
        limits=LIMITS,
        data_hash=fingerprint_of(loaded, loaded.sigma_max, loaded.sigma_min),
        device=describe_device(loaded.device),
    )
    folder = prepare_out(out, settings, overwrite=run.overwrite)
    with atomic_path(folder / "stats.npz") as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays(found))  # type: ignore[arg-type]
    result.files["statistics"] = str(folder / "stats.npz")
    sections = geometry_sections(found)
    for name, section in sections.items():
        write_picture(folder / f"{name}.png", section)
    write_report(folder / "report.html", result, list(sections.values()))
    result.save(folder)
    return result


def measure(
    loaded: Loaded,
    latents: Tensor,
    points: int,
    curvature_points: int,
    window: int,
    *,
    optimal: Denoiser | None = None,
    batch: int = 64,
) -> Geometry:
    """Return the geometry of the trajectories from latents.

    Args:
        loaded: the model.
        latents: start states, shape (B, ...).
        points: of the trajectories, on the polynomial grid.
        curvature_points: of those for curvature, even in sigma; 0 for none.
        window: points of a local fit.
        optimal: the optimal denoiser of the training images; None for none.
        batch: samples at once.

    Raises:
        ValueError: see `euler_trajectories` and `trajectory_statistics`.
    """
    low, high = loaded.sigma_min, loaded.sigma_max
    grid = polynomial(points, low, high)
    states, denoised = euler_trajectories(loaded.denoiser, latents, grid, batch=batch)
    most = min(points, latents[0].numel(), 5)
    frame = chord_frame(states, components=min(2, most))
    reconstruction = pca_reconstruction(states, components=most)
    gap = None
    if optimal is not None:
        best, _ = euler_trajectories(optimal, latents, grid, batch=batch)
        device = latents.device
        parts = [
            optimality_gap(loaded.denoiser, optimal, a.to(device), b.to(device), grid)
            for a, b in zip(states.split(batch, 1), best.split(batch, 1), strict=True)
        ]
        names = [field.name for field in fields(OptimalityGap)]
        gap = OptimalityGap(*(torch.cat([getattr(p, n).cpu() for p in parts], 1) for n in names))
    curved = None
    if curvature_points and latents[0].numel() >= 3:
        even = polynomial(curvature_points, low, high, 1.0)
        some, _ = euler_trajectories(loaded.denoiser, latents[:CURVED], even, batch=batch)
        axes = chord_frame(some, components=2).coordinates
        curved = even, *curvature_torsion(axes, window=window)
    statistics = trajectory_statistics(states, denoised, grid)
    return Geometry(statistics, frame, reconstruction, curved, gap)


def optimal_denoiser(data: str, loaded: Loaded) -> EmpiricalDenoiser:
    """Return the closed-form denoiser of the training images, for a model's shape.

    Args:
        data: see `gits_sampling.data.load_images`.
        loaded: the model.

    Raises:
        DataError: the images cannot be used, or are not of the model's shape.
    """
    from gits_sampling.data import load_images

    if len(loaded.shape) != 3 or loaded.shape[1] != loaded.shape[2]:
        raise DataError(f"--data is for models of square images, this one has {loaded.shape}")
    splits = load_images(data, size=loaded.shape[1], grey=loaded.shape[0] == 1).splits
    images = splits.get("all") or splits["train"]
    if images.shape != loaded.shape:
        raise DataError(f"{data}: images are {images.shape}, the model's samples {loaded.shape}")
    return EmpiricalDenoiser(images.read(range(len(images)))).to(loaded.device)


def headline(found: Geometry) -> dict[str, float]:
    """Return the numbers to read first."""
    chord = found.statistics.distance_state[0]
    curve = found.statistics.curves()["deviation_state"]
    place = int(curve.mean.argmax())
    across, rebuilt = found.frame.energy.mean(0), found.reconstruction.error.mean(0)
    numbers = {
        "chord_length": float(chord.mean()),
        "largest_deviation": float(curve.mean[place]),
        "largest_deviation_share_of_chord": float(curve.mean[place] / chord.mean()),
        "largest_deviation_at_sigma": float(curve.sigmas[place]),
        "least_cosine": float(found.statistics.cosine.mean(1).min()),
        "energy_PC1": float(found.reconstruction.energy[:, 0].mean()),
        **{f"energy_across_chord_{k}": float(e) for k, e in enumerate(across.tolist(), 1)},
        **{f"error_rebuilt_from_{k}": float(e) for k, e in enumerate(rebuilt.tolist()[:3], 1)},
    }
    if found.gap is not None:
        numbers["gap_to_optimal_end"] = float(found.gap.state[-1].mean())
    return numbers


def arrays(found: Geometry) -> dict[str, np.ndarray]:
    """Return everything that was measured, by name, for an .npz file."""
    values: dict[str, Tensor] = {
        **{f.name: getattr(found.statistics, f.name) for f in fields(found.statistics)},
        "frame_coordinates": found.frame.coordinates,
        "frame_energy": found.frame.energy,
        **{f"pca_{name}": value for name, value in asdict(found.reconstruction).items()},
    }
    if found.curved is not None:
        values |= dict(zip(("curvature_sigmas", "curvature", "torsion"), found.curved, strict=True))
    if found.gap is not None:
        values |= {f"gap_{name}": value for name, value in asdict(found.gap).items()}
    return {name: value.cpu().numpy() for name, value in values.items()}


def geometry_sections(found: Geometry) -> dict[str, Section]:
    """Return the parts of a report on trajectories, by the name of their picture."""
    sections = {
        "statistics": Section(
            "Along the trajectories",
            "Means over the samples, with one standard deviation.",
            figure=statistics_png(found.statistics),
            caption="Magnitude, distance to the end, distance to the chord, and cosine",
        )
    }
    if found.frame.coordinates.shape[2] == 3:
        sections["boomerang"] = Section(
            "The shape",
            "Each trajectory in its own axes: from start to end, and the two directions across "
            "that hold most. The middle 80 % of the samples.",
            figure=boomerang_png(found.frame),
            caption="Trajectories in three dimensions, and from two sides",
        )
    sections["pca"] = Section(
        "How few directions are enough",
        figure=pca_png(found.reconstruction),
        caption="Variance left out and relative error of rebuilding, by number of directions",
    )
    if found.curved is not None:
        sections["curvature"] = Section(
            "Curvature and torsion",
            figure=curvature_png(*found.curved),
            caption="Curvature and torsion along the trajectories",
        )
    if found.gap is not None:
        sections["gap"] = Section(
            "Distance to the optimal model",
            "The optimal denoiser of the training images gives back only these images.",
            figure=gap_png(found.statistics.sigmas, found.gap),
            caption="Distances between the model and the optimal one, from the same latents",
        )
    return sections


def write_picture(path: Path, section: Section) -> None:
    """Write a section's picture, whole or not at all.

    Args:
        path: of the PNG.
        section: with a figure.
    """
    assert section.figure is not None
    with atomic_path(path) as temporary:
        temporary.write_bytes(section.figure)
