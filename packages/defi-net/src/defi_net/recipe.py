"""How forged pictures are made: the options of `defi_net.synth`, and their checks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

import numpy as np

from defi_net.engines import EngineOptions, check_engine, check_options
from defi_net.masks import Area, Mask, MaskFiles, check_area, draw_mask
from defi_net.postprocess import Postprocess, Range
from defi_net.reading import SHORTEST

Mode = Literal["sp", "fr"]
Format = Literal["png", "jpg", "webp"]


@dataclass(frozen=True)
class Recipe:
    """How items are made; plain values, so that it can be noted and handed to processes.

    Attributes:
        engines: names, see `defi_net.engines.check_engine`; the items of a photograph take turns.
        masks: kinds, see `defi_net.masks.draw_mask`; one is drawn for each item.
        area: least and greatest share of the picture to inpaint.
        mask_folder: where masks of the kind ``file`` come from.
        mode: ``sp`` keeps of the engine's picture what is masked (in pixels, for a pipeline's
            autoencoder changes the rest too); ``fr`` keeps all of it.
        size: side of a square cut out at random; None takes the whole photograph.
        scale: the photograph is first resized by a factor in this range.
        sensor_noise: least and greatest sigma of noise put on before inpainting, in grey levels: it
            stands for a sensor's, which resizing removes.
        post: what happens after inpainting, see `Postprocess`.
        authentic: share of items that are not forged, but treated alike otherwise.
        format: file format: png, jpg or webp (of quality 95).
        engine_options: see `EngineOptions`.
        seed: of everything.
    """

    engines: tuple[str, ...] = ("telea", "ns")
    masks: tuple[Mask, ...] = ("freeform",)
    area: Area = (0.02, 0.4)
    mask_folder: str | None = None
    mode: Mode = "sp"
    size: int | None = 256
    scale: Range = (1.0, 1.0)
    sensor_noise: Range = (0.0, 0.0)
    post: Mapping[str, Range] | None = None
    authentic: float = 0.0
    format: Format = "png"
    engine_options: EngineOptions = field(default_factory=EngineOptions)
    seed: int = 0

    def settings(self) -> dict[str, Any]:
        """Return the options as plain values, for config.yaml."""
        return {each.name: _plain(getattr(self, each.name)) for each in fields(self)}


def check_recipe(recipe: Recipe) -> None:
    """Check a recipe before anything is read or written.

    Raises:
        ValueError: an option out of range or an unknown name.
        DataError: an engine's library or folder is absent, or the mask folder holds no images.
    """
    if not (recipe.engines and recipe.masks):
        raise ValueError("engines and masks must name at least one each")
    for name, kinds in (("mode", get_args(Mode)), ("format", get_args(Format))):
        if getattr(recipe, name) not in kinds:
            raise ValueError(f"{name} must be one of {', '.join(kinds)}")
    for name in recipe.engines:
        check_engine(name)
        if recipe.mode == "fr" and not name.startswith("diffusers"):
            raise ValueError(f"mode fr needs an engine that makes whole pictures, {name} does not")
    check_options(recipe.engine_options)
    check_area(recipe.area)
    Postprocess(recipe.post or {})
    for kind in recipe.masks:
        if kind != "file":
            draw_mask(kind, (SHORTEST, SHORTEST), np.random.default_rng(0))
    if "file" in recipe.masks and recipe.mask_folder is None:
        raise ValueError("masks from files need mask_folder")
    if recipe.mask_folder is not None:
        MaskFiles(recipe.mask_folder)
    if recipe.size is not None and recipe.size < SHORTEST:
        raise ValueError(f"size must be >= {SHORTEST}, got {recipe.size}")
    if not 0.1 <= recipe.scale[0] <= recipe.scale[1] <= 10:
        raise ValueError(f"scale must be a range within 0.1 to 10, got {recipe.scale}")
    if not 0 <= recipe.sensor_noise[0] <= recipe.sensor_noise[1] <= 100:
        raise ValueError(f"sensor_noise must be a range within 0 to 100, got {recipe.sensor_noise}")
    if not 0 <= recipe.authentic < 1:
        raise ValueError(f"authentic must be in [0, 1), got {recipe.authentic}")


def _plain(value: Any) -> Any:
    if isinstance(value, EngineOptions):
        return {name: _plain(each) for name, each in value._asdict().items()}
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, tuple | list) else value
