"""One scan through a network: its answer and its heat maps."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from papercommons.errors import DataError
from torch import Tensor

from nlran.heatmaps import HeatMap, heat_maps, to_input_grid
from nlran.masks import find_mask
from nlran.options import ReadingOptions
from nlran.preparation import GridMap, Preparation, prepare, read_mask, to_unit
from nlran.volumes import Volume, read_volume


@dataclass
class Explained:
    """One scan, what the network says, and its heat maps.

    Attributes:
        path: of the scan.
        volume: the scan.
        grid: where the network's grid lies in it.
        inputs: what the network saw, float32 in [0, 1], shape (1, 1, d, h, w).
        logits: float32, shape (C,).
        maps: heat in [0, 1] on the network's grid by name, float32, shape (d, h, w).
        read_seconds: reading and preparing.
        network_seconds: logits and maps.
    """

    path: Path
    volume: Volume
    grid: GridMap
    inputs: Tensor
    logits: Tensor
    maps: dict[str, np.ndarray]
    read_seconds: float
    network_seconds: float


def explain_scan(
    network: Any,
    path: str | Path,
    preparation: Preparation,
    kinds: Sequence[HeatMap] | None = None,
    *,
    device: torch.device | str = "cpu",
    autocast: AbstractContextManager[Any] | None = None,
    reading: ReadingOptions = ReadingOptions(),  # noqa: B008
    mask: str | Path | None = None,
    target: int | None = None,
) -> Explained:
    """Read a scan, and return the network's answer with its heat maps.

    Args:
        network: in evaluation mode, on `device`.
        path: the scan.
        preparation: of the network.
        kinds: maps wanted; None: all that the network has.
        device: where to compute.
        autocast: context manager of the number format; None computes in float32.
        reading: how the scan is read.
        mask: lung mask of the scan, where the network's preparation wants one.
        target: class that cam and gradcam explain; the likeliest if None.

    Raises:
        DataError: see `read_volume`; or units differ, or the lung mask is wanted and not given.
        ValueError: the network has no such map.
    """
    started = time.perf_counter()
    volume = read_volume(path, allow_gaps=reading.allow_gaps)
    if volume.units != preparation.units and not reading.mixed_units:
        raise DataError(
            f"{path}: is in {volume.units}, the network was trained on {preparation.units}; "
            "pass --mixed-units to go on all the same"
        )
    if preparation.lung_mask not in ("none", "auto") and mask is None:
        raise DataError(f"{path}: this network was trained on masked lungs; pass --lung-mask")
    if preparation.lung_mask == "none" and mask is not None:
        raise DataError(f"{path}: this network was trained on whole chests; leave out --lung-mask")
    values, grid = prepare(volume, preparation, None if mask is None else read_mask(mask, volume))
    own = replace(preparation, units=volume.units)
    inputs = to_unit(torch.from_numpy(values), own)[None, None].to(device)
    read = time.perf_counter()
    logits, maps = explain_inputs(
        network, inputs, preparation, kinds, autocast=autocast, target=target
    )
    spent = read - started, time.perf_counter() - read
    return Explained(Path(path), volume, grid, inputs, logits, maps, *spent)


def explain_inputs(
    network: Any,
    inputs: Tensor,
    preparation: Preparation,
    kinds: Sequence[HeatMap] | None = None,
    *,
    autocast: AbstractContextManager[Any] | None = None,
    target: int | None = None,
) -> tuple[Tensor, dict[str, np.ndarray]]:
    """Return a network's logits and heat maps of a scan that is read and prepared.

    Args:
        network: in evaluation mode, on the device of `inputs`.
        inputs: of `Explained`, float32 in [0, 1], shape (1, 1, d, h, w).
        preparation: of the network.
        kinds: see `explain_scan`, like the next two.
        autocast: context manager of the number format.
        target: class that cam and gradcam explain.

    Returns:
        Logits, float32, shape (C,), and maps as in `Explained`, both on the CPU.

    Raises:
        ValueError: the network has no such map.
    """
    device, size = inputs.device, inputs.shape[2:]
    slices = None if preparation.size[0] else torch.tensor([size[0]], device=device)
    of = None if target is None else torch.tensor([target], device=device)
    with autocast or nullcontext():
        logits, raw = heat_maps(network, inputs, kinds, target=of, slices=slices)
    return logits[0].cpu(), {
        kind: to_input_grid(heat, size)[0].cpu().numpy() for kind, heat in raw.items()
    }


def check_lung_mask(reading: ReadingOptions, count: int) -> None:
    """Raise DataError where one mask file is given for several scans.

    Args:
        reading: how scans are read.
        count: number of scans.
    """
    if reading.lung_mask is not None and count > 1 and Path(reading.lung_mask).is_file():
        raise DataError(
            f"{reading.lung_mask}: one mask for {count} scans; give a folder of masks named as they"
        )


def lung_mask_of(relative: str, reading: ReadingOptions) -> Path | None:
    """Return the lung mask of a scan, None if none is given.

    Args:
        relative: name of the scan, see `nlran.layouts.find_scan_files`.
        reading: how scans are read.

    Raises:
        DataError: the folder has no mask for it.
    """
    if reading.lung_mask is None:
        return None
    given = Path(reading.lung_mask)
    found = given if given.is_file() else find_mask(given, relative)
    if found is None:
        raise DataError(f"{given}: no lung mask for {relative}; expected the same relative name")
    return found
