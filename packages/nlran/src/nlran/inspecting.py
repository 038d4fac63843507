"""What `nlran-inspect` does: a scan in a few lines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import nibabel
import numpy as np
from papercommons.data.defects import LeftOut
from papercommons.files import hash_files
from papercommons.report import Result

from nlran.content import scan_files
from nlran.layouts import find_scan_files
from nlran.options import PACKAGE
from nlran.saved import RESEARCH_USE
from nlran.volumes import Volume, read_volume


def inspect_scans(
    places: Sequence[str], *, allow_gaps: bool = False, skip_bad: bool = False
) -> Result:
    """Return one row per scan.

    Args:
        places: scans, or folders of scans.
        allow_gaps: see `read_volume`.
        skip_bad: name scans that cannot be read in the notes, instead of stopping.

    Raises:
        DataError: a scan cannot be read.
    """
    rows: list[dict[str, Any]] = []
    notes: list[str] = []
    left_out = LeftOut(skip_bad)
    scans = find_scan_files(places)
    for path, name in scans:
        with left_out.noting():
            volume = read_volume(path, allow_gaps=allow_gaps)
            rows.append(_row(name, volume))
            notes += [f"{name}: {note}" for note in volume.notes]
    return Result(
        package=PACKAGE,
        command="nlran-inspect",
        title=f"{len(rows)} of {len(scans)} scans",
        rows=rows,
        metrics={"scans": len(rows), "left_out": len(left_out)},
        settings={"scans": list(places), "allow_gaps": allow_gaps, "skip_bad": skip_bad},
        limits=RESEARCH_USE,
        data_hash=hash_files([file for path, _ in scans for file in scan_files(path)]),
        device="cpu",
        notes=[*notes, *left_out.notes()],
    )


def _row(name: str, volume: Volume) -> dict[str, Any]:
    """Return the table's row of a scan."""
    sample = volume.array.ravel()[:: max(1, volume.array.size // 1_000_000)]
    low, middle, high = np.percentile(sample, (1, 50, 99)).round().astype(int).tolist()
    codes = "".join(nibabel.orientations.aff2axcodes(volume.file_affine()))
    return {
        "scan": name,
        "kind": volume.kind,
        "units": volume.units,
        "slices": volume.array.shape[0],
        "height": volume.array.shape[1],
        "width": volume.array.shape[2],
        "spacing (mm)": " x ".join(f"{s:.3g}" for s in volume.spacing),
        "axes": codes if volume.geometry else "not told",
        "1 %": low,
        "median": middle,
        "99 %": high,
    }
