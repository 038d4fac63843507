"""`defi-net-synth`: forged pictures, masks and a manifest from photographs, and what was made."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from papercommons.errors import DataError, counted
from papercommons.files import hash_files
from papercommons.report import Result, Section, write_report

from defi_net.engines import EngineOptions
from defi_net.layouts import AUTHENTIC
from defi_net.options import PACKAGE, STEPS, MaskOptions, PictureOptions
from defi_net.pictures import grid_png, overlay
from defi_net.reading import read_mask, read_photo
from defi_net.recipe import Recipe
from defi_net.synth import synthesize

LIMITS = (
    "Forgeries made by these engines are a training ground: a network that finds them need not "
    "find those of other engines. Masks other than from files are unrelated to what the pictures "
    "show. Check the licence of the photographs before passing the pictures on."
)
EXAMPLES = 4  # of each method, in the report


def make_recipe(what: MaskOptions, pictures: PictureOptions, seed: int) -> Recipe:
    """Return the recipe that the options of the command mean.

    Args:
        what: what is inpainted.
        pictures: how pictures are cut and treated.
        seed: of everything.

    Raises:
        ValueError: a range that is none.
        DataError: the device is not there.
    """
    low, high = pair(what.radius, "--radius")
    post = {
        name: pair(given, f"--{name}")
        for name in STEPS
        if (given := getattr(pictures, name)) is not None
    }
    return Recipe(
        engines=tuple(what.engines),
        masks=tuple(what.masks),  # type: ignore[arg-type]
        area=pair(what.area, "--area"),
        mask_folder=what.mask_folder,
        mode=what.mode,
        size=pictures.size or None,
        scale=pair(pictures.scale, "--scale"),
        sensor_noise=pair(pictures.sensor_noise, "--sensor-noise"),
        post=post or None,
        authentic=what.authentic,
        format=pictures.format,
        engine_options=EngineOptions(
            radius=(round(low), round(high)),
            prompt=what.prompt,
            steps=what.steps,
            strength=what.strength,
            guidance=what.guidance,
            device=_device(what),
        ),
        seed=seed,
    )


def pair(numbers: Sequence[float], option: str) -> tuple[float, float]:
    """Return a range given as LEAST,GREATEST, or as one number that is both.

    Args:
        numbers: what was given.
        option: its name, for the message.

    Raises:
        ValueError: not one or two numbers.

    Example:
        >>> pair([90], "--jpeg"), pair([70, 100], "--jpeg")
        ((90, 90), (70, 100))
    """
    if len(numbers) not in (1, 2):
        raise ValueError(f"{option} must be LEAST,GREATEST or one number, got {list(numbers)}")
    return numbers[0], numbers[-1]


def _device(what: MaskOptions) -> str:
    if not any(name.startswith("diffusers") for name in what.engines):
        return "cpu"
    import torch

    cuda = torch.cuda.is_available()
    if what.accelerator == "gpu" and not cuda:
        raise DataError("--accelerator gpu: no CUDA device is there; take cpu or auto")
    return "cuda" if cuda and what.accelerator != "cpu" else "cpu"


def synthesize_pictures(
    images: Sequence[str],
    out: str,
    recipe: Recipe,
    per_image: int,
    val_fraction: float,
    test_fraction: float,
    num_workers: int,
    skip_bad: bool,
    resume: bool,
    overwrite: bool,
) -> Result:
    """Make pictures, and return what was made.

    Args:
        images: files and folders of photographs.
        out: folder.
        recipe: how items are made.
        per_image: items of each photograph.
        val_fraction: share of the photographs for validation.
        test_fraction: share for testing.
        num_workers: processes beside the main one.
        skip_bad: leave out photographs that cannot be used.
        resume: go on with an interrupted run.
        overwrite: empty `out` first.

    Raises:
        DataError: see `defi_net.synth.synthesize`.
        ValueError: likewise.
    """
    rows = synthesize(
        images,
        out,
        recipe=recipe,
        per_image=per_image,
        val_fraction=val_fraction,
        test_fraction=test_fraction,
        num_workers=num_workers,
        skip_bad=skip_bad,
        resume=resume,
        overwrite=overwrite,
    )
    folder = Path(out)
    sources = {row["source_hash"] for row in rows}
    manifest = folder / "manifest.csv"
    result = Result(
        package=PACKAGE,
        command="defi-net-synth",
        title=f"{len(rows):,} pictures made of {counted(len(sources), 'photograph')}",
        rows=[
            {
                "method": method,
                **{
                    split: sum(r["method"] == method and r["split"] == split for r in rows)
                    for split in ("train", "val", "test")
                },
                "mean area": _mean([r["area"] for r in rows if r["method"] == method]),
            }
            for method in sorted({row["method"] for row in rows})
        ],
        metrics={
            "pictures": len(rows),
            "sources": {
                split: len({r["source_hash"] for r in rows if r["split"] == split})
                for split in ("train", "val", "test")
            },
        },
        settings={
            "images": list(images),
            "out": out,
            **recipe.settings(),
            "per_image": per_image,
            "val_fraction": val_fraction,
            "test_fraction": test_fraction,
            "skip_bad": skip_bad,
        },
        limits=LIMITS,
        data_hash=hash_files([manifest]),
        device=recipe.engine_options.device,
        files={"manifest": str(manifest)},
        notes=["no photograph is in two splits; area: share of the pixels that were inpainted"],
    )
    write_report(folder / "report.html", result, _sections(folder, rows))
    result.save(folder)
    return result


def _sections(folder: Path, rows: Sequence[dict[str, Any]]) -> list[Section]:
    """Return some pictures of each method, with the outline of what was inpainted."""
    sections = []
    for method in sorted({row["method"] for row in rows}):
        own = [row for row in rows if row["method"] == method]
        chosen = own[:: max(1, len(own) // EXAMPLES)][:EXAMPLES]
        pictures = [read_photo(folder / row["image"]) for row in chosen]
        captions = [f"{row['split']}, {row['post'] or 'as it is'}" for row in chosen]
        if method != AUTHENTIC:
            masks = [read_mask(folder / row["mask"]).mask for row in chosen]
            nothing = [np.zeros(mask.shape, np.float32) for mask in masks]
            outlined = [
                overlay(picture, zero, mask=mask)
                for picture, zero, mask in zip(pictures, nothing, masks, strict=True)
            ]
            pictures = [*pictures, *outlined]
            captions += [f"{row['mask_kind']}, {row['area']:.0%}" for row in chosen]
        sections.append(
            Section(
                method,
                figure=grid_png(pictures, captions, columns=len(chosen)),
                caption="Below, the outline of what was inpainted." * (method != AUTHENTIC),
            )
        )
    return sections


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
