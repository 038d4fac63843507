"""What `nlran-predict` does: a class and a heat map in the scanner's space for every scan."""

from __future__ import annotations

import gzip
import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from papercommons.cli import DeviceOptions, track
from papercommons.errors import DataError
from papercommons.files import atomic_path, hash_files, prepare_out, write_csv, write_json
from papercommons.report import Result, Section, describe_device, write_report
from papercommons.training import make_trainer

from nlran.explaining import Explained, explain_scan
from nlran.heatmaps import HEAT_MAPS, HeatMap, available_maps
from nlran.judging import PACKAGE
from nlran.pictures import maps_png, most_active_slices, scan_png
from nlran.prepare import GridMap, to_scan_grid
from nlran.saved import RESEARCH_USE, load_network
from nlran.volumes import Volume, volume_kind

log = logging.getLogger("papercommons")

LIMITS = (
    f"{RESEARCH_USE} The network names one of its classes for any scan, of a healthy person, of "
    "another disease or of no chest at all. The heat map shows where features respond; it does not "
    "prove what the answer rests on: see it beside its controls."
)


def find_inputs(places: Sequence[str]) -> list[Path]:
    """Return the scans meant: files and folders that are scans, and all scans below other folders.

    Args:
        places: files and folders.

    Raises:
        DataError: one does not exist, or no scan is found in it.
    """
    found: list[Path] = []
    for place in map(Path, places):
        if not place.exists():
            raise DataError(f"{place}: no such file or folder")
        if place.is_file() or volume_kind(place) is not None:
            found.append(place)
            continue
        below: list[Path] = []
        for folder, folders, files in os.walk(place):
            here = Path(folder)
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            scans = [here / name for name in folders if volume_kind(here / name) is not None]
            folders[:] = [name for name in folders if here / name not in scans]
            scans += [here / n for n in files if n[0] != "." and volume_kind(here / n) is not None]
            below += scans
        if not below:
            raise DataError(
                f"{place}: no scans in it; expected NIfTI, MetaImage or NumPy files, or folders of "
                "DICOM files or of png or jpg slices"
            )
        found += sorted(below)
    return found


def name_outputs(scans: Sequence[Path]) -> list[str]:
    """Return a short, unique name for the outputs of each scan.

    Args:
        scans: files and folders.
    """
    names: list[str] = []
    for scan in scans:
        name = scan.name
        for suffix in (".gz", ".nii", ".mha", ".mhd", ".nrrd", ".npy", ".npz", ".dcm", ".hdr"):
            name = name.removesuffix(suffix)
        name = "".join(c if c.isalnum() or c in "-_." else "_" for c in name) or "scan"
        while name in names:
            name = f"{'_'.join(p for p in scan.parts[-2:-1])}_{name}_{len(names) + 1}"
        names.append(name)
    return names


_LONG = ("path", "page", "heat map", "notes", "use")  # only in predictions.csv


def predict_scans(
    places: Sequence[str],
    checkpoint: str,
    out: str,
    kind: HeatMap | None,
    explain_class: str | None,
    *,
    overlay: bool,
    controls: bool,
    skip_bad: bool,
    allow_gaps: bool,
    mixed_units: bool,
    lung_mask: str | None,
    resume: bool,
    run: DeviceOptions,
) -> Result:
    """Write predictions.csv and, for each scan, a heat map, a picture and a page.

    Args:
        places: scans, or folders of scans.
        checkpoint: folder of a run, or of a saved network.
        out: folder.
        kind: of heat map; None: mask-trunk, or gradcam for a network without a mask.
        explain_class: class that cam and gradcam explain; the likeliest if None.
        overlay: write the pictures as PNG files too.
        controls: show the other maps beside the chosen one.
        skip_bad: leave out scans that cannot be used.
        allow_gaps: see `read_volume`.
        mixed_units: take scans in other units than the network's.
        lung_mask: mask of the one scan, for a network trained with a folder of masks.
        resume: go on with an interrupted run; scans that are done are kept.
        run: where and how to compute.

    Raises:
        DataError: see `explain_scan`; no scan could be used; an unknown class.
    """
    network, config = load_network(checkpoint)
    preparation, classes = config["preparation"], config["classes"]
    target = None
    if explain_class is not None:
        if explain_class not in classes:
            raise DataError(f"--explain-class {explain_class}: there are {', '.join(classes)}")
        target = classes.index(explain_class)
    scans = find_inputs(places)
    settings: dict[str, Any] = {
        "scans": list(places),
        "checkpoint": checkpoint,
        "out": out,
        "heatmap": kind,
    }
    settings |= {"explain_class": explain_class, "overlay": overlay, "controls": controls}
    settings |= {"skip_bad": skip_bad, "allow_gaps": allow_gaps, "mixed_units": mixed_units}
    settings |= {"lung_mask": lung_mask, **run.settings()}
    kept = {name: value for name, value in settings.items() if value is not None}
    folder = prepare_out(out, kept, resume="last" if resume else None, overwrite=run.overwrite)
    trainer = make_trainer(run)
    device = trainer.strategy.root_device
    network.to(device)
    probe = torch.zeros(1, 1, *(size or 16 for size in preparation.size), device=device)
    with torch.no_grad():
        known = available_maps(network.features(probe))
    kind = kind or ("mask-trunk" if "mask-trunk" in known else "gradcam")
    if kind not in known:
        raise ValueError(f"--heatmap {kind}: {config['model']} has {', '.join(known)}")
    kinds = [k for k in HEAT_MAPS if k in known and (controls or k == kind)]
    rows, bad = [], []
    for scan, name in track(list(zip(scans, name_outputs(scans), strict=True)), "scans"):
        page = folder / f"{name}.json"
        if resume and page.is_file():
            rows.append(json.loads(page.read_text(encoding="utf-8")))
            continue
        try:
            found = explain_scan(
                network,
                scan,
                preparation,
                kinds,
                device=device,
                autocast=trainer.precision_plugin.forward_context(),
                allow_gaps=allow_gaps,
                mixed_units=mixed_units,
                mask=lung_mask,
                target=target,
            )
        except DataError as error:
            if not skip_bad:
                raise
            log.warning("left out: %s", error)
            bad.append(str(error))
            continue
        row = _write_scan(folder, name, scan, found, kind, config, overlay, describe_device(device))
        write_json(page, row)
        rows.append(row)
    if not rows:
        raise DataError(f"{scans[0].parent}: no scan could be used; {bad[0]}")
    write_csv(folder / "predictions.csv", rows)
    result = Result(
        package=PACKAGE,
        command="nlran-predict",
        title=f"{config['model']}: {len(rows)} scans, heat map {kind}",
        rows=[{k: v for k, v in row.items() if k not in _LONG} for row in rows],
        metrics={"scans": len(rows), "skipped_scans": len(bad)},
        settings=settings,
        limits=LIMITS,
        data_hash=hash_files([p for scan in scans for p in _files(scan)]),
        device=describe_device(device),
        files={"predictions": str(folder / "predictions.csv")},
        notes=[RESEARCH_USE, *(f"{row['scan']}: {row['notes']}" for row in rows if row["notes"])]
        + [f"left out: {line}" for line in bad],
    )
    write_report(folder / "report.html", result)
    result.save(folder)
    return result


def write_heat_map(path: Path, heat: np.ndarray, volume: Volume) -> None:
    """Write a heat map as 8-bit NIfTI on the grid of the scan's own file, with its affine.

    Args:
        path: ends in .nii.gz.
        heat: float in [0, 1], shape (D, H, W) of the scan.
        volume: the scan.
    """
    import nibabel

    array = volume.in_file_order(np.rint(heat * 255).astype(np.uint8))
    image = nibabel.Nifti1Image(array, volume.file_affine())
    image.header.set_slope_inter(1 / 255, 0)
    image.header["descrip"] = b"nlran heat map; research use only"
    image.header.set_xyzt_units("mm")
    with atomic_path(path) as temporary:
        temporary.write_bytes(gzip.compress(image.to_bytes(), 6, mtime=0))


def _write_scan(
    folder: Path,
    name: str,
    scan: Path,
    found: Explained,
    kind: HeatMap,
    config: dict[str, Any],
    overlay: bool,
    device: str,
) -> dict[str, Any]:
    """Write heat map, picture and page of a scan, and return its row."""
    volume, preparation, classes = found.volume, config["preparation"], config["classes"]
    heat = to_scan_grid(found.maps[kind], found.grid)
    write_heat_map(folder / f"{name}_heatmap.nii.gz", heat, volume)
    window = preparation.window if volume.units == "HU" else (0.0, 255.0)
    picture = scan_png(volume.array, heat, volume.spacing, window)
    if overlay:
        with atomic_path(folder / f"{name}.png") as temporary:
            temporary.write_bytes(picture)
    probabilities = found.logits.softmax(0).tolist()
    says = classes[int(found.logits.argmax())]
    row = {
        "scan": name,
        "says": says,
        **{f"p({c})": round(p, 6) for c, p in zip(classes, probabilities, strict=True)},
        "read (s)": round(found.read_seconds, 3),
        "network (s)": round(found.network_seconds, 3),
        "path": str(scan),
        "page": f"{name}.html",
        "heat map": f"{name}_heatmap.nii.gz",
        "notes": "; ".join(volume.notes),
        "use": RESEARCH_USE,
    }
    page = Result(
        package=PACKAGE,
        command="nlran-predict",
        title=f"{scan.name}: {says}",
        rows=[{"class": c, "probability": p} for c, p in zip(classes, probabilities, strict=True)],
        settings={
            "scan": str(scan),
            "model": config["model"],
            "trained by": config.get("made_by"),
            "size seen": list(found.inputs.shape[2:]),
            "spacing (mm)": [round(s, 3) for s in volume.spacing],
            "kind of file": volume.kind,
        },
        limits=LIMITS,
        data_hash=hash_files(_files(scan)),
        device=device,
        notes=[RESEARCH_USE, *volume.notes],
    )
    sections = [
        Section(
            f"Where the features respond ({kind})",
            figure=picture,
            caption="The most active axial slices, and the coronal and sagittal plane through the "
            "peak; above the scan alone, below under the heat map. The patient's right is on the "
            f"left. The map itself: {name}_heatmap.nii.gz, on the scan's own grid.",
        )
    ]
    if len(found.maps) > 1:
        number = most_active_slices(heat, 1)[0]
        shown: dict[str, np.ndarray] = {k: _one_slice(found, k, number) for k in found.maps}
        sections.append(
            Section(
                "The same slice under every map",
                figure=maps_png(volume.array, shown, volume.spacing, window, slice_number=number),
                caption="Each map is scaled by its own extremes. trunk and gradcam-stage1 are "
                "controls: a map that looks no better than these owes nothing to the attention "
                "mask.",
            )
        )
    write_report(folder / f"{name}.html", page, sections)
    return row


def _one_slice(found: Explained, kind: HeatMap, number: int) -> np.ndarray:
    """Return one axial slice of a map on the scan's grid, without the rest of it."""
    grid = found.grid
    place = (number - grid.shift[0]) / grid.scale[0]
    place = min(max(place, 0.0), grid.grid_shape[0] - 1.0)
    low = int(place)
    high = min(low + 1, grid.grid_shape[0] - 1)
    heat = found.maps[kind]
    mixed = heat[low] + (place - low) * (heat[high] - heat[low])
    flat = GridMap(
        (1.0, *grid.scale[1:]),
        (0.0, *grid.shift[1:]),
        (1, *grid.scan_shape[1:]),
        (1, *grid.grid_shape[1:]),
    )
    return to_scan_grid(mixed[None], flat)[0]


def _files(scan: Path) -> list[Path]:
    return [scan] if scan.is_file() else sorted(p for p in scan.iterdir() if p.is_file())
