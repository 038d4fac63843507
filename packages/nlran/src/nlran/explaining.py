"""One scan through a network: its answer and its heat maps."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from papercommons.errors import DataError
from torch import Tensor

from nlran.heatmaps import HeatMap, available_maps, heat_maps, to_input_grid
from nlran.prepare import GridMap, Preparation, prepare, read_mask, to_unit
from nlran.volumes import Volume, read_volume


@dataclass
class Explained:
    """One scan, what the network says, and its heat maps.

    Attributes:
        volume: the scan.
        grid: where the network's grid lies in it.
        inputs: what the network saw, float32 in [0, 1], shape (1, 1, d, h, w).
        logits: float32, shape (C,).
        maps: heat in [0, 1] on the network's grid by name, float32, shape (d, h, w).
        read_seconds: reading and preparing.
        network_seconds: logits and maps.
    """

    volume: Volume
    grid: GridMap
    inputs: Tensor
    logits: Tensor
    maps: dict[HeatMap, np.ndarray]
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
    allow_gaps: bool = False,
    mixed_units: bool = False,
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
        allow_gaps: see `read_volume`.
        mixed_units: take a scan in other units than the network's.
        mask: lung mask of the scan, where the network's preparation wants one.
        target: class that cam and gradcam explain; the likeliest if None.

    Raises:
        DataError: see `read_volume`; or units differ, or the lung mask is wanted and not given.
        ValueError: the network has no such map.
    """
    started = time.perf_counter()
    volume = read_volume(path, allow_gaps=allow_gaps)
    if volume.units != preparation.units and not mixed_units:
        raise DataError(
            f"{path}: is in {volume.units}, the network was trained on {preparation.units}; "
            "pass --mixed-units to go on all the same"
        )
    if preparation.lung_mask not in ("none", "auto") and mask is None:
        raise DataError(f"{path}: this network needs a lung mask; pass --lung-mask FILE")
    values, grid = prepare(volume, preparation, None if mask is None else read_mask(mask, volume))
    inputs = to_unit(torch.from_numpy(values), preparation)[None, None].to(device)
    read = time.perf_counter()
    slices = None if preparation.size[0] else torch.tensor([inputs.shape[2]], device=device)
    of = None if target is None else torch.tensor([target], device=device)
    with autocast or nullcontext():
        if kinds is None:
            given = () if slices is None else (slices,)
            with torch.no_grad():
                kinds = available_maps(network.features(inputs, *given))
        logits, raw = heat_maps(network, inputs, kinds, target=of, slices=slices)
    first = getattr(network, "first_centre", 0.0)
    maps = {
        kind: to_input_grid(heat, inputs.shape[2:], first=first)[0].cpu().numpy()
        for kind, heat in raw.items()
    }
    done = time.perf_counter()
    return Explained(volume, grid, inputs, logits[0].cpu(), maps, read - started, done - read)
