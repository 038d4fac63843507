"""A saved network, opened for looking at photographs on the device that the options mean."""

from __future__ import annotations

from typing import Any

from papercommons.cli import ComputeOptions
from papercommons.devices import compute_device

from defi_net.data import InpaintingData
from defi_net.localizer import Localizer, Way
from defi_net.options import DataOptions, ViewOptions
from defi_net.saved import load_network

TILE = 352


def open_localizer(
    checkpoint: str, view: ViewOptions, run: ComputeOptions
) -> tuple[Localizer, dict[str, Any]]:
    """Return a saved network and its config.json.

    Args:
        checkpoint: folder of a run or of a saved network, or file of a published checkpoint.
        view: how photographs are looked at.
        run: where and how to compute.

    Raises:
        DataError: see `defi_net.saved.load_network`.
        ValueError: the device is not there.
    """
    model, config = load_network(checkpoint)
    way, size = way_of(view, config)
    localizer = Localizer(
        model,
        way=way,
        size=size,
        overlap=view.overlap,
        batch_size=view.batch_size,
        device=compute_device(run),
        precision=run.precision,
    )
    return localizer, config


def way_of(view: ViewOptions, config: dict[str, Any]) -> tuple[Way, int]:
    """Return how a network looks at photographs, and the side of tiles or square.

    A network trained on crops at full resolution looks at tiles, one trained on resized
    photographs, as the published ones were, at resized ones.

    Args:
        view: what the user wants.
        config: of the saved network.
    """
    if view.tile is not None:
        return "tiles", view.tile
    if view.resize is not None:
        return "resize", view.resize
    if config.get("fit") == "crop":
        return "tiles", TILE
    return "resize", int(config.get("size", TILE))


def describe_way(localizer: Localizer) -> str:
    """Return in words how a network looks at photographs."""
    if localizer.way == "resize":
        return f"photographs resized to {localizer.size} x {localizer.size}"
    return f"tiles of {localizer.size} pixels, {localizer.overlap} overlapping"


def open_data(data: str, options: DataOptions, **more: Any) -> InpaintingData:
    """Return a data set and its splits.

    Args:
        data: folder or manifest.
        options: how it is read.
        **more: of `InpaintingData`.

    Raises:
        DataError: see `InpaintingData`.
        ValueError: likewise.
    """
    return InpaintingData(
        data,
        layout=options.layout,
        missing_mask=options.missing_mask,
        resize_masks=options.resize_masks,
        skip_bad=options.skip_bad,
        **more,
    )
