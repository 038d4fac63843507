"""Makes forged pictures, their masks and a manifest out of photographs (section 4).

Every item follows from its own seed, made of the run's seed, the photograph's content and the
item's number: results do not depend on how many processes work or in which order, and a run that
was interrupted goes on. Splits are by photograph. Needs torch for diffusers alone.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from papercommons.cli import track
from papercommons.data.distortions import noise, resize
from papercommons.data.images import find_images
from papercommons.errors import DataError
from papercommons.files import atomic_path, check_out, hash_texts, prepare_out, write_csv

from defi_net.engines import Engine, EngineOptions, open_engine
from defi_net.layouts import AUTHENTIC, shorten
from defi_net.masks import Mask, MaskFiles, draw_mask
from defi_net.postprocess import Postprocess, resize_mask
from defi_net.reading import read_photo
from defi_net.recipe import Mode, Recipe, check_recipe
from defi_net.sources import split_sources

log = logging.getLogger("papercommons")

QUALITY = 95  # of jpg and webp as a file format; for known qualities use post-processing

PROGRESS = "progress.jsonl"


@dataclass(frozen=True)
class Item:
    """One picture to be made.

    Attributes:
        photo: file it is made of.
        source: hash of that file.
        number: among those of the photograph.
        split: train, val or test.
        name: stem of its files.
    """

    photo: Path
    source: str
    number: int
    split: str
    name: str


def synthesize(
    images: str | Path | Sequence[str | Path],
    out: str,
    *,
    recipe: Recipe | None = None,
    per_image: int = 1,
    val_fraction: float = 0.1,
    test_fraction: float = 0.1,
    num_workers: int = 0,
    skip_bad: bool = False,
    resume: bool = False,
    overwrite: bool = False,
) -> list[dict[str, Any]]:
    """Write forged pictures and return the rows of their manifest.

    Args:
        images: photographs: files, or folders of them. Two files of equal content count as one.
        out: folder for ``images/``, ``labels/`` and manifest.csv, which is written last.
        recipe: how items are made.
        per_image: items of each photograph, >= 1.
        val_fraction: share of the photographs for validation.
        test_fraction: share for testing.
        num_workers: processes beside the main one; results do not depend on it.
        skip_bad: leave out photographs that cannot be used, with a count.
        resume: go on with an interrupted run of equal settings.
        overwrite: empty `out` first if it holds an earlier run.

    Raises:
        ValueError: an option out of range.
        DataError: no photographs, one that cannot be used, too few for the splits, an engine whose
            library is absent, or `out` is not empty.
    """
    recipe = recipe or Recipe()
    check_recipe(recipe)
    if per_image < 1:
        raise ValueError(f"per_image must be >= 1, got {per_image}")
    if num_workers and any(name.startswith("diffusers") for name in recipe.engines):
        raise ValueError("diffusers engines work in one process; set num_workers to 0")
    places = [images] if isinstance(images, str | Path) else list(images)
    _check_places(places, out)
    models = [engine.partition(":")[2] for engine in recipe.engines]
    keep = [*places, recipe.mask_folder, *models]
    check_out(out, resume=resume, overwrite=overwrite, go_on="--resume", keep=keep)
    photos = _distinct(_without_masks(find_images(places)))
    split = split_sources(photos, {"val": val_fraction, "test": test_fraction}, seed=recipe.seed)
    settings = _settings(recipe, photos, per_image, val_fraction, test_fraction, skip_bad)
    folder = prepare_out(out, settings, resume=resume, overwrite=overwrite)
    items = [
        Item(photo, source, number, split[source], f"{_stem(photo, source)}_{number:03d}")
        for source, photo in photos.items()
        for number in range(per_image)
    ]
    done = _read_progress(folder)
    left = [item for item in items if item.name not in done]
    with (folder / PROGRESS).open("a", encoding="utf-8") as progress:
        for row in _run(left, recipe, folder, num_workers):
            if "fault" in row and not skip_bad:
                raise DataError(row["fault"])
            done[row["name"]] = row
            progress.write(json.dumps(row) + "\n")
            progress.flush()
    rows = [done[item.name] for item in items]
    return _finish(folder, rows)


def _finish(folder: Path, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    faults = list(dict.fromkeys(row["fault"] for row in rows if "fault" in row))
    if faults:
        log.warning("--skip-bad leaves out %d photographs: %s", len(faults), shorten(faults, "; "))
    good = [{k: v for k, v in row.items() if k != "name"} for row in rows if "fault" not in row]
    if not good:
        raise DataError(f"no photograph can be used: {faults[0]}")
    write_csv(folder / "manifest.csv", good)
    (folder / PROGRESS).unlink()
    return good


def _check_places(places: Sequence[str | Path], out: str) -> None:
    for place in places:
        if Path(out).resolve().is_relative_to(Path(place).resolve()):
            raise DataError(f"{out}: lies in {place}, where the photographs are; choose another")


def _without_masks(paths: Sequence[Path]) -> list[Path]:
    """Return the files but for NAME_mask where NAME is there too: those are no photographs."""
    stems = {path.with_suffix("") for path in paths}

    def is_mask(path: Path) -> bool:
        name = path.stem.removesuffix("_mask")
        return name not in ("", path.stem) and path.with_name(name) in stems

    return [path for path in paths if not is_mask(path)]


def _distinct(paths: Iterable[Path]) -> dict[str, Path]:
    """Return the files by content; of equal ones the first."""
    found: dict[str, Path] = {}
    for path in paths:
        with path.open("rb") as file:
            source = hashlib.file_digest(file, "sha256").hexdigest()[:16]
        if source in found:
            log.warning("%s is the same picture as %s and is left out", path, found[source])
        found.setdefault(source, path)
    return found


def _stem(photo: Path, source: str) -> str:
    """Return a name for files made of a photograph: readable, plain, and unlike any other's."""
    plain = "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "-" for c in photo.stem)
    return f"{plain[:40]}_{source[:8]}"


def _settings(
    recipe: Recipe, photos: Mapping[str, Path], per_image: int, *rest: Any
) -> dict[str, Any]:
    val_fraction, test_fraction, skip_bad = rest
    return {
        **recipe.settings(),
        "per_image": per_image,
        "val_fraction": val_fraction,
        "test_fraction": test_fraction,
        "skip_bad": skip_bad,
        "photos": len(photos),
        "photos_hash": hash_texts(sorted(photos)),
    }


def _read_progress(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the rows of items that an interrupted run finished, by name."""
    path = folder / PROGRESS
    rows: dict[str, dict[str, Any]] = {}
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    for line in lines:
        try:
            row = json.loads(line)
        except json.JSONDecodeError:  # the last line of a run that was killed
            continue
        if "fault" in row or (folder / row["image"]).is_file():
            rows[row["name"]] = row
    return rows


def _run(
    items: Sequence[Item], recipe: Recipe, folder: Path, num_workers: int
) -> Iterator[dict[str, Any]]:
    """Give the row of each item as it is made."""
    if num_workers == 0:
        for item in track(items, "Inpainting"):
            yield _make(item, recipe, folder)
        return
    count = len(items)
    with ProcessPoolExecutor(num_workers, mp_context=get_context("spawn")) as processes:
        rows = processes.map(_make, items, [recipe] * count, [folder] * count, chunksize=4)
        for _, row in zip(track(items, "Inpainting"), rows, strict=True):
            yield row


def _make(item: Item, recipe: Recipe, folder: Path) -> dict[str, Any]:
    """Make one item and return its row, or ``{"name", "fault"}``."""
    try:
        return _write(item, recipe, folder)
    except DataError as error:
        fault = str(error)
        where = "" if str(item.photo) in fault else f"{item.photo}: "
        return {"name": item.name, "fault": where + fault}


@lru_cache(maxsize=8)
def _engine(name: str, options: EngineOptions) -> Engine:
    return open_engine(name, options)


@lru_cache(maxsize=1)
def _photo(path: Path, source: str) -> np.ndarray:
    """Return a photograph; of the next items many are made of the same one."""
    return read_photo(path)


@lru_cache(maxsize=1)
def _mask_files(folder: str) -> MaskFiles:
    return MaskFiles(folder)


def _write(item: Item, recipe: Recipe, folder: Path) -> dict[str, Any]:
    from PIL import Image

    rng = np.random.default_rng((recipe.seed, int(item.source, 16), item.number))
    photo = _cut(item, recipe, rng)
    sigma = rng.uniform(*recipe.sensor_noise)
    if sigma > 0:
        photo = noise(photo, sigma, rng)
    forged = rng.random() >= recipe.authentic
    first = int(item.source[:8], 16)  # not all photographs begin with the same engine
    engine = recipe.engines[(first + item.number) % len(recipe.engines)]
    kind = recipe.masks[rng.integers(len(recipe.masks))]
    mask, settings = np.zeros(photo.shape[:2], dtype=bool), ""
    if forged:
        mask = _draw(kind, photo, recipe, item, rng)
        made = _engine(engine, recipe.engine_options)(photo, mask, rng)
        settings = made.settings
        photo = made.photo if recipe.mode == "fr" else np.where(mask[..., None], made.photo, photo)
    photo, post = Postprocess(recipe.post or {})(photo, rng)
    mask = resize_mask(mask, photo.shape[:2])
    names = {"image": f"images/{item.name}.{recipe.format}", "mask": ""}
    if forged:
        names["mask"] = f"labels/{item.name}.png"
        with atomic_path(folder / names["mask"]) as path:
            Image.fromarray(mask.astype(np.uint8) * 255).save(path)
    with atomic_path(folder / names["image"]) as path:
        options: dict[str, Any] = {} if recipe.format == "png" else {"quality": QUALITY}
        Image.fromarray(photo).save(path, **options)
    return {
        "name": item.name,
        **names,
        "method": _method(engine, recipe.mode) if forged else AUTHENTIC,
        "split": item.split,
        "source": item.photo.name,
        "source_hash": item.source,
        "mode": recipe.mode if forged else "",
        "mask_kind": kind if forged else "",
        "area": round(float(mask.mean()), 4),
        "engine": settings,
        "sensor_noise": round(float(sigma), 3),
        "post": post,
        "number": item.number,
    }


def _cut(item: Item, recipe: Recipe, rng: np.random.Generator) -> np.ndarray:
    """Return the part of a photograph that an item is made of."""
    photo, (low, high) = _photo(item.photo, item.source), recipe.scale
    if recipe.size is not None:
        height, width = photo.shape[:2]
        low = max(low, recipe.size / min(height, width))
        if low > high:
            raise DataError(
                f"{item.photo}: is {width}x{height}, too small for --size {recipe.size}; choose a "
                "smaller one, or leave it out (--skip-bad)"
            )
    factor = float(np.exp(rng.uniform(np.log(low), np.log(high))))
    if factor != 1:
        photo = resize(photo, factor)
    if recipe.size is None:
        return photo
    top, left = (int(rng.integers(0, side - recipe.size + 1)) for side in photo.shape[:2])
    return photo[top : top + recipe.size, left : left + recipe.size]


def _method(engine: str, mode: Mode) -> str:
    kind, _, folder = engine.partition(":")
    name = f"{kind}-{Path(folder).name}" if folder else kind
    return f"{name}-fr" if mode == "fr" else name


def _draw(
    kind: Mask, photo: np.ndarray, recipe: Recipe, item: Item, rng: np.random.Generator
) -> np.ndarray:
    shape = (photo.shape[0], photo.shape[1])
    if kind == "file":
        whole = item.photo if recipe.size is None else None
        return _mask_files(str(recipe.mask_folder)).draw(shape, rng, area=recipe.area, photo=whole)
    return draw_mask(kind, shape, rng, area=recipe.area)
