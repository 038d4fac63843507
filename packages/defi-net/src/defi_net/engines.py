"""Engines that inpaint: telea, ns, biharmonic, patch, and any diffusers pipeline (section 4).

An engine takes a photograph and a mask and returns a whole picture; `defi_net.synth` decides what
of it is kept. Each needs its own library, named where that is absent.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from papercommons.errors import missing_library, nearest

CLASSICAL = ("telea", "ns", "biharmonic", "patch")


class Inpainted(NamedTuple):
    """What an engine made.

    Attributes:
        photo: uint8, shape (H, W, 3).
        settings: what it drew or was told, such as ``radius=5``.
    """

    photo: np.ndarray
    settings: str = ""


Engine = Callable[[np.ndarray, np.ndarray, np.random.Generator], Inpainted]


class EngineOptions(NamedTuple):
    """Options of engines.

    Attributes:
        radius: of telea and ns in pixels, least and greatest, drawn anew for each picture.
        prompt: what diffusers is to paint.
        steps: of diffusers, >= 1.
        strength: of diffusers where the pipeline has it, in (0, 1].
        guidance: guidance scale of diffusers.
        device: torch device of diffusers.
    """

    radius: tuple[int, int] = (3, 10)
    prompt: str = ""
    steps: int = 20
    strength: float = 1.0
    guidance: float = 7.5
    device: str = "cpu"


def check_engine(name: str) -> None:
    """Check that there is such an engine and that what it needs is installed.

    Args:
        name: telea, ns, biharmonic, patch, or diffusers:FOLDER.

    Raises:
        ValueError: no such engine.
        DataError: a library is absent, or there is no such folder.
    """
    kind, _, folder = name.partition(":")
    if kind == "diffusers":
        from defi_net.diffusion import read_index

        _need("diffusers", "diffusers")
        read_index(folder)
    elif kind not in CLASSICAL or folder:
        known = [*CLASSICAL, "diffusers:FOLDER"]
        hint = nearest(name, known) or f"; there are {', '.join(known)}"
        raise ValueError(f"no engine {name!r}{hint}")
    if kind in ("telea", "ns"):
        _need("cv2", "synth")
    if kind == "biharmonic":
        _need("skimage", "synth")


def open_engine(name: str, options: EngineOptions | None = None) -> Engine:
    """Return an engine.

    Args:
        name: see `check_engine`.
        options: its options.

    Raises:
        ValueError: see `check_engine`; or an option out of range.
        DataError: see `check_engine`; or the folder holds no pipeline that inpaints.
    """
    options = options or EngineOptions()
    check_engine(name)
    check_options(options)
    kind, _, folder = name.partition(":")
    if kind == "diffusers":
        from defi_net.diffusion import DiffusersEngine

        return DiffusersEngine(folder, options)
    if kind == "biharmonic":
        return biharmonic
    if kind == "patch":
        return patch
    return lambda photo, mask, rng: opencv(photo, mask, rng, method=kind, radius=options.radius)


def check_options(options: EngineOptions) -> None:
    """Check the options of engines.

    Raises:
        ValueError: one is out of range.
    """
    low, high = options.radius
    if not 1 <= low <= high <= 100:
        raise ValueError(f"radius must be a range within 1 to 100, got {low} to {high}")
    if options.steps < 1 or not 0 < options.strength <= 1:
        raise ValueError(
            f"steps must be >= 1 and strength in (0, 1], got {options.steps}, {options.strength}"
        )


def _need(module: str, extra: str) -> None:
    if importlib.util.find_spec(module) is None:
        raise missing_library("this engine", module, f"defi-net[{extra}]")


def opencv(
    photo: np.ndarray,
    mask: np.ndarray,
    rng: np.random.Generator,
    *,
    method: str,
    radius: tuple[int, int],
) -> Inpainted:
    """Return OpenCV's inpainting: Telea's fast marching, or Navier-Stokes.

    Args:
        photo: uint8, shape (H, W, 3).
        mask: bool, shape (H, W).
        rng: draws the radius.
        method: telea or ns.
        radius: least and greatest, in pixels.
    """
    cv2: Any = importlib.import_module("cv2")
    how = cv2.INPAINT_TELEA if method == "telea" else cv2.INPAINT_NS
    drawn = int(rng.integers(radius[0], radius[1] + 1))
    filled = cv2.inpaint(np.ascontiguousarray(photo), mask.astype(np.uint8), drawn, how)
    return Inpainted(filled, f"radius={drawn}")


def biharmonic(photo: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> Inpainted:
    """Return scikit-image's biharmonic inpainting, region by region.

    Args:
        photo: uint8, shape (H, W, 3).
        mask: bool, shape (H, W).
        rng: not used.
    """
    from skimage.restoration import inpaint_biharmonic

    values = inpaint_biharmonic(photo, mask, split_into_regions=True, channel_axis=-1)
    filled = photo.copy()
    filled[mask] = np.clip(np.rint(255 * values[mask]), 0, 255).astype(np.uint8)
    return Inpainted(filled)


def patch(photo: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> Inpainted:
    """Return the picture filled with copied patches, see `defi_net.patchfill`.

    Args:
        photo: uint8, shape (H, W, 3).
        mask: bool, shape (H, W).
        rng: where chance comes from.
    """
    from defi_net.patchfill import patch_fill

    return Inpainted(patch_fill(photo, mask, rng))
