"""What `nlran-inspect` does: a scan in a few lines."""

from __future__ import annotations

from collections.abc import Sequence

import nibabel
import numpy as np
from papercommons.files import hash_files
from papercommons.report import Result

from nlran.content import scan_files
from nlran.layouts import find_scan_files
from nlran.saved import RESEARCH_USE
from nlran.volumes import read_volume


def inspect_scans(places: Sequence[str], allow_gaps: bool = False) -> Result:
    """Return one row per scan.

    Args:
        places: scans, or folders of scans.
        allow_gaps: see `read_volume`.

    Raises:
        DataError: a scan cannot be read.
    """
    rows, notes = [], []
    scans = [path for path, _ in find_scan_files(places)]
    for path in scans:
        volume = read_volume(path, allow_gaps=allow_gaps)
        sample = volume.array.ravel()[:: max(1, volume.array.size // 1_000_000)]
        low, middle, high = np.percentile(sample, (1, 50, 99))
        codes = "".join(nibabel.orientations.aff2axcodes(volume.file_affine()))
        rows.append(
            {
                "scan": str(path),
                "kind": volume.kind,
                "units": volume.units,
                "slices": volume.array.shape[0],
                "height": volume.array.shape[1],
                "width": volume.array.shape[2],
                "spacing (mm)": " x ".join(f"{s:.3g}" for s in volume.spacing),
                "axes in file": codes if volume.geometry else "not told",
                "1 %": float(low),
                "median": float(middle),
                "99 %": float(high),
            }
        )
        notes += [f"{path}: {note}" for note in volume.notes]
    return Result(
        package="nlran",
        command="nlran-inspect",
        title=f"{len(rows)} scans",
        rows=rows,
        settings={"scans": list(places), "allow_gaps": allow_gaps},
        limits=RESEARCH_USE,
        data_hash=hash_files([file for path in scans for file in scan_files(path)]),
        device="cpu",
        notes=notes,
    )
