"""What `nlran-phantoms` does: a folder of artificial chests to train and try everything on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from papercommons.files import hash_files, prepare_out
from papercommons.pictures import outline
from papercommons.report import Result, Section, image_grid_png, write_report
from PIL import Image

from nlran.options import PACKAGE
from nlran.phantoms import CLASSES, CLEAR, write_phantoms
from nlran.volumes import read_volume

LIMITS = "Phantoms are no patients: what works on them may fail on people."


def make_phantoms(out: str, count: int, size: int, seed: int, overwrite: bool) -> Result:
    """Write the phantoms and a report with one of each class, and return the result.

    Args:
        out: folder, gets ``ct`` and ``masks``.
        count: phantoms in all, >= 3.
        size: voxels along each axis, >= 16.
        seed: >= 0; another seed gives other phantoms.
        overwrite: empty `out` first if it holds an earlier run.

    Raises:
        DataError: see `prepare_out`.
        ValueError: see `write_phantoms`.
    """
    settings = {"out": out, "count": count, "size": size, "seed": seed}
    folder = prepare_out(out, settings, overwrite=overwrite)
    scans = write_phantoms(folder, count, seed=seed, size=size, noise=20.0, lesions=CLEAR)
    result = Result(
        package=PACKAGE,
        command="nlran-phantoms",
        title=f"{count} phantoms of {size} x {size} x {size} voxels",
        rows=[
            {"class": name, "scans": len(scans[place :: len(CLASSES)])}
            for place, name in enumerate(CLASSES)
        ],
        metrics={"scans": count},
        settings=settings,
        limits=LIMITS,
        data_hash=hash_files(scans),
        device="cpu",
        files={"scans": str(folder / "ct"), "masks": str(folder / "masks")},
    )
    shown = scans[: len(CLASSES)]
    masks = [folder / "masks" / scan.relative_to(folder / "ct") for scan in shown]
    write_report(folder / "report.html", result, [_section(shown, masks)])
    result.save(folder)
    return result


def _section(scans: Sequence[Path], masks: Sequence[Path]) -> Section:
    """Return of some scans the slice with most of the lesions, -1000 to 400 HU, and their outline.

    Args:
        scans: their files.
        masks: files of the lesions' masks, in the same order.
    """
    pictures = []
    for scan, lesions in zip(scans, masks, strict=True):
        hu, mask = read_volume(scan).array, read_volume(lesions).array > 0
        middle = len(hu) // 2
        place = int(mask.sum((1, 2)).argmax()) if mask.any() else middle
        grey = (((hu[place] + 1000) / 1400).clip(0, 1) * 255).astype(np.uint8)
        pictures.append(outline(Image.fromarray(grey).convert("RGB"), mask[place]))
    figure = image_grid_png(pictures, [scan.parent.name for scan in scans], columns=len(scans))
    caption = "The axial slice with most of the lesions, which the yellow line encloses."
    return Section("One of each class", figure=figure, caption=caption)
