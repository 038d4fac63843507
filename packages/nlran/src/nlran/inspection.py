"""What `nlran-inspect` does: a scan in a few lines."""

from __future__ import annotations

from collections.abc import Sequence

import nibabel
import numpy as np
from papercommons.errors import DataError
from papercommons.files import hash_files
from papercommons.report import Result

from nlran.content import scan_files
from nlran.layouts import find_scan_files
from nlran.saved import RESEARCH_USE
from nlran.volumes import read_volume


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
    rows, notes = [], []
    scans = find_scan_files(places)
    for path, name in scans:
        try:
            volume = read_volume(path, allow_gaps=allow_gaps)
        except DataError as error:
            if not skip_bad:
                raise
            notes.append(f"left out: {error}")
            continue
        sample = volume.array.ravel()[:: max(1, volume.array.size // 1_000_000)]
        low, middle, high = np.percentile(sample, (1, 50, 99)).round().astype(int).tolist()
        codes = "".join(nibabel.orientations.aff2axcodes(volume.file_affine()))
        rows.append(
            {
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
        )
        notes += [f"{name}: {note}" for note in volume.notes]
    return Result(
        package="nlran",
        command="nlran-inspect",
        title=f"{len(rows)} of {len(scans)} scans",
        rows=rows,
        settings={"scans": list(places), "allow_gaps": allow_gaps, "skip_bad": skip_bad},
        limits=RESEARCH_USE,
        data_hash=hash_files([file for path, _ in scans for file in scan_files(path)]),
        device="cpu",
        notes=notes,
    )
