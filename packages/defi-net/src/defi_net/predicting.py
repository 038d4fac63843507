"""`defi-net-predict`: maps, masks and overlays of photographs of any size."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from papercommons.cli import ComputeOptions, track
from papercommons.data.defects import LeftOut
from papercommons.data.images import find_images
from papercommons.errors import DataError, counted
from papercommons.files import (
    atomic_path,
    hash_files,
    hash_saved,
    name_outputs,
    prepare_out,
    read_note,
    write_csv,
    write_json,
)
from papercommons.metrics.detection import image_score
from papercommons.report import Result, Section, describe_device, write_report

from defi_net.calibration import FIXED, ImageThreshold, remembered
from defi_net.localizer import Localizer
from defi_net.opening import describe_way, open_localizer
from defi_net.options import PACKAGE, ViewOptions
from defi_net.pictures import overlay, strip
from defi_net.reading import SHORTEST, read_header, read_photo
from defi_net.saved import LIMITS

FOLDER = "photographs"
SHOWN = 24  # photographs whose pictures are in the report; the others are linked
_TABLE = ("photograph", "prediction", "score", "marked", "width", "height", "seconds")


def predict_photos(
    places: Sequence[str],
    checkpoint: str,
    out: str,
    threshold: float,
    save: Sequence[str],
    formats: Sequence[str],
    skip_bad: bool,
    resume: bool,
    view: ViewOptions,
    run: ComputeOptions,
) -> Result:
    """Write what the network finds in photographs, and return the result.

    Args:
        places: files and folders.
        checkpoint: folder of a run or of a saved network, or file of a published checkpoint.
        out: folder.
        threshold: on the probability, for masks.
        save: prob, mask, edge, overlay.
        formats: png and npy, of prob and edge.
        skip_bad: leave out photographs that cannot be used.
        resume: go on with an interrupted run; photographs that are done and unchanged are kept.
        view: how photographs are looked at.
        run: where and how to compute.

    Raises:
        DataError: no photographs, one that cannot be used, or no such network.
        ValueError: options that do not go together.
    """
    left_out = LeftOut(skip_bad)
    paths = check_photos(find_images(places), left_out)
    localizer, config = open_localizer(checkpoint, view, run)
    image = remembered(config)
    settings: dict[str, Any] = {"images": list(places), "checkpoint": checkpoint, "out": out}
    settings |= {"weights": hash_saved(checkpoint)}
    settings |= {"threshold": threshold, "save": list(save), "format": list(formats)}
    settings |= {"skip_bad": skip_bad, **asdict(view), **run.settings()}
    folder = prepare_out(out, settings, resume=resume, overwrite=run.overwrite, inputs=["weights"])
    rows: list[dict[str, Any]] = []
    names = name_outputs((path.stem for path in paths), empty="photograph")
    for path, name in track(list(zip(paths, names, strict=True)), "photographs"):
        note = folder / FOLDER / f"{name}.json"
        digest = hash_files([path])
        kept = read_note(note, path, digest)
        if kept is not None:
            rows.append(kept)
            continue
        with left_out.noting():
            row = _write_photo(path, name, folder, localizer, image, threshold, save, formats)
            row |= {"path": str(path), "hash": digest}
            write_json(note, row)
            rows.append(row)
    left_out.check_any(len(rows), "photographs")
    write_csv(folder / "predictions.csv", rows)
    forged = sum(row.get("prediction") == "forged" for row in rows)
    result = Result(
        package=PACKAGE,
        command="defi-net-predict",
        title=f"{checkpoint}: {counted(len(rows), 'photograph')}",
        rows=[{key: row[key] for key in _TABLE if key in row} for row in rows],
        metrics={
            "photographs": len(rows),
            "left_out": len(left_out),
            "called_forged": None if image is FIXED else forged,
        },
        settings={**settings, "made_by": config.get("made_by")},
        limits=LIMITS,
        data_hash=hash_files([Path(row["path"]) for row in rows]),
        device=describe_device(localizer.device),
        files={
            "predictions": str(folder / "predictions.csv"),
            "maps": str(folder / FOLDER),
        },
        notes=[
            f"seen as {describe_way(localizer)}; marked: share of pixels above {threshold:g}",
            f"prediction: forged above {image}"
            if image is not FIXED
            else "the network remembers no threshold for whole photographs, so it says nothing of "
            "them; score is the highest probability",
            *left_out.notes(),
        ],
    )
    write_report(folder / "report.html", result, _sections(folder, rows))
    result.save(folder)
    return result


def check_photos(paths: Sequence[Path], left_out: LeftOut) -> list[Path]:
    """Return the files whose first bytes promise a photograph.

    Args:
        paths: files.
        left_out: gets what is wrong with the others.

    Raises:
        DataError: a file is no image or too small; or all are.
    """
    good = []
    for path in paths:
        with left_out.noting():
            width, height = read_header(path).size
            if min(width, height) < SHORTEST:
                raise DataError(
                    f"{path}: is {width}x{height}; both sides must be >= {SHORTEST} pixels; leave "
                    "it out or pass --skip-bad"
                )
            good.append(path)
    left_out.check_any(len(good), "photographs")
    return good


def _write_photo(
    path: Path,
    name: str,
    folder: Path,
    localizer: Localizer,
    image: ImageThreshold,
    threshold: float,
    save: Sequence[str],
    formats: Sequence[str],
) -> dict[str, Any]:
    """Write what is found in a photograph, and return its row."""
    photo = read_photo(path)
    started = time.perf_counter()
    edge, probability = localizer.maps(photo, label=path.name)
    seconds = time.perf_counter() - started
    mask = probability > threshold
    score = image_score(probability, image.score)
    verdict = "forged" if score > image.value else "authentic"
    into = folder / FOLDER
    maps = {"prob": probability, "edge": edge}
    for kind in maps.keys() & set(save):
        if "npy" in formats:
            with atomic_path(into / f"{name}_{kind}.npy") as file:
                np.save(file, maps[kind])
        if "png" in formats:
            save_png(into / f"{name}_{kind}.png", eight_bits(maps[kind]))
    if "mask" in save:
        save_png(into / f"{name}_mask.png", mask.astype(np.uint8) * np.uint8(255))
    if "overlay" in save:
        save_png(into / f"{name}_overlay.png", overlay(photo, probability, edge=edge))
    save_png(into / f"{name}_panels.png", strip(photo, probability, edge))
    return {
        "photograph": name,
        **({} if image is FIXED else {"prediction": verdict}),
        "score": round(score, 6),
        "marked": round(float(mask.mean()), 6),
        "width": photo.shape[1],
        "height": photo.shape[0],
        "seconds": round(seconds, 3),
    }


def eight_bits(probability: np.ndarray) -> np.ndarray:
    """Return probabilities as 255ths, in place of a copy as large as they are.

    Args:
        probability: float in [0, 1], shape (H, W).
    """
    found = np.empty(probability.shape, np.uint8)
    for top in range(0, len(found), 256):
        found[top : top + 256] = np.rint(255 * probability[top : top + 256])
    return found


def save_png(path: Path, pixels: np.ndarray) -> None:
    """Write a picture, whole or not at all.

    Args:
        path: ends in .png.
        pixels: uint8, shape (H, W) or (H, W, 3).
    """
    from PIL import Image

    with atomic_path(path) as temporary:
        Image.fromarray(pixels).save(temporary)


def _sections(folder: Path, rows: Sequence[dict[str, Any]]) -> list[Section]:
    """Return a picture of each of the most suspicious photographs, and links to the others."""
    ordered = sorted(rows, key=lambda row: -row["score"])
    sections = [
        Section(
            row["photograph"],
            text=", ".join(
                [*([row["prediction"]] if "prediction" in row else []), f"score {row['score']:.3f}"]
            ),
            figure=(folder / FOLDER / f"{row['photograph']}_panels.png").read_bytes(),
            caption=f"{row['path']}; the probability of inpainting, of its edges, and the first on "
            "the photograph.",
        )
        for row in ordered[:SHOWN]
    ]
    rest = {r["photograph"]: f"{FOLDER}/{r['photograph']}_panels.png" for r in ordered[SHOWN:]}
    return [*sections, *([Section("The others", links=rest)] if rest else [])]
